"""The search space: the sweep grammar, dimensions, conditions."""
