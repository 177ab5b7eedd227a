"""Tracking: rows go to a journal first, and one process a machine ships them to MLflow."""
