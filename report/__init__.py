"""What is said: tidy frames, statistics, tables, figures and the report. Imports no torch."""
