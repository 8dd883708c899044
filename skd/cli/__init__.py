"""The `skd` and `skd-report` commands, one file a group. Importing them imports no torch."""
