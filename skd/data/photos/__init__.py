"""Photos: folders, decoding, crops and loader processes."""
