"""The command that trains the winner again is one that Hydra reads back to the same values."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dlsearch.report.command import hydra_value, reproduce
from dlsearch.report.load import view


@pytest.mark.parametrize(
    "value",
    [
        *(0.1, 1e-05, 3, True, None, [1, 2], ["a b", 0.5], {"a": 1}),
        *("relu", "1e-3", "true", "null", "a b", "a,b", "it's", "end\\", "\\'", "x=1", "", "ü"),
    ],
)
def test_hydra_reads_the_value_back(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    read = override.value()
    plain = getattr(read, "text", read)
    if isinstance(plain, list):
        plain = [getattr(v, "text", v) for v in plain]
    assert plain == value


def test_the_winner_is_trained_by_what_is_no_search(record: dict[str, Any]) -> None:
    command = reproduce(view(record))["winner"]
    words = shlex.split(command)
    winner = record["trials"][record["winner"]["number"]]
    assert words[:2] == ["dlsearch", "experiment=quickstart"]
    final = record["finalization"]
    assert words[-1] == f"seed={final['seeds'][final['kept']['replica']]}"
    assert f"optimizer.lr={winner['params']['optimizer.lr']!r}" in words
    assert sum(w.startswith("model=") for w in words) == 1
    assert not any(w.startswith("study.") for w in words)
