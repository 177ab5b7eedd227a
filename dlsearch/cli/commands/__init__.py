"""The verbs: ``dlsearch VERB …``, one file each.

Each takes its words and returns an exit code.
"""

from __future__ import annotations

from collections.abc import Callable

Verb = Callable[[list[str]], int]

_NAMES = (
    "plan",
    "worker",
    "studies",
    "status",
    "trials",
    "report",
    "predict",
    "export",
    "compare",
    "ensemble",
    "gc",
    "ui",
    "sync",
    "describe",
    "look",
    "lr-range",
    "verify",
    "reproduce",
    "doctor",
)


def _import_when_called(name: str) -> Verb:
    """The function of the module that bears the verb's name."""

    def verb(words: list[str]) -> int:
        import importlib

        function = name.replace("-", "_")
        module = importlib.import_module(f"dlsearch.cli.commands.{function}")
        code: int = getattr(module, function)(words)
        return code

    return verb


VERBS: dict[str, Verb] = {name: _import_when_called(name) for name in _NAMES}
