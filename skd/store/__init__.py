"""The store: runs, teachers and their files, by identity. Imports no torch."""
