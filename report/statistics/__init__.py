"""What any comparison of runs needs. Pure functions."""
