"""What studies and projects may be called."""

from __future__ import annotations

from typing import Any

from dlsearch.core.errors import ConfigError


def check_project(name: Any) -> None:
    """The project part of an MLflow experiment's name.

    Raises:
        ConfigError: It is no short line of text.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 100 or not name.isprintable():
        raise ConfigError(
            "tracking.project", f"expected a line of up to 100 characters, got {str(name)[:60]!r}"
        )


def is_name(name: Any) -> bool:
    """Whether a study may have this name, read from wherever."""
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    return (
        isinstance(name, str)
        and 0 < len(name) <= 100
        and set(name) <= allowed
        and name[0] not in ".-"
    )


def check_name(name: str) -> str:
    """A study's name, which is also a folder's.

    Raises:
        ConfigError: It could leave the store, or no file system takes it.
    """
    if not is_name(name):
        name = str(name)
        shown = name if len(name) < 60 else f"{name[:60]}…"
        raise ConfigError(
            "study.name",
            f"expected letters, digits, '.', '_' and '-', got {shown!r}",
            "study.name=nightly",
        )
    return name
