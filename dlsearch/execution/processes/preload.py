"""What a fork server imports before its first trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dlsearch.config.build import is_admitted
from dlsearch.config.moved import current_name

#: The config groups of which trials build something.
_BUILT = ("model", "task", "data", "optimizer", "scheduler", "callbacks")


def preload(configs: Iterable[Any]) -> list[str]:
    """The modules that a study's trials import: ours, and those of every ``_target_``."""
    found = [
        "dlsearch.training.fit",
        "dlsearch.execution.trial_main",
        "dlsearch.execution.rehearsal.trying",
    ]

    def visit(node: Any) -> None:
        if isinstance(node, Mapping):
            target = node.get("_target_")
            if isinstance(target, str) and "." in target and is_admitted(target):
                found.append(current_name(target).rpartition(".")[0])
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    for config in configs:
        for name, node in config.items():
            if name in _BUILT:
                visit(node)
    return list(dict.fromkeys(found))
