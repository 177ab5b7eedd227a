"""Figures of the search: its course, its results, what the budget bought, when what ran."""
