"""Launchers: ours, and those that others wrote, as a search sees them."""
