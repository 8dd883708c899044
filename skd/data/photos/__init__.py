"""Data sets of photos: their folders, decoding, crops and loader processes."""
