"""A winning value at the end of its range is named, with the end."""

from __future__ import annotations

from typing import Any

import pytest

from dlsearch.report.facts.hyperparameters import find_edges
from dlsearch.report.load import view


def edges_of(record: dict[str, Any], dimension: dict[str, Any], value: Any) -> list[Any]:
    """The edges of a study whose winner has this value of its only dimension."""
    record["study"]["space"] = [{"name": "x", **dimension}]
    for trial in record["trials"]:
        trial["params"] = {"x": value}
    return [(edge["name"], edge["value"], edge["side"]) for edge in find_edges(view(record))]


@pytest.mark.parametrize(
    ("dimension", "value", "side"),
    [
        ({"kind": "float", "low": 0.0, "high": 1.0}, 0.04, "lower"),
        ({"kind": "float", "low": 0.0, "high": 1.0}, 0.96, "upper"),
        ({"kind": "float", "low": 0.0, "high": 1.0}, 0.5, None),
        ({"kind": "float", "low": 1e-4, "high": 1.0, "log": True}, 1.2e-4, "lower"),
        ({"kind": "float", "low": 1e-4, "high": 1.0, "log": True}, 1e-2, None),
        ({"kind": "int", "low": 1, "high": 5}, 1, "lower"),
        ({"kind": "int", "low": 1, "high": 5}, 2, None),
        ({"kind": "int", "low": 0, "high": 100}, 97, "upper"),
        ({"kind": "categorical", "choices": [1, 2]}, 1, None),
        ({"kind": "float", "low": None, "high": 1.0}, 1.0, None),
        ({"kind": "float", "low": 1.0, "high": 1.0}, 1.0, None),
        ({"kind": "float", "low": 0.0, "high": 1.0}, True, None),
    ],
)
def test_an_edge_is_the_outer_twentieth_of_the_range_on_its_scale(
    make_record: Any, dimension: dict[str, Any], value: Any, side: str | None
) -> None:
    expected = [] if side is None else [("x", value, side)]
    assert edges_of(make_record(confirmed=False), dimension, value) == expected


def test_a_study_of_few_trials_has_no_edges(make_record: Any) -> None:
    dimension = {"kind": "float", "low": 0.0, "high": 1.0}
    assert edges_of(make_record(3, confirmed=False), dimension, 0.0) == []
