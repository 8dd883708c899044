"""Jobs: what Snakemake submits. Their size, their watching, and what SLURM says of them.

Imports no torch: all of it runs on login nodes too.
"""
