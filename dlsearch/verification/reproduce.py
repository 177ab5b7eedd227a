"""Running a whole study again from its report alone, in a storage of its own, and comparing.

Each trial is trained again under its number, and so its seed, with the recorded parameters, and a
pruned trial ends where it ended. So the trials may run in any order, on any number of workers, and
what comes out is compared trial by trial. That these parameters and ends are what the sampler and
the pruner say is shown apart: :mod:`dlsearch.verification.proposals` and
:mod:`dlsearch.verification.verdicts`.
"""

from __future__ import annotations

import copy
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.config.build import check_groups
from dlsearch.confirmation.racing import FIRST_RULE
from dlsearch.core import permission, provenance
from dlsearch.core.errors import ConfigError
from dlsearch.space.space import Space
from dlsearch.storage.database import Storage, StudyRow
from dlsearch.storage.studies import read_row
from dlsearch.study.documents import study_document
from dlsearch.study.states import RecordedTrialState
from dlsearch.study.study import REASON, Study
from dlsearch.tracking import layout
from dlsearch.training.inputs import changed
from dlsearch.verification.retrain import (
    COMPARED,
    DifferentValue,
    find_different_values,
    repeatable,
)

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject
    from dlsearch.verification.report_file import ReplayReport, ReplayRow

_COMPARED_OF_WINNER = ("number", "params", "value")
_COMPARED_OF_CONFIGURATION = ("trial_number", "default", "params", "mean", "winner")
_COMPARED_OF_REPLICA = ("replica", "seed", "state", "value", "state_sha256")
_PRUNER = "dlsearch.sampling.factory.recorded"
#: What is taken over from the reported study as it is.
_TAKEN_OVER = (
    "objectives",
    "directions",
    "seed",
    "options",
    "space",
    "sampler",
    "overrides",
    "command",
    "data",
    "model",
)
#: Settings of the search that a repetition does without: all trials are there, and run to their
#: ends.
_NO_LIMITS = {
    "timeout": None,
    "trial_timeout": None,
    "target": None,
    "storage": None,
    "enqueue": None,
}


@dataclass(frozen=True)
class TrialComparison:
    """What came of one trial.

    Args:
        number: The trial.
        state: As recorded.
        verdict: ``equal``, ``different``, ``skipped`` (not run), ``missing``.
        differs: What came out otherwise.
        why: Why it was not run; None where it was.
    """

    number: int
    state: str
    verdict: str = "equal"
    differs: list[DifferentValue] = field(default_factory=list)
    why: str | None = None

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        found = asdict(self)
        if self.why is None:
            del found["why"]
        return found


@dataclass(frozen=True)
class WinnerComparison:
    """The winner, then and now; None where there is none."""

    recorded: JsonObject | None
    again: JsonObject | None

    @property
    def is_equal(self) -> bool:
        """Whether it is the same."""
        return self.recorded == self.again

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {"recorded": self.recorded, "again": self.again, "equal": self.is_equal}


@dataclass(frozen=True)
class ConfirmationComparison:
    """What of the confirmation must come out the same, then and now.

    Args:
        recorded: A row for each configuration; None without a confirmation.
        again: The same of the repetition.
        differs: Names of what differs.
    """

    recorded: list[JsonObject] | None
    again: list[JsonObject] | None
    differs: list[str]

    @property
    def is_equal(self) -> bool:
        """Whether it is the same."""
        return self.recorded is not None and self.recorded == self.again

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {**asdict(self), "equal": self.is_equal}


@dataclass(frozen=True)
class Comparison:
    """What came out the same of a study that ran again.

    Args:
        trials: All of them, by number.
        winner: The winner.
        confirmed: The confirmation; None where neither had one.
    """

    trials: list[TrialComparison]
    winner: WinnerComparison
    confirmed: ConfirmationComparison | None

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {
            "trials": [trial.to_json() for trial in self.trials],
            "winner": self.winner.to_json(),
            "confirmed": None if self.confirmed is None else self.confirmed.to_json(),
        }


# -- running it again ------------------------------------------------------------------------------
def document_of(report: ReplayReport, threads: int | None = None) -> JsonObject:
    """The document of the study to run: the reported one, whose pruner stops as recorded.

    Args:
        report: As :func:`dlsearch.verification.report_file.load` gives it.
        threads: CPU threads of each trial, in place of those that were recorded.
    """
    study = report["study"]
    config = copy.deepcopy(study["config"])
    check_groups(config, study["options"])
    permission.require(config["allow_targets"])
    config["study"] |= _NO_LIMITS
    here = provenance.collect(
        config=config,
        space=study["space"],
        data={},
        allow_targets=config["allow_targets"],
        threads=threads or _recorded_threads(report["replay"][0]),
    )
    data_name = str(study["data"].get("name") or "data")
    stops = _find_last_epochs(report)
    document = {
        "schema": 1,
        "name": study["name"],
        "uuid": uuid.uuid4().hex,
        "replay_of": study["uuid"],
        "experiment": layout.experiment_name(config["tracking"]["project"], data_name),
        "pruner": {"_target_": _PRUNER, "last_epochs": stops} if stops else None,
        "config": config,
        "allow_targets": config["allow_targets"],
        "default": None,
        "enqueue": [],
        "fixed": config,
        "provenance": here["provenance"],
        "threads": here["provenance"]["threads"],
        "racing_rule": _recorded_rule(report),
        "sha": {**study["sha"], **provenance.origin(tuple(config["allow_targets"]))},
    }
    reported: Mapping[str, Any] = study
    for key in _TAKEN_OVER:
        document[key] = reported[key]
    return document


