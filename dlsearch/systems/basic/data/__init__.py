"""Tables and truth tables."""
