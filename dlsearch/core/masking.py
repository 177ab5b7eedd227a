"""Secrets are replaced before they reach any file, database or screen.

A value is a secret

- where its key says so, in a config and in a text, as in ``PGPASSWORD=…``
  (:mod:`dlsearch.core.secret_names`);
- where a config reads it from the environment, unless it is harmless there
  (:mod:`dlsearch.core.environment`);
- where its shape says so (:mod:`dlsearch.core.secret_shapes`).

What was learned is a secret wherever it turns up again (:mod:`dlsearch.core.secrets`). The code
that needs a secret has it: only what is written is masked.

The functions here are those of the current session's :class:`~dlsearch.core.secrets.Secrets`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlsearch.core.secret_shapes import BEGINNINGS, MASK, PEM_BEGINS, PEM_ENDS, is_secret
from dlsearch.core.session import current_session

__all__ = [
    "BEGINNINGS",
    "MASK",
    "PEM_BEGINS",
    "PEM_ENDS",
    "is_secret",
    "learn",
    "learn_environment",
    "longest_unfinished",
    "mask",
    "mask_code",
    "mask_file",
    "mask_known",
    "mask_known_in",
    "mask_shapes",
    "mask_text",
]


def learn(value: Any, key: str = "") -> None:
    """See :meth:`~dlsearch.core.secrets.Secrets.learn`."""
    current_session().secrets.learn(value, key)


def learn_environment() -> None:
    """See :meth:`~dlsearch.core.secrets.Secrets.learn_environment`."""
    current_session().secrets.learn_environment()


def longest_unfinished(text: str) -> int:
    """See :meth:`~dlsearch.core.secrets.Secrets.longest_unfinished`."""
    return current_session().secrets.longest_unfinished(text)


def mask_known(value: str) -> str:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask_known`."""
    return current_session().secrets.mask_known(value)


def mask_shapes(value: str) -> str:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask_shapes`."""
    return current_session().secrets.mask_shapes(value)


def mask_text(value: str) -> str:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask_text`."""
    return current_session().secrets.mask_text(value)


def mask_code(value: str) -> str:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask_code`."""
    return current_session().secrets.mask_code(value)


def mask_file(path: Path) -> str | None:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask_file`."""
    return current_session().secrets.mask_file(path)


def mask_known_in(value: Any) -> Any:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask_known_in`."""
    return current_session().secrets.mask_known_in(value)


def mask(value: Any, key: str = "") -> Any:
    """See :meth:`~dlsearch.core.secrets.Secrets.mask`."""
    return current_session().secrets.mask(value, key)
