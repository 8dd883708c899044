"""The analyses that need a network or its losses, and so torch."""
