"""Records as pandas frames, and what a cell says."""
