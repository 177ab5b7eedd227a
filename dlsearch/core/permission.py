"""The permissions of the current session, and what a command admits.

What is granted is in :mod:`dlsearch.core.permissions`; who may admit it, and where, is in
:mod:`dlsearch.core.admission`. The functions here are those of the current session's
:class:`~dlsearch.core.permissions.Permissions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dlsearch.core.admission import Admitted, admitted, settings_file
from dlsearch.core.permissions import check_packages, hint
from dlsearch.core.session import current_session

__all__ = [
    "Admitted",
    "admitted",
    "check_packages",
    "folders",
    "grant",
    "granted",
    "hint",
    "require",
    "settings_file",
]


def granted() -> tuple[str, ...]:
    """The packages whose code a config may name in this process."""
    return current_session().permissions.packages


def folders() -> tuple[Path, ...]:
    """The folders that a config file may name beside the working folder, store and data root."""
    return current_session().permissions.folders


def grant(packages: Iterable[str], folders: Iterable[Path] = ()) -> None:
    """See :meth:`~dlsearch.core.permissions.Permissions.grant`."""
    current_session().permissions.grant(packages, folders)


def require(packages: Iterable[str]) -> None:
    """See :meth:`~dlsearch.core.permissions.Permissions.require`."""
    current_session().permissions.require(packages)
