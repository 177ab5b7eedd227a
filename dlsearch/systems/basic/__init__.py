"""First courses: linear models, the perceptron, multilayer perceptrons, regression, truth tables."""
