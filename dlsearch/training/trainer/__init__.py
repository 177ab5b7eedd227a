"""Lightning's Trainer, made of the config section of that name."""
