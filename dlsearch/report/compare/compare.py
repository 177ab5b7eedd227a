"""Two or more studies of one objective, side by side: a pure function of their records.

What is said of a difference depends on what the studies share: trainings with the same seeds on the
same data are compared pair by pair, others as two samples, and scores on different data are not
compared at all.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, cast

from dlsearch.core.errors import ConfigError
from dlsearch.report.compare.budgets import compare_budgets
from dlsearch.report.compare.data import compare_data
from dlsearch.report.compare.models import DataVerdict
from dlsearch.report.compare.pairs import compare_pair, correct_for_many_pairs
from dlsearch.report.compare.studies import describe_study
from dlsearch.report.compare.words import write_verdict
from dlsearch.report.load import clean, view
from dlsearch.report.render import flatten_config, format_bounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.report.compare.models import Comparison, ObjectiveFacts, TableRow
    from dlsearch.report.study import View

#: The version of compare.json.
SCHEMA = 2
#: Below this p a difference is called one.
LEVEL = 0.05
SIGNIFICANT_DIGITS = 12
#: Of the configuration, what says where a study ran and not what.
_PLACES = (
    "paths.",
    "worker.",
    "tracking.",
    "hydra.",
    "study.name",
    "study.storage",
    "study.workers",
)


def compare(
    records: Sequence[Mapping[str, Any]],
    *,
    different_data: bool = False,
) -> Comparison:
    """Everything that a comparison says, as JSON.

    Args:
        records: Study records, two or more.
        different_data: Go on although the studies were scored on different data; nothing is tested
            then.

    Raises:
        ConfigError: They have different objectives, or were scored on different data.
    """
    cleaned = [clean(record) for record in records]
    views = [view(record) for record in cleaned]
    objective = _shared_objective(views)
    maximize = objective["maximize"]
    data = compare_data(views)
    if data["verdict"] is DataVerdict.DIFFERENT and not different_data:
        raise ConfigError(
            "NAME",
            f"the studies were scored on different data: {data['notes'][0]}",
            "--different-data shows them all the same, without tests",
        )
    studies = [describe_study(record, v) for record, v in zip(cleaned, views, strict=True)]
    combinations = itertools.combinations(studies, 2)
    pairs = [
        compare_pair(
            first,
            second,
            data,
            maximize,
        )
        for first, second in combinations
    ]
    correct_for_many_pairs(pairs)
    comparison: Comparison = {
        "schema": SCHEMA,
        "level": LEVEL,
        "objective": objective,
        "data": data,
        "studies": studies,
        "pairs": pairs,
        "curves": compare_budgets(studies, maximize),
        "params": _tabulate([study["winner"] for study in studies]),
        "space": _tabulate([_space_of(v) for v in views]),
        "config": _config_differences(views),
        "verdict": {
            "headline": "",
            "sentences": [],
            "warnings": [],
        },
    }
    comparison["verdict"] = write_verdict(comparison)
    return cast("Comparison", _round_numbers(comparison))


def _shared_objective(views: Sequence[View]) -> ObjectiveFacts:
    """The objective that all studies have.

    Raises:
        ConfigError: They have several objectives, or different ones.
    """
    for v in views:
        if v.multi:
            raise ConfigError(
                "NAME", f"{v.study['name']!r} has several objectives: only single ones are compared"
            )
    first = views[0]
    for other in views[1:]:
        if _aim_of(other) != _aim_of(first):
            raise ConfigError(
                "NAME",
                f"{first.study['name']!r} {_aim_of(first)}, {other.study['name']!r}"
                f" {_aim_of(other)}: not comparable",
            )
    return {
        "name": first.objectives[0].name,
        "maximize": first.objectives[0].maximize,
        "percent": all(v.objectives[0].percent for v in views),
    }


def _aim_of(v: View) -> str:
    """What a study does with its objective: ``maximises val/accuracy``."""
    objective = v.objectives[0]
    return f"{'maximises' if objective.maximize else 'minimises'} {objective.name}"


def _space_of(v: View) -> dict[str, str]:
    """The domain of each dimension that was searched, in words."""
    domains: dict[str, str] = {}
    for dimension in v.study.get("space") or []:
        text = format_bounds(dimension)
        if dimension.get("log"):
            text += ", log"
        if dimension.get("when"):
            text += ", conditional"
        domains[str(dimension["name"])] = text
    return domains


def _tabulate(columns: Sequence[Mapping[str, Any]]) -> list[TableRow]:
    """One row a key, in order of appearance: the values, and whether they differ."""
    keys = dict.fromkeys(key for column in columns for key in column)
    rows: list[TableRow] = []
    for key in keys:
        values = [column.get(key) for column in columns]
        differs = any(value != values[0] for value in values)
        rows.append(
            {
                "key": key,
                "values": values,
                "differs": differs,
            }
        )
    return rows


def _config_differences(views: Sequence[View]) -> list[TableRow]:
    """Keys of the configuration in which the studies differ, but for places."""
    columns = [_flat_config_of(v) for v in views]
    differing = [row for row in _tabulate(columns) if row["differs"]]
    rows = [row for row in differing if not row["key"].startswith(_PLACES)]
    return sorted(rows, key=lambda row: row["key"])


def _flat_config_of(v: View) -> dict[str, str]:
    config = dict(flatten_config(v.study.get("config") or {}))
    config["seed (of the study)"] = str(v.study.get("seed"))
    return config


def _round_numbers(node: Any) -> Any:
    """Twelve significant digits: the same whatever the order of a machine's sums."""
    if isinstance(node, float):
        return float(f"{node:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(node) else None
    if isinstance(node, dict):
        return {key: _round_numbers(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_round_numbers(value) for value in node]
    return node
