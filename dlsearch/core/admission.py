"""What the person at the keyboard admits: packages and folders that configs may name.

She does so on the command line (``allow_targets=[mypackage]``), in the project of the working
folder (``[tool.dlsearch]`` in its ``pyproject.toml``) or in her own settings. What is composed,
recorded or sent by somebody else admits nothing: ``allow_targets`` in a YAML, a study or a report
only says what it needs. The folders (``allow_paths``) come from the project or the settings alone:
on the command line she types the path itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.permissions import KEY, PROJECT, check_packages

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject

FOLDERS_KEY = "allow_paths"
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Admitted:
    """What the person at the keyboard admits.

    Args:
        packages: All of them.
        found: Those that no word of the command line names, and the file that does.
        folders: Beside the working folder, the store and the data root.
    """

    packages: tuple[str, ...]
    found: dict[str, Path]
    folders: tuple[Path, ...] = ()

    def lines(self) -> list[str]:
        """One for each file."""
        packages_of: dict[Path, list[str]] = {}
        for package, file in sorted(self.found.items()):
            packages_of.setdefault(file, []).append(package)
        lines: list[str] = []
        for file in sorted(packages_of):
            names = ", ".join(packages_of[file])
            lines.append(f"{KEY}: {names} ({_short(file)})")
        return lines


def admitted(words: Sequence[str]) -> Admitted:
    """What the command line, the project in the working folder and the user's settings admit.

    Raises:
        ConfigError: One of them is no list of names of packages.
    """
    typed = _typed(words)
    found: dict[str, Path] = {}
    places: list[Path] = []
    for path in (Path.cwd() / PROJECT, settings_file()):
        said = _in_file(path, project=path.name == PROJECT)
        for name in _packages(said, path):
            if name not in typed:
                found.setdefault(name, path)
        places += _paths(said, path)
    return Admitted((*typed, *found), found, tuple(places))


def settings_file() -> Path:
    """The user's own settings: ``dlsearch/settings.toml`` in her folder of configurations."""
    base = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    if not base.is_absolute():
        base = Path.home() / ".config"
    return base / "dlsearch" / "settings.toml"


def _typed(words: Sequence[str]) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name.lstrip("+") != KEY:
            continue
        given = _parsed(word)
        if isinstance(given, str):  # the config wants a list, and says so
            given = [given]
        if not isinstance(given, list):
            raise ConfigError(
                KEY,
                f"expected module names, got {value!r}",
                f"{KEY}=[mypackage]",
            )
        found = tuple(dict.fromkeys(given))
    check_packages(found)
    return found


def _parsed(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        override = OverridesParser.create().parse_override(word)
    except OverrideParseException:
        return None
    return None if override.is_sweep_override() else override.value()


def _in_file(path: Path, *, project: bool) -> JsonObject:
    """What a project or the settings say to us."""
    if not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        if project and "dlsearch" not in text:  # most are not about us: a parser is not imported
            return {}
        import tomllib

        content: Any = tomllib.loads(text)
    except (ValueError, OSError, RecursionError) as error:  # no UTF-8, no TOML
        if project:  # other tools say so
            return {}
        raise ConfigError(_short(path), f"is no TOML: {error}") from error
    for name in ("tool", "dlsearch") if project else ():
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _packages(said: JsonObject, path: Path) -> list[str]:
    packages = said.get(KEY, [])
    key = f"{_short(path)}: {KEY}"
    if not isinstance(packages, list):
        hint = f'{KEY} = ["mypackage"]'
        raise ConfigError(key, f"expected a list, got {packages!r}", hint)
    try:
        check_packages(packages)
    except ConfigError as error:
        raise ConfigError(key, error.expected, error.hint) from error
    return packages


def _paths(said: JsonObject, path: Path) -> list[Path]:
    """The folders that a file admits; a relative one lies below the file's own folder."""
    given = said.get(FOLDERS_KEY, [])
    if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
        key = f"{_short(path)}: {FOLDERS_KEY}"
        hint = f'{FOLDERS_KEY} = ["/datasets"]'
        raise ConfigError(
            key,
            f"expected a list of folders, got {given!r}",
            hint,
        )
    return [path.parent / Path(each).expanduser() for each in given]


def _short(path: Path) -> str:
    return path.name if path.parent == Path.cwd() else str(path)
