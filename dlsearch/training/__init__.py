"""Training one configuration: a config in, a FitResult out."""
