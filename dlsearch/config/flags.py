"""Hydra's own options on the command line, written in full.

Those that run what a file holds are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

RERUN = "--experimental-rerun"
#: The long options of Hydra 1.3. argparse takes every beginning of one that fits no other.
OPTIONS = (
    "--cfg",
    "--config-dir",
    "--config-name",
    "--config-path",
    RERUN,
    "--help",
    "--hydra-help",
    "--info",
    "--multirun",
    "--package",
    "--resolve",
    "--run",
    "--shell-completion",
    "--version",
)


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words of a command line with each long option in full.

    Args:
        words: As typed. What stands after ``--`` is no option.

    Raises:
        ConfigError: There is no such option, it could be several, or it would load a pickle.
    """
    found: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*found, *words[place:]]
        found.append(_in_full(word) if word.startswith("--") else word)
    return found


def _in_full(word: str) -> str:
    name, equals, value = word.partition("=")
    meant = [name] if name in OPTIONS else [option for option in OPTIONS if option.startswith(name)]
    if len(meant) > 1:
        raise ConfigError(name, "could be several options", " or ".join(meant))
    if not meant:
        raise ConfigError(
            name,
            "there is no such option",
            did_you_mean(name, OPTIONS, "see --help"),
        )
    if meant == [RERUN]:  # it unpickles the file, and so runs what is in it
        hint = "dlsearch verify NAME/42 trains a recorded trial again"
        raise ConfigError(RERUN, "would run whatever the file holds", hint)
    return f"{meant[0]}{equals}{value}"
