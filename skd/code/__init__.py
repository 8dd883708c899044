"""Which code computed a run's numbers, and whether it has changed since. Imports no torch."""
