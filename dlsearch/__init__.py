"""dlsearch: experiment tracking and hyperparameter search for deep learning."""

__version__ = "0.1.0"
