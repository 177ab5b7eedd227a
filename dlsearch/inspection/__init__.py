"""Looking inside nets: activations, gradients by depth, receptive fields, curves, a learning-rate range test."""
