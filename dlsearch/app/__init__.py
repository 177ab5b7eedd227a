"""Use cases: search, train one configuration, join a study, follow it, average an ensemble."""
