"""Data modules: seeded splits, a sealed test set, batches that are made on the training device."""
