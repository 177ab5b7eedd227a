"""Plain ``nn.Module`` classes of the first courses."""
