"""A session: what one run of dlsearch knows of secrets, and what it may name.

Imports nothing heavy.

A process has one current session. Threads share it: what one of them has learned is masked in what
all of them write. A process that is forked begins with a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dlsearch.core import environment
from dlsearch.core.permissions import Permissions
from dlsearch.core.secrets import Secrets


@dataclass(frozen=True)
class Session:
    """The state that belongs to no module.

    Args:
        secrets: The secrets that it knows.
        permissions: The packages and folders that it grants.
    """

    secrets: Secrets = field(default_factory=Secrets)
    permissions: Permissions = field(default_factory=Permissions)


_current = Session()


def current_session() -> Session:
    """The session of this process."""
    return _current


@contextmanager
def use_session(session: Session) -> Iterator[Session]:
    """Within the body `session` is the current one of the whole process, threads included.

    Args:
        session: A new one knows no secrets and grants nothing.
    """
    global _current
    before = _current
    _current = session
    try:
        yield session
    finally:
        _current = before


def _learn_read(text: str) -> None:
    """Have the current session know a value that a config has read from the environment."""
    _current.secrets.learn_read(text)


environment.on_read(_learn_read)
