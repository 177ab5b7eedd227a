"""Comparisons of two or more studies: pure functions of their records."""
