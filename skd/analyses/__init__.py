"""What finished runs tell beyond accuracy, from what they stored: `skd analyse`. No training."""
