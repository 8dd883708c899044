"""Expanding sheets, which needs torch: networks and losses are built and tried without data."""
