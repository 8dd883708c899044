"""Runs, teachers and their files by identity. Imports no torch."""
