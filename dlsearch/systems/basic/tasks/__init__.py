"""Ways of training that predate back-propagation."""
