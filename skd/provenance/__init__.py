"""The origin of numbers, and merging of results: `skd show`, `skd merge`. Imports no torch."""
