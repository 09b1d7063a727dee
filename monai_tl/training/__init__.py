"""Training: loop, losses, schedule, checkpoint."""
