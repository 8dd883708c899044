"""The report's tables: each is built once, as a `Table`, and written in three formats."""
