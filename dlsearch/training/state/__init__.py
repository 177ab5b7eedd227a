"""The state of a training on disk: checkpoints to go on from, and files of weights."""
