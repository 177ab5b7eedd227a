"""The report's statistics against answers known from elsewhere."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlsearch.report.facts import statistics as stats
from dlsearch.report.facts.hyperparameters import importances
from dlsearch.report.load import view


@pytest.mark.parametrize("maximize", [True, False])
def test_expected_best_is_the_mean_over_all_subsets(maximize: bool) -> None:
    values = [0.3, 0.9, 0.5, 0.5, 0.1, 0.7, 0.65]
    best = max if maximize else min
    for n, mean, low, high in stats.expected_best(values, maximize):
        subsets = [best(s) for s in itertools.combinations(values, n)]
        assert mean == pytest.approx(sum(subsets) / len(subsets))
        assert sum(b <= low for b in subsets) >= 0.25 * len(subsets)
        assert sum(b >= high for b in subsets) >= 0.25 * len(subsets)
        assert low <= high


def test_expected_best_of_many_trials_stays_finite() -> None:
    rows = stats.expected_best([i / 1000 for i in range(1000)], maximize=True)
    assert len(rows) == 1000
    assert all(math.isfinite(v) for row in rows for v in row)
    assert rows[0][1] == pytest.approx(0.4995)
    assert rows[-1][1] == pytest.approx(0.999)


def test_empirical_distribution_counts_ties_once() -> None:
    assert stats.empirical([2.0, 1.0, 2.0, 3.0]) == [(1.0, 0.25), (2.0, 0.75), (3.0, 1.0)]


def test_busy_slots_and_idle_gaps() -> None:
    spans = [(0.0, 10.0), (5.0, 10.0), (100.0, 110.0)]
    assert stats.busy(spans) == [(0.0, 1), (5.0, 2), (10.0, 0), (100.0, 1), (110.0, 0)]
    assert stats.idle(spans) == [(10.0, 100.0)]
    assert stats.idle([]) == []


@pytest.mark.parametrize(
    ("target", "free"),
    [
        ("optuna.samplers.RandomSampler", True),
        ("optuna.samplers.QMCSampler", True),
        ("optuna.samplers.GridSampler", True),
        ("optuna.samplers.TPESampler", False),
        (None, False),
    ],
)
def test_which_samplers_draw_independently(target: str | None, free: bool) -> None:
    assert stats.independent({"_target_": target}) is free


def test_a_sampler_that_adapts_draws_its_first_trials_at_random() -> None:
    sampler = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 10}
    assert stats.independent(sampler, 4)
    assert stats.independent(sampler, 10)
    assert not stats.independent(sampler, 11)
    assert not stats.independent(sampler)


def test_importances_find_the_parameter_that_matters(
    make_record: Callable[..., dict[str, Any]],
) -> None:
    record, rng = make_record(60), random.Random(0)
    for t in record["trials"]:
        x = rng.uniform(0, 0.6)
        score = round(1 - (x - 0.3) ** 2, 6)
        t.update(state="complete", value=score, values=[score], reason=None)
        t["params"]["model.dropout"] = x
    found = importances(view(record))
    assert found["values"][0][0] == "model.dropout"
    assert found["values"][0][1] > 0.5
    assert sum(v for _, v in found["values"]) == pytest.approx(1.0)
    assert found["target_quantile"] == pytest.approx(0.1)
    assert found["trials"] + found["left_out"] == 60


def test_importances_leave_out_what_lies_outside_the_space(record: dict[str, Any]) -> None:
    # An enqueued configuration may lie outside of what is searched.
    record["trials"][0]["params"]["optimizer.lr"] = 7.0
    found = importances(view(record))
    assert found["left_out"] == 1
    assert found["trials"] == sum(t["state"] == "complete" for t in record["trials"]) - 1


def test_importances_say_why_not(make_record: Callable[..., dict[str, Any]]) -> None:
    found = importances(view(make_record(5)))
    assert found["values"] == []
    assert "at least 10" in found["why_not"]


_AT_THE_END = """
import importlib, json, sys
from pathlib import Path

from dlsearch.app import rehearse
from dlsearch.storage import database

for module in rehearse.LATER_IMPORTS:
    importlib.import_module(module)
from dlsearch.report.facts import hyperparameters
from dlsearch.report.load import view

record = json.loads(Path(sys.argv[1]).read_text())
before = set(sys.modules)
found = hyperparameters.importances(view(record))
heavy = {"joblib", "optuna", "pandas", "scipy", "sklearn"}
new = sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in heavy)
print(json.dumps({"found": found, "new": new}))
"""


def test_a_search_has_imported_what_its_reports_importances_need(
    make_record: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    record, rng = make_record(200), random.Random(0)
    for trial in record["trials"]:
        dropout = rng.uniform(0, 0.6)
        score = round(1 - (dropout - 0.3) ** 2, 6)  # a function of this one parameter alone
        trial.update(state="complete", value=score, values=[score], reason=None)
        trial["params"]["model.dropout"] = dropout
    path = tmp_path / "study.json"
    path.write_text(json.dumps(record))
    command = [sys.executable, "-W", "ignore", "-c", _AT_THE_END, str(path)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert said["new"] == []
    shares = dict(said["found"]["values"])
    assert shares.pop("model.dropout") > 0.8
    assert max(shares.values()) < 0.1
