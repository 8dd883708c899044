"""From a sheet in YAML to frozen specifications of runs. Imports no torch."""
