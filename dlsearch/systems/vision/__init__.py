"""Images: architectures, tasks and data."""
