"""The permissions of a session: packages and folders that configs may name.

What the person at the keyboard admits (:mod:`dlsearch.core.admission`) is granted here. Every
process that builds what a config names is granted the same by the process that started it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from dlsearch.core.errors import ConfigError

KEY = "allow_targets"
PROJECT = "pyproject.toml"
#: Packages that are neither in the standard library nor required, and run whatever they are given.
_INSTALLERS = ("pip", "pkg_resources", "setuptools")


class Permissions:
    """What a session grants: nothing at first."""

    def __init__(self) -> None:
        """Grant nothing."""
        self._packages: tuple[str, ...] = ()
        self._folders: tuple[Path, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages whose code a config may name."""
        return self._packages

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that a config file may name beside working folder, store and data root."""
        return self._folders

    def grant(self, packages: Iterable[str], folders: Iterable[Path] = ()) -> None:
        """Grant `packages` and `folders`, and no others.

        The working folder is on the import path of the process while one of the packages lies
        there.

        Raises:
            ConfigError: One of them cannot be granted.
        """
        wanted = tuple(dict.fromkeys(packages))
        check_packages(wanted)
        self._packages = wanted
        self._folders = tuple(folders)
        here = Path.cwd()
        if any(_lies_in(here, name.split(".")[0]) for name in wanted):
            if str(here) not in sys.path:  # last, so that it shadows nothing
                sys.path.append(str(here))
        elif not sys.flags.safe_path:
            # Programs that this one starts find no module there that somebody else put down.
            os.environ.setdefault("PYTHONSAFEPATH", "1")

    def require(self, packages: Iterable[str]) -> None:
        """Check that what a study names as its packages is granted.

        Raises:
            ConfigError: One of them is not; its hint is the word to add.
        """
        for package in packages:
            if not self._covers(package):
                raise ConfigError(
                    KEY,
                    f"the study needs code of {package!r}, which is not admitted",
                    hint(str(package)),
                )

    def _covers(self, package: str) -> bool:
        """Whether a package, or one above it, is granted."""
        return any(
            package == granted or str(package).startswith(f"{granted}.")
            for granted in self._packages
        )


def hint(package: str) -> str:
    """How `package` is admitted."""
    places = f"on the command line, or in [tool.dlsearch] of {PROJECT}"
    return f"{KEY}=[{package}] {places}, admits a package of yours"


def check_packages(packages: Iterable[Any]) -> None:
    """Refuse what is not a package of the user's own.

    Raises:
        ConfigError: It is no module's name, or it lies in the standard library, in dlsearch, or in
            a distribution that dlsearch requires, directly or not: those hold functions that load
            pickles and run code.
    """
    for entry in packages:
        if not isinstance(entry, str) or not all(part.isidentifier() for part in entry.split(".")):
            raise ConfigError(
                KEY,
                f"expected module names, got {entry!r}",
                f"{KEY}=[mypackage]",
            )
        if not _is_of_the_user(entry.split(".")[0]):
            raise ConfigError(
                KEY,
                f"{entry!r} is not a package of yours",
                "name your own package",
            )


def _lies_in(folder: Path, package: str) -> bool:
    return (folder / package).is_dir() or (folder / f"{package}.py").is_file()


@cache
def _is_of_the_user(package: str) -> bool:
    if package == "dlsearch" or package in _INSTALLERS or package in sys.stdlib_module_names:
        return False
    # it lies in the user's folder: asking for distributions costs 0.2 s
    if not _is_installed(package):
        return True
    from importlib import metadata  # it takes 8 ms, which a command without own packages saves

    distributions = metadata.packages_distributions().get(package, [])
    return not any(_normalised(name) in _required_distributions() for name in distributions)


def _is_installed(package: str) -> bool:
    """Whether the package lies where distributions are installed; it is not imported."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    if found is None:
        return False
    places = (
        [found.origin]
        if found.origin not in (None, "namespace")
        else [*(found.submodule_search_locations or [])]
    )
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    return any(
        Path(str(place)).resolve().is_relative_to(folder)
        for place in places
        for folder in installed
    )


@cache
def _required_distributions() -> frozenset[str]:
    """The distributions that dlsearch requires, directly or not, with all of its own extras."""
    from importlib import metadata

    from packaging.requirements import Requirement

    asked: set[tuple[str, str]] = set()
    waiting = [("dlsearch", "")]
    waiting += [
        ("dlsearch", extra)
        for extra in metadata.metadata("dlsearch").get_all("Provides-Extra") or []
    ]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # it is for another platform
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [
                    (_normalised(requirement.name), each) for each in ("", *requirement.extras)
                ]
    return frozenset(name for name, _ in asked)


def _normalised(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return name.lower().replace("_", "-").replace(".", "-")
