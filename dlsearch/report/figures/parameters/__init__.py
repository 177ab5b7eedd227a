"""Figures of the hyperparameters: importances, slices, parallel coordinates, a plane of two."""
