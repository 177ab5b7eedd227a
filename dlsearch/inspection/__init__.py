"""Looking inside nets: activations, gradients, receptive fields, curves, learning-rate tests."""
