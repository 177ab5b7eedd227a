"""Training recorded trials, or a whole recorded study, again, and comparing bit for bit."""
