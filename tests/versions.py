"""What is not promised by a library is taken away from our code: for tests of versions that nobody has compared."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any


def is_private(path: str) -> bool:
    """Whether a name, or one of those on its path, begins with one underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in path.split("."))


def take_away_imports(package: str) -> None:
    """Nothing private of `package` can be imported any more by dlsearch; the package itself goes on as ever."""
    plain = builtins.__import__

    def checked(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if (globals or {}).get("__name__", "").startswith("dlsearch") and name.partition(".")[
            0
        ] == package:
            for path in (name, *(f"{name}.{each}" for each in fromlist or ())):
                if is_private(path):
                    raise ImportError(f"{path} is gone")
        return plain(name, globals, locals, fromlist, level)

    builtins.__import__ = checked


def take_away_attributes(kind: Any, gone: Callable[[str], bool] = is_private) -> None:
    """Attributes of objects of a class are gone for dlsearch: those that are private, or that `gone` names."""
    read, write = kind.__getattribute__, kind.__setattr__

    def check(name: str) -> None:
        if gone(name) and sys._getframe(2).f_globals.get("__name__", "").startswith("dlsearch"):
            raise AttributeError(f"{kind.__name__}.{name} is gone")

    def checked_read(self: Any, name: str) -> Any:
        check(name)
        return read(self, name)

    def checked_write(self: Any, name: str, value: Any) -> None:
        check(name)
        write(self, name, value)

    kind.__getattribute__ = checked_read
    kind.__setattr__ = checked_write
