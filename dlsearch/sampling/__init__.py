"""Sampling: samplers and pruners from their configs, and seeds as functions of the trial number."""