def _recorded_rule(report: ReplayReport) -> int | None:
    """The rule by which finalists were dropped; None without a confirmation."""
    finalization = report["again"].get("finalization")
    if finalization is None:
        return None
    rule: int = finalization.get("rule", FIRST_RULE)
    return rule


def _recorded_threads(row: ReplayRow) -> int | None:
    inputs = row["inputs"]
    if not inputs:
        return None
    threads: int = inputs["threads"]
    return threads


def _find_last_epochs(report: ReplayReport) -> dict[str, int]:
    """The last epoch of every pruned trial, by its number."""
    stops = {}
    for row in report["replay"]:
        if row["state"] == RecordedTrialState.PRUNED and row["epochs"]:
            stops[str(row["number"])] = row["epochs"] - 1
    return stops


def open_replay(storage: Storage, report: ReplayReport, threads: int | None = None) -> Study:
    """Make the study, all its trials waiting; or go on with it.

    A trial that failed for a reason outside of it (lost, out of memory, timeout) is taken over as
    failed.

    Raises:
        ConfigError: The storage has another study of that name.
    """
    name = report["study"]["name"]
    with storage.lock(name):
        row = read_row(storage, name)
        if row is None:
            _make_study(storage, report, threads)
        elif study_document(row.document).get("replay_of") != report["study"]["uuid"]:
            raise ConfigError("--store", f"has a study {name!r} already", "name an empty folder")
    return Study(storage, name)


def _make_study(storage: Storage, report: ReplayReport, threads: int | None) -> None:
    """Make the study; its row comes last, so that what a death leaves is made again."""
    rows = report["replay"]
    document = document_of(report, threads)
    space = Space.from_json(document["space"])
    study = optuna.create_study(
        study_name=document["name"],
        storage=storage.optuna,
        directions=document["directions"],
        load_if_exists=True,
    )
    made = len(study.get_trials(deepcopy=False))
    for row in rows[made:]:
        study.add_trial(_make_trial(space, row))
    insert = sa.insert(StudyRow).values(
        name=document["name"],
        uuid=document["uuid"],
        created=time.time(),
        n_trials=len(rows),
        seconds=0.0,
        finished=False,
        document=json.dumps(document),
    )
    with storage.begin() as connection:
        connection.execute(insert)


def _make_trial(space: Space, row: ReplayRow) -> optuna.trial.FrozenTrial:
    """The trial, waiting with its recorded parameters; or failed, where it is not run again."""
    marks = {}
    if row["default"]:
        marks["default"] = True
    if row["enqueued"]:
        marks["enqueued"] = True
    if repeatable(row) is not None and row["duplicate_of"] is None:
        reason = row["reason"] or row["state"]
        return optuna.create_trial(state=TrialState.FAIL, user_attrs={**marks, REASON: reason})
    return optuna.create_trial(
        state=TrialState.WAITING,
        system_attrs={"fixed_params": space.encode(row["params"])},
        user_attrs=marks,
        constraints={"recorded": 1.0} if row["infeasible"] else None,
    )


# -- comparing -------------------------------------------------------------------------------------
def compare(report: ReplayReport, record: Mapping[str, Any]) -> Comparison:
    """What came out the same, and what differs.

    Args:
        report: The ``report.json`` that was run again.
        record: The record of the study that ran.
    """
    again = {trial["number"]: trial for trial in record["trials"]}
    trials = [_compare_trial(row, again.get(row["number"])) for row in report["replay"]]
    return Comparison(
        trials,
        _compare_winners(report, record),
        _compare_confirmations(report, record),
    )


def _compare_trial(row: ReplayRow, now: Mapping[str, Any] | None) -> TrialComparison:
    number = row["number"]
    state = row["state"]
    reason = repeatable(row)
    is_duplicate = row["duplicate_of"] is not None
    if reason is not None and not is_duplicate:
        return TrialComparison(number, state, "skipped", why=reason)
    if now is None:
        return TrialComparison(number, state, "missing")
    keys = ("params", "values") if is_duplicate else ("params", "intermediate", *COMPARED)
    differs = find_different_values(keys, row, now)
    return TrialComparison(number, state, "different" if differs else "equal", differs)


def _compare_winners(report: ReplayReport, record: Mapping[str, Any]) -> WinnerComparison:
    recorded = _outline_winner(report["again"]["winner"])
    again = _outline_winner(record["winner"])
    return WinnerComparison(recorded, again)


def _outline_winner(winner: Mapping[str, Any] | None) -> JsonObject | None:
    if winner is None:
        return None
    return {key: winner.get(key) for key in _COMPARED_OF_WINNER}


def _compare_confirmations(
    report: ReplayReport,
    record: Mapping[str, Any],
) -> ConfirmationComparison | None:
    """The confirmation's configurations: params, means, and the weights of every replica."""
    recorded = _outline_confirmation(report["again"].get("finalization"))
    again = _outline_confirmation(record.get("finalization"))
    if recorded is None and again is None:
        return None
    differs = []
    if recorded and again and recorded != again:
        differs = [each.input for each in changed({"all": recorded}, {"all": again})]
    return ConfirmationComparison(recorded, again, differs)


def _outline_confirmation(finalization: Mapping[str, Any] | None) -> list[JsonObject] | None:
    """What of a confirmation must come out the same; None without one."""
    if not finalization:
        return None
    outline = []
    for configuration in finalization["configurations"]:
        compared = {key: configuration.get(key) for key in _COMPARED_OF_CONFIGURATION}
        replicas = configuration.get("replicas", [])
        compared["replicas"] = [_outline_replica(replica) for replica in replicas]
        outline.append(compared)
    return outline


def _outline_replica(replica: Mapping[str, Any]) -> JsonObject:
    return {key: replica.get(key) for key in _COMPARED_OF_REPLICA}
