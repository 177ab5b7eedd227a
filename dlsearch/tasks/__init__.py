"""Ways of training: LightningModules that take any net, and know no architecture."""
