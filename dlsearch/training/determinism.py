"""``trainer.deterministic``: true, warn or false.

Operations that refuse to be deterministic are noted.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import torch

from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REFUSES = re.compile(r"(\S+) does not have a deterministic implementation")


def check(value: Any) -> None:
    """Refuse what Lightning would take for something else.

    Raises:
        ConfigError: `value` is not true, false or ``warn``.
    """
    if value is not None and not isinstance(value, bool) and value != "warn":
        raise ConfigError("trainer.deterministic", f"expected true, warn or false, got {value!r}")


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect the names of operations that torch warns of under ``warn``.

    Each is warned of once.
    """
    found: list[str] = []
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        match = _REFUSES.match(str(message))
        if match is None:
            shown(message, category, filename, lineno, file, line)
        elif match[1] not in found:
            found.append(match[1])
            shown(
                f"{match[1]} is not deterministic",
                category,
                filename,
                lineno,
                file,
                line,
            )

    with warnings.catch_warnings():
        warnings.filterwarnings("default", message=_REFUSES.pattern)
        warnings.showwarning = show
        yield found


@contextmanager
def unfilled() -> Iterator[None]:
    """Do not have every new tensor filled with NaN.

    torch does so where operations must be deterministic. Filling costs a small net two hundredths
    of its step, and changes what is computed only where a program reads memory that was never
    written.
    """
    # The module sets it by a property that its type hints do not know.
    settings: Any = torch.utils.deterministic
    before = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = before
