"""What lies on disk: runs, saved models, checkpoints, histories."""
