"""Which code made a number, and whether it is today's. Nothing here imports torch but `again`."""
