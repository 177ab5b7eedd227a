"""Confirmation: finalists are trained again on fresh seeds, and one of them wins."""
