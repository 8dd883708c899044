"""The comparison of two results folders, for `skd diff`."""
