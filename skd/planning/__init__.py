"""Planning: estimates, jobs, a simulated schedule, a budget. Imports no torch."""
