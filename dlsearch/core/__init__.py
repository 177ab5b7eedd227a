"""The ground floor: errors, secrets, bounds on foreign text, processes, provenance."""
