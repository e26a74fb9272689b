"""Score a run's stored replies by another metric."""
