"""Searching: spaces, studies, the workers that serve them, and the Hydra sweeper that opens them."""
