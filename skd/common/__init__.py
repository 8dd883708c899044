"""What every part may use: errors, files, leases, terminal output. Imports no torch."""
