"""What verbs say and ask about MLflow."""

from __future__ import annotations

SHIPS_REST = "tracking: not everything has reached MLflow yet; dlsearch sync ships the rest"


def is_uri_typed(overrides: list[str]) -> bool:
    """Whether the command line itself says where to ship."""
    return any(word.lstrip("+").startswith("tracking.uri=") for word in overrides)
