"""What needs torch to expand a sheet: networks and losses tried without storage."""
