"""What ``verify`` and ``reproduce`` share: overrides that they take, and inputs that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.cli.arguments import values_given
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.training.inputs import Difference

#: Overrides that say where things are and what may run; the configuration is the record's.
_PLACES = ("paths.", "study.storage", "tracking.", "worker.threads", "allow_targets")
_SHOWN = 8  # differences that are printed
#: Exit codes.
DONE = 0
DIFFERENT = 1
REFUSED = 2


def check_only_places(verb: str, overrides: Sequence[str]) -> None:
    """Refuse overrides of the configuration: that is the record's.

    Raises:
        ConfigError: One of them says more than where things are.
    """
    for word in overrides:
        key = word.lstrip("+~").split("=", 1)[0]
        if not key.startswith(_PLACES):
            raise ConfigError(
                key, f"{verb} trains what the record says and takes no other value", "leave it out"
            )


def typed_threads(overrides: Sequence[str]) -> int | None:
    """``worker.threads`` as typed; None where it was not."""
    given = values_given(overrides, "worker.threads=")
    if not given or given[-1] == "null":
        return None
    return int(given[-1])


def name_differences(found: Sequence[Difference], word: str = "") -> list[str]:
    """A line each; another commit of dlsearch may differ in a hundred files."""
    lines = [f"  {word}{each}" for each in found[:_SHOWN]]
    more = len(found) - _SHOWN
    if more > 0:
        lines.append(f"  … and {more} more (--json lists them)")
    return lines
