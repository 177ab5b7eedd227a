"""What dlsearch writes to a terminal: streams without secrets, lines, warnings."""
