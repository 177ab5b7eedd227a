"""Ways of training nets on images."""
