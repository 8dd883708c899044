"""From a study sheet in YAML to frozen specs of runs. Imports no torch."""
