"""The verbs: ``dlsearch VERB …``. Each takes its words and returns an exit code."""

from __future__ import annotations

from collections.abc import Callable

Verb = Callable[[list[str]], int]


def _lazy(module: str, name: str) -> Verb:
    def verb(words: list[str]) -> int:
        import importlib

        code: int = getattr(importlib.import_module(f"dlsearch.verbs.{module}"), name)(words)
        return code

    return verb


VERBS: dict[str, Verb] = {
    "plan": _lazy("plan", "plan"),
    "worker": _lazy("service", "worker"),
    "studies": _lazy("study", "studies"),
    "status": _lazy("study", "status"),
    "trials": _lazy("study", "trials"),
    "report": _lazy("study", "report"),
    "predict": _lazy("use", "predict"),
    "export": _lazy("use", "export"),
    "compare": _lazy("use", "compare"),
    "ensemble": _lazy("ensemble", "ensemble"),
    "gc": _lazy("gc", "gc"),
    "ui": _lazy("service", "ui"),
    "sync": _lazy("service", "sync"),
    "describe": _lazy("machine", "describe"),
    "look": _lazy("look", "look"),
    "lr-range": _lazy("look", "lr_range"),
    "verify": _lazy("again", "verify"),
    "reproduce": _lazy("again", "reproduce"),
    "doctor": _lazy("machine", "doctor"),
}
