"""Shared by all packages: errors, files, leases, terminal output. Imports no torch."""
