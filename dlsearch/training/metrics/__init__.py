"""What a training logs: which values are fresh, and which are no finite numbers."""
