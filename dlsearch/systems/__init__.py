"""The documented systems, one folder a family: each a net, a task, data, a YAML and facts."""
