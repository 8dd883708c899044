"""What a study will take: estimates, jobs, a simulated schedule, a budget. Imports no torch."""
