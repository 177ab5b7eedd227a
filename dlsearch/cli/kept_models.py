"""Models that studies kept, as verbs name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.cli.arguments import split
from dlsearch.cli.reading import read_record_of
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.study.kept_model import Kept


def find_kept_model(overrides: list[str], word: str) -> Kept:
    """The model that a study kept, or one trial's.

    Args:
        overrides: Say where studies are.
        word: A study, or ``STUDY/NUMBER``.

    Raises:
        ConfigError: There is none.
    """
    from dlsearch.study.kept_model import kept_model

    name, slash, number = word.partition("/")
    if slash and not number.isdigit():
        raise ConfigError(
            "NAME", f"expected a study or STUDY/NUMBER, got {word!r}", "dlsearch studies lists them"
        )
    record, store = read_record_of(overrides, name)
    return kept_model(record.to_json(), store, int(number) if slash else None)


def split_files(words: list[str]) -> tuple[list[str], list[str]]:
    """Overrides and the rest; a file whose name holds ``=`` is a file."""
    overrides, rest = split(words)
    files = [word for word in overrides if Path(word).exists()]
    others = [word for word in overrides if word not in files]
    return others, [*rest, *files]
