"""Jobs of the workflow: their worker processes, SLURM, the driver and the overview of a study.

Imports no torch, so that it runs on login nodes too.
"""
