"""Configuration: the typed frame, composition, and the one place where configs become objects."""
