"""Whether two results folders say the same: `skd diff`."""
