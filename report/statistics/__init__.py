"""The statistics that every comparison of runs uses. Pure functions."""
