"""Launchers of our own. Hydra's, Ray's and Slurm's work as they are."""
