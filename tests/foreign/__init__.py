"""Somebody else's package: modules and data modules as people write them, for no tool of ours."""
