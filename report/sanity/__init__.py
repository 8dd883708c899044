"""What makes a study useless or doubtful."""
