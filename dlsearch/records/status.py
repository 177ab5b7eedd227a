"""How a study goes: what ``status``, ``studies`` and the monitor of a search show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlsearch.config.progress import ProgressUnit
from dlsearch.confirmation import racing
from dlsearch.confirmation.rounds import Round, Rounds
from dlsearch.core.json_model import LEFT_OUT_IF_NONE, MERGED, NOT_WRITTEN, JsonModel
from dlsearch.records.attempts import iso_time, progress_of
from dlsearch.records.confirmation import find_winner
from dlsearch.records.failures import FailureGroup, StopRecord, find_stop, group_failures
from dlsearch.records.record import STATES, scored_opening, state_of
from dlsearch.records.silence import silent_attempts
from dlsearch.study.states import (
    AttemptKind,
    AttemptState,
    OpeningKind,
    RecordedTrialState,
    StudyState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from dlsearch.core.types import JsonObject, Params
    from dlsearch.records.models import WinnerRecord
    from dlsearch.storage.database import Attempt
    from dlsearch.study.study import Study

#: The states of trials that have ended.
ENDED_STATES = (
    RecordedTrialState.COMPLETE,
    RecordedTrialState.PRUNED,
    RecordedTrialState.FAILED,
)


@dataclass(frozen=True)
class FailureRecord(JsonModel):
    """The first attempt that failed.

    Args:
        trial: Of which trial.
        reason: Why.
        error: The same in a line.
    """

    trial: int
    reason: str | None
    error: str | None


@dataclass(frozen=True)
class BestRecord(JsonModel):
    """The best trial so far.

    Args:
        number: The trial.
        value: Its objective.
        params: Its searched values.
        run_id: Its run in MLflow; None where nobody has looked, or this store does not have it.
    """

    number: int
    value: float
    params: Params
    run_id: str | None = None


@dataclass(frozen=True)
class ReplicaSubject(JsonModel):
    """Which part of the confirmation an attempt is at.

    Args:
        default: Whether it trains the default configuration.
        replica: Which replica; None for the training on train + validation, and for the scoring.
    """

    default: bool
    replica: int | None


@dataclass(frozen=True)
class RunningRecord(JsonModel):
    """A live attempt.

    Args:
        number: The trial; None for the default configuration that no trial ran.
        part: Of the confirmation; None where it is at a trial of the search.
        kind: What is being done.
        attempt: Which try it is, from 1.
        worker: Who is at work.
        slot: In which slot.
        device: On which device.
        started: When.
        silent: Why nobody may be at work on it; None where somebody is.
        progress: What its process said last: ``epoch``, ``max_epochs`` and ``value``, and more.
    """

    number: int | None
    part: ReplicaSubject | None = field(metadata=MERGED)
    kind: AttemptKind
    attempt: int
    worker: str
    slot: int
    device: str
    started: str | None
    silent: str | None
    progress: JsonObject | None = field(metadata=MERGED)

    @property
    def position(self) -> int:
        """How many epochs, or other units of progress, are over."""
        return int((self.progress or {}).get("epoch") or 0)

    @property
    def length(self) -> int | None:
        """How many there are at most; None before its first word."""
        length: int | None = (self.progress or {}).get("max_epochs")
        return length

    @property
    def value(self) -> float | None:
        """The objective, as validated last; None before that."""
        value: float | None = (self.progress or {}).get("value")
        return value


@dataclass(frozen=True)
class ConfigurationProgress(JsonModel):
    """How far a finalist is.

    Args:
        trial_number: The trial that found it; None for the default configuration that none ran.
        default: Whether it is the default configuration.
        done: How many of its replicas have a value.
        failed: How many have none.
        mean: Over those that have one.
        dropped_after: After how many seeds racing dropped it.
        winner: Whether it won.
    """

    trial_number: int | None
    default: bool
    done: int
    failed: int
    mean: float | None
    dropped_after: int | None
    winner: bool


@dataclass(frozen=True)
class EndedReplica(JsonModel):
    """A training of a finalist that has ended.

    Args:
        trial_number: The finalist's trial; None for the default configuration that none ran.
        replica: Which one.
        state: How it ended.
        value: The objective; None where it failed.
    """

    trial_number: int | None
    replica: int
    state: AttemptState
    value: float | None


@dataclass(frozen=True)
class ConfirmationProgress(JsonModel):
    """How far a round of confirmation is.

    Args:
        round: Its number, from 1.
        state: ``running``, ``complete`` or, where the winner has no test score, ``partial``.
        done: How many trainings have ended.
        planned: How many there will be, as far as racing has decided.
        seeds: On how many seeds each finalist is trained.
        scoring_error: Why the winner has no test score.
        configurations: The finalists.
        replicas: The trainings that have ended, seed by seed.
    """

    round: int
    state: StudyState
    done: int
    planned: int
    seeds: int
    scoring_error: str | None
    configurations: list[ConfigurationProgress]
    replicas: list[EndedReplica]


@dataclass(frozen=True)
class ScoreRecord(JsonModel):
    """What the test set showed of one model.

    Args:
        trial_number: The model's trial; None for the default configuration that none ran.
        metrics: The scores.
    """

    trial_number: int | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Status(JsonModel):
    """How a study goes: the document of ``status --json``.

    Args:
        name: The study.
        state: How far it is, in a word.
        failure: The first failure, where the study is over and no trial completed.
        failures: The trials that failed, grouped by their cause.
        stopped: That the first trials all failed alike, and no other is begun; else None.
        direction: ``maximize`` or ``minimize``; all of them where there are several objectives.
        objective: The metric that decides; all of them where there are several.
        n_trials: The budget of trials.
        counts: How many trials are in each state.
        best: The best trial; None with several objectives, or without a score.
        started: When the study was opened.
        seconds: The time that was spent.
        running: The live attempts.
        confirmation: The newest round of confirmation; None before the first.
        winner: Who won, so far.
        openings: How often this study opened the test set.
        openings_of_test_set: How often all studies and plain runs of this storage opened it, also
            those that are gone; None where its split has no digest.
        test: What it showed, each time that it was opened for one model.
        progress_unit: What the task counts in when it says how far a training is.
    """

    name: str
    state: StudyState
    failure: FailureRecord | None
    failures: list[FailureGroup]
    stopped: StopRecord | None
    direction: str | list[str]
    objective: str | list[str]
    n_trials: int
    counts: dict[RecordedTrialState, int]
    best: BestRecord | None
    started: str | None
    seconds: float
    running: list[RunningRecord]
    confirmation: ConfirmationProgress | None
    winner: WinnerRecord | None
    openings: int
    openings_of_test_set: int | None = field(metadata=LEFT_OUT_IF_NONE)
    test: list[ScoreRecord]
    progress_unit: ProgressUnit = field(default=ProgressUnit.EPOCH, metadata=NOT_WRITTEN)

    @property
    def first_objective(self) -> str:
        """The metric that trials are pruned by."""
        return self.objective if isinstance(self.objective, str) else self.objective[0]

    def count_ended(self) -> int:
        """How many trials have ended."""
        return sum(self.counts[state] for state in ENDED_STATES)


def read_status(study: Study, store: Path | None = None) -> Status:
    """How a study goes.

    Args:
        study: The open study.
        store: This machine's, where a worker may have kept how attempts ended.
    """
    row = study.row()
    counts = _count_states(study)
    best = study.best()
    ledger = study.ledger.rows()
    of_test_set = study.ledger.rows_of_test_set()
    live = study.leases.live()
    now = Rounds(study).last()
    silent = silent_attempts(study, live, store)
    is_failing = counts[RecordedTrialState.FAILED] > 0
    stopped = find_stop(study) if is_failing else None
    state = state_of(
        running=len(silent) < len(live),
        finished=row.finished or stopped is not None,
        completed=counts[RecordedTrialState.COMPLETE] > 0,
    )
    return Status(
        name=study.name,
        state=state,
        failure=find_first_failure(study) if state is StudyState.FAILED else None,
        failures=group_failures(study) if is_failing else [],
        stopped=stopped,
        direction=_one_or_all(study.directions),
        objective=_one_or_all(study.document["objectives"]),
        n_trials=row.n_trials,
        counts=counts,
        best=None if best is None else _best_record(study, best),
        started=iso_time(row.created),
        seconds=round(row.seconds, 3),
        running=[_running_record(each, now, silent.get(each.token)) for each in live],
        confirmation=None if now is None else _confirmation_progress(now),
        winner=find_winner(study, now),
        openings=len(ledger),
        openings_of_test_set=None if of_test_set is None else len(of_test_set),
        test=_score_records(ledger),
        progress_unit=progress_unit_of(study.document.get("model")),
    )


def progress_unit_of(model: Mapping[str, Any] | None) -> ProgressUnit:
    """What a study's task counts in when it says how far a training is.

    Args:
        model: What was seen of the net when it was built once. Earlier versions did not look, and
            counted epochs.
    """
    named = (model or {}).get("progress_unit")
    if named in tuple(ProgressUnit):
        return ProgressUnit(named)
    return ProgressUnit.EPOCH


def find_first_failure(study: Study) -> FailureRecord | None:
    """The first attempt that failed or, where none has, that was lost; else None."""
    attempts = study.leases.rows(kind=AttemptKind.TRIAL)
    for state in (AttemptState.FAILED, AttemptState.LOST):
        for attempt in attempts:
            if attempt.state == state:
                return FailureRecord(attempt.number, attempt.reason, attempt.error)
    return None


def _count_states(study: Study) -> dict[RecordedTrialState, int]:
    counts = dict.fromkeys(RecordedTrialState, 0)
    for state, count in study.counts().items():
        counts[STATES[state]] = count
    return counts


def _one_or_all(words: list[str]) -> str | list[str]:
    return words[0] if len(words) == 1 else words


def _best_record(study: Study, best: FrozenTrial) -> BestRecord:
    return BestRecord(best.number, best.values[0], study.params_of(best))


def _running_record(attempt: Attempt, now: Round | None, silent: str | None) -> RunningRecord:
    """A live attempt; `silent` says why nobody may be at work on it."""
    number: int | None = attempt.number
    part = None
    if attempt.kind != AttemptKind.TRIAL and now is not None:
        about = now.of(attempt)
        number = about["number"]
        part = ReplicaSubject(about["default"], about["replica"])
    return RunningRecord(
        number=number,
        part=part,
        kind=AttemptKind(attempt.kind),
        attempt=attempt.attempt,
        worker=attempt.worker,
        slot=attempt.slot,
        device=attempt.device,
        started=iso_time(attempt.started),
        silent=silent,
        progress=progress_of(attempt),
    )


def _confirmation_progress(now: Round) -> ConfirmationProgress:
    return ConfirmationProgress(
        round=now.number,
        state=_state_of_round(now),
        done=len(now.ends),
        planned=_count_planned(now),
        seeds=len(now.seeds),
        scoring_error=now.scoring_error,
        configurations=[_configuration_progress(now, index) for index in range(len(now.field))],
        replicas=_ended_replicas(now),
    )


def _state_of_round(now: Round) -> StudyState:
    if not now.finished:
        return StudyState.RUNNING
    return StudyState.COMPLETE if now.document["scored"] else StudyState.PARTIAL


def _count_planned(now: Round) -> int:
    """How many trainings there will be: of a finalist that was dropped those that it had."""
    planned = 0
    for index in range(len(now.field)):
        if index in now.race.dropped:
            planned += len(now.values(index))
        else:
            planned += len(now.seeds)
    return planned


def _configuration_progress(now: Round, index: int) -> ConfigurationProgress:
    finalist = now.field[index]
    values = now.values(index)
    failed = sum(value is None for value in values.values())
    return ConfigurationProgress(
        trial_number=finalist.trial_number,
        default=finalist.default,
        done=len(values) - failed,
        failed=failed,
        mean=racing.mean(values),
        dropped_after=now.race.dropped.get(index),
        winner=now.race.decided and now.race.winner == index,
    )


def _ended_replicas(now: Round) -> list[EndedReplica]:
    """The trainings of this round that have ended, by seed and then by finalist."""
    records = []
    trained_here = set(now.ends) - now.carried
    for index, replica in sorted(trained_here, key=lambda key: (key[1], key[0])):
        records.append(
            EndedReplica(
                trial_number=now.field[index].trial_number,
                replica=replica,
                state=now.ends[racing.Part(index, replica)],
                value=now.values(index)[replica],
            )
        )
    return records


def _score_records(ledger: Sequence[Mapping[str, Any]]) -> list[ScoreRecord]:
    """What the test set showed, each time that it was opened for one model."""
    records = []
    for row in ledger:
        if not row["document"] or row["kind"] == OpeningKind.ENSEMBLE:
            continue
        seen = scored_opening(row).to_json()
        records.append(ScoreRecord(seen["trial_number"], seen["metrics"]))
    return records
