"""The report's tables. Each is built once as a `ReportTable` and written in three formats."""
