"""A trial that violates a constraint is a result like others, and never the best."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from dlsearch.confirmation.rounds import Rounds
from dlsearch.execution import checkpoint_retention
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.records.record import read_record
from dlsearch.records.status import read_status
from dlsearch.report.load import view
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.storage.server import Server
from tests.study.studies import draft, opened

DISTRIBUTIONS = {
    "optimizer.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
    "model.dropout": optuna.distributions.CategoricalDistribution([0.0, 0.25, 0.5]),
}
_numbers = itertools.count()


def add(
    study: Study,
    value: float | list[float],
    constraints: dict[str, float] | None = None,
    **marks: bool,
) -> None:
    """A complete trial, whose constraints were set by Optuna's own interface."""
    values = value if isinstance(value, list) else [value]
    params = {"optimizer.lr": 1e-4 + 1e-5 * next(_numbers), "model.dropout": 0.25}
    study.optuna.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            values=values,
            params=params,
            distributions=DISTRIBUTIONS,
            user_attrs=marks,
            constraints=constraints,
        )
    )


@pytest.fixture
def study(tmp_path) -> Iterator[Study]:
    made = opened(tmp_path, draft(40))
    yield made
    made.storage.close()


def test_the_best_is_feasible(study):
    add(study, 0.9, {"memory": 1.0})
    assert study.best() is None
    assert read_status(study).to_json()["best"] is None
    add(study, 0.5, {"memory": -1.0, "latency": 0.0})
    add(study, 0.8, {"memory": -1.0, "latency": float("inf")})
    add(study, 0.4)
    assert study.best().number == 1
    assert study.best() == study.optuna.best_trial
    assert not study.reached(0.6)
    assert study.reached(0.5)
    assert read_status(study).to_json()["best"]["number"] == 1


def test_the_best_is_found_behind_many_that_are_not_feasible(study):
    for number in range(30):
        add(study, 0.9 - number / 1000, {"memory": 0.1})
    add(study, 0.3)
    add(study, 0.4, {"memory": -0.1})
    assert study.best().number == 31
    assert checkpoint_retention._ranked(study) == [31, 30]
    assert checkpoint_retention._ranked(study, 1) == [31]


def test_constraints_in_the_form_of_earlier_versions_count(study):
    add(study, 0.9)
    add(study, 0.5)
    with sqlite3.connect(study.storage.path) as connection:
        first = connection.execute("SELECT trial_id FROM trials WHERE number = 0").fetchone()[0]
        connection.execute(
            "INSERT INTO trial_system_attributes (trial_id, key, value_json)"
            " VALUES (?, 'constraints', '[-1.0, 2.0]')",
            (first,),
        )
    connection.close()
    assert study.best().number == 1


def test_the_record_and_its_report_name_a_feasible_winner(study):
    add(study, 0.9, {"memory": 1.0})
    add(study, 0.5)
    record = read_record(study).to_json()
    assert record["winner"]["number"] == 1
    assert [trial.get("infeasible", False) for trial in record["trials"]] == [True, False]
    seen = view(record)
    assert seen.best is not None
    assert seen.best.number == 1
    assert [trial.number for trial in seen.scored] == [1]
    assert all(check["ok"] for check in seen.checks if "winner" in check["check"])


def test_finalists_are_feasible(study):
    for value, constraint in ((0.9, 1.0), (0.5, -1.0), (0.8, 1.0), (0.6, 0.0)):
        add(study, value, {"memory": constraint})
    finalists = Rounds(study)._wanted_round().finalists
    assert [each.trial_number for each in finalists if each.trial_number is not None] == [3, 1]


def test_a_default_configuration_that_is_not_feasible_cannot_win(study):
    add(study, 0.9, {"memory": 1.0}, default=True)
    add(study, 0.5)
    finalists = Rounds(study)._wanted_round().finalists
    assert [each.trial_number for each in finalists] == [1]


def test_without_a_feasible_trial_there_is_nothing_to_confirm(study):
    add(study, 0.9, {"memory": 1.0})
    assert Rounds(study)._wanted_round() is None
    assert read_record(study).to_json()["winner"] is None


def test_the_front_is_feasible(tmp_path):
    study = opened(
        tmp_path,
        draft(40, directions=["maximize", "minimize"], objectives=["val/accuracy", "val/seconds"]),
    )
    add(study, [0.9, 1.0], {"memory": 1.0})
    add(study, [0.8, 2.0], {"memory": -1.0})
    add(study, [0.7, 3.0])
    add(study, [0.9, 5.0])
    assert study.front() == [1, 3] == sorted(trial.number for trial in study.optuna.best_trials)
    record = read_record(study).to_json()
    assert record["pareto"] == [1, 3]
    assert view(record).pareto == (1, 3)
    assert checkpoint_retention._ranked(study) == [1, 3]
    study.storage.close()


def test_the_same_on_postgresql(postgres: Server):
    url = postgres.database("constraints")
    document = document_of(draft(40), {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    storage = Storage(url)
    study = open_study(storage, draft(40), document, lease_s=30.0)[0]
    for number in range(20):
        add(study, 0.9 - number / 1000, {"a: %_\\ name": 0.1})
    add(study, 0.3, {"a: %_\\ name": 0.0})
    assert study.best().number == 20
    assert study.best() == study.optuna.best_trial
    storage.close()
