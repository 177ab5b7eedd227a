"""First courses: linear models, perceptrons of one and more layers, regression, truth tables."""
