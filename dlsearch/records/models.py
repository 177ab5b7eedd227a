"""The record of a study as values with fields. Each is written as JSON in the order of its fields.

``docs/record.md`` says what the keys mean. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dlsearch.core.json_model import LEFT_OUT_IF_NONE, MERGED, JsonModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.core.types import ConfigTree, JsonObject, Params
    from dlsearch.study.seen import SeenJson, VerdictJson
    from dlsearch.study.states import (
        AttemptState,
        RecordedTrialState,
        StudyState,
    )


@dataclass(frozen=True, order=True)
class SlotRecord(JsonModel):
    """A slot that an attempt ran in.

    Args:
        worker: Whose slot it is.
        slot: Its number there.
        device: The core or the GPU.
        host: The machine.
    """

    worker: str
    slot: int
    device: str
    host: str


@dataclass(frozen=True)
class StudyFacts(JsonModel):
    """What was asked of a study, and what it has cost.

    Args:
        name: Its name in this storage.
        uuid: Which no other study has.
        directions: ``maximize`` or ``minimize`` for each objective.
        objectives: The metrics that decide.
        created: When it was opened.
        state: How far it is, in a word.
        seed: What all others are derived from.
        n_trials: The budget of trials.
        timeout: The budget of time, as it was composed.
        seconds: The time that was spent.
        slots: Where its trials ran.
        sampler: The sampler's config.
        pruner: The pruner's config.
        config: The composed config.
        overrides: As they were typed.
        command: The words of the command.
        space: A row for each dimension.
        sha: Digests of config, space, sampler, data, environment and code.
        provenance: With what and from which code it runs.
        data: Sizes, classes, digests and overlaps of the splits.
        model: What was seen of the net when it was built once.
        options: The options of each config group that is searched.
        sessions: Each resumption, with what had drifted.
    """

    name: str
    uuid: str
    directions: list[str]
    objectives: list[str]
    created: str | None
    state: StudyState
    seed: int
    n_trials: int
    timeout: float | str | None
    seconds: float
    slots: list[SlotRecord]
    sampler: ConfigTree
    pruner: ConfigTree | None
    config: ConfigTree
    overrides: list[str]
    command: str | list[str] | None
    space: list[JsonObject]
    sha: dict[str, str]
    provenance: JsonObject
    data: JsonObject
    model: JsonObject
    options: ConfigTree
    sessions: list[JsonObject]


@dataclass(frozen=True)
class AttemptRecord(JsonModel):
    """One execution of a trial, or of a part of the confirmation.

    Args:
        attempt: Which one, from 1.
        state: How it ended, or that it runs.
        reason: Why it ended without a value.
        error: The same in a line.
        worker: Who ran it.
        slot: In which slot.
        device: On which device.
        host: On which machine.
        started: When.
        ended: When; None while it runs.
        seconds: How long it took.
        progress: How far it was when its worker was heard last.
        micro_batches: Parts in which each batch was trained.
        resumption: The checkpoint that it went on from, and those that were passed over.
    """

    attempt: int
    state: AttemptState
    reason: str | None
    error: str | None
    worker: str
    slot: int
    device: str
    host: str
    started: str | None
    ended: str | None
    seconds: float
    progress: JsonObject | None
    micro_batches: int
    resumption: JsonObject | None


@dataclass(frozen=True)
class TrainingRecord(JsonModel):
    """What a trial's training said at its end.

    Each field has the name that the result has for it: a field that is added here is read from
    there, and is a column of the trial.

    Args:
        epochs: How long it was trained, in the unit of its progress, resumptions included.
        best_epoch: Which of these is the trial's result, from 0.
        n_params: Trainable parameters.
        peak_memory_mib: What torch's allocator held on the GPU at the peak.
        summary: The final and the best metrics.
        state_sha256: Digest of the weights.
        metrics_sha256: Digest of all metrics that were validated.
        split_sha256: Digests of the splits that it was trained on.
        inputs: What the training depended on, as its process met it.
        resumed_epoch: The first one of the last attempt, where it went on from a checkpoint.
        nondeterministic: Operations that have no deterministic implementation.
        breaches: What reached for the sealed test set.
        micro_batches: Parts in which each batch was trained.
        cause: Why it failed: ``type``, ``message`` and ``place``, the file and line.
        not_finite: Final and best metrics that are no finite numbers, in words: ``nan inf -inf``.
        notes: What a reader should know of its metrics.
        seal: Who held the seal on the test set: ``by``, and ``landlock`` or ``why``.
    """

    epochs: int | None = None
    best_epoch: int | None = None
    n_params: float | None = None
    peak_memory_mib: float | None = None
    summary: JsonObject = field(default_factory=dict)
    state_sha256: str | None = None
    metrics_sha256: str | None = None
    split_sha256: dict[str, str] | None = None
    inputs: JsonObject | None = None
    resumed_epoch: int | None = None
    nondeterministic: list[str] = field(default_factory=list)
    breaches: list[JsonObject] = field(default_factory=list)
    micro_batches: int = 1
    cause: JsonObject | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    not_finite: dict[str, str] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    notes: list[str] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    seal: JsonObject | None = field(default=None, metadata=LEFT_OUT_IF_NONE)

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> TrainingRecord:
        """What a result says; what it leaves out, or says null of, is as declared here.

        Args:
            result: As the storage has it; empty where there is none yet.
        """
        said = {}
        for each in fields(cls):
            if result.get(each.name) is not None:
                said[each.name] = result[each.name]
        return cls(**said)


@dataclass(frozen=True)
class TrialRecord(JsonModel):
    """A trial, with all its attempts.

    Args:
        number: From 0.
        state: Whether it waits, runs, or how it ended.
        reason: Why it failed.
        error: The same in a line.
        params: Searched values.
        value: The first objective; None unless complete.
        values: All objectives.
        intermediate: The values that it reported, each with where in the training that was.
        started: When its first attempt began.
        ended: When its last one ended; None where the trial has not.
        seconds: Of all attempts.
        seed: Of its training.
        duplicate_of: The trial with the same parameters, whose result it took over.
        default: Whether it has the default configuration.
        enqueued: Whether it was given by the user.
        training: What its training said at its end.
        infeasible: True where it violates a constraint.
        seen: What its proposal saw of the other trials; None where that is not known.
        verdict: The pruner's last verdict, with what it saw; None where there was none.
        attempts: Its executions, oldest first.
    """

    number: int
    state: RecordedTrialState
    reason: str | None
    error: str | None
    params: Params
    value: float | None
    values: list[float] | None
    intermediate: list[list[float]]
    started: str | None
    ended: str | None
    seconds: float | None
    seed: int
    duplicate_of: int | None
    default: bool
    enqueued: bool
    training: TrainingRecord = field(metadata=MERGED)
    infeasible: bool | None = field(metadata=LEFT_OUT_IF_NONE)
    seen: SeenJson | None = field(metadata=LEFT_OUT_IF_NONE)
    verdict: VerdictJson | None = field(metadata=LEFT_OUT_IF_NONE)
    attempts: list[AttemptRecord]


@dataclass(frozen=True)
class WinnerRecord(JsonModel):
    """Who won.

    Args:
        number: The trial; None where it is the default configuration, which no trial ran.
        params: Its searched values.
        value: The mean over its replicas where it is confirmed, else its value in the search.
        values: The same for each objective.
        search_value: Its value in the search.
        confirmed: Whether finalists were trained again.
        default: Whether it is the default configuration.
    """

    number: int | None
    params: Params
    value: float | None
    values: list[float | None]
    search_value: float | None
    confirmed: bool
    default: bool


@dataclass(frozen=True)
class ReplicaRecord(JsonModel):
    """One training of a finalist on one seed, or the winner's on train + validation.

    Args:
        replica: Which one; None for the training on train + validation.
        seed: Its seed.
        state: How it ended, or whether it runs or waits.
        reason: Why it has no value.
        error: The same in a line.
        value: The objective.
        values: All objectives.
        seconds: Of all its attempts.
        intermediate: The validated values, each with where in the training that was.
        summary: The final and the best metrics.
        epochs: How long it was trained, in the unit of its progress.
        best_epoch: Which of these is its result, from 0.
        state_sha256: Digest of the weights.
        metrics_sha256: Digest of all metrics that were validated.
        split_sha256: Digests of the splits that it was trained on.
        threads: CPU threads that it had.
        attempts: Its executions, oldest first.
        seal: Who held the seal on the test set.
        breaches: What reached for the sealed test set.
    """

    replica: int | None = field(metadata=LEFT_OUT_IF_NONE)
    seed: int
    state: AttemptState | RecordedTrialState
    reason: str | None
    error: str | None
    value: float | None
    values: list[float] | None
    seconds: float
    intermediate: list[list[float]]
    summary: JsonObject
    epochs: int | None
    best_epoch: int | None
    state_sha256: str | None
    metrics_sha256: str | None
    split_sha256: dict[str, str] | None
    threads: int | None
    attempts: list[AttemptRecord]
    seal: JsonObject | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    breaches: list[JsonObject] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True)
class ConfigurationRecord(JsonModel):
    """A finalist of a round of confirmation.

    Args:
        trial_number: The trial that found it; None for the default configuration that none ran.
        default: Whether it is the default configuration.
        params: Its searched values.
        search_value: Its value in the search.
        mean: Over the replicas that have a value.
        dropped_after: After how many seeds racing dropped it.
        winner: Whether it won.
        replicas: Its trainings that have begun.
    """

    trial_number: int | None
    default: bool
    params: Params
    search_value: float | None
    mean: float | None
    dropped_after: int | None
    winner: bool
    replicas: list[ReplicaRecord]


@dataclass(frozen=True)
class KeptRecord(JsonModel):
    """Which replica of the winner is kept.

    Args:
        trial_number: The winner's trial; None for the default configuration that none ran.
        replica: The one with the best value.
    """

    trial_number: int | None
    replica: int


@dataclass(frozen=True)
class ConfirmationRecord(JsonModel):
    """The newest round of confirmation.

    Args:
        round: Its number, from 1.
        rounds: How many there were.
        top: How many trials are finalists.
        seeds: Fresh ones, which every finalist is trained on.
        racing: Whether finalists are dropped that cannot win.
        refit: Whether the winner is trained on train + validation as well.
        state: ``complete`` once the winner has been scored on the test set.
        configurations: The finalists.
        kept: Which replica is kept; None while there is no winner.
        checkpoint: Of the model that is kept, relative to the store.
        scoring_error: Why the winner has no test score.
        refit_run: The training on train + validation, where it has begun.
        rule: The rule of racing; None for the first one.
    """

    round: int
    rounds: int
    top: int
    seeds: list[int]
    racing: bool
    refit: bool
    state: StudyState
    configurations: list[ConfigurationRecord]
    kept: KeptRecord | None
    checkpoint: str | None
    scoring_error: str | None
    refit_run: ReplicaRecord | None = field(metadata=LEFT_OUT_IF_NONE)
    rule: int | None = field(metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True)
class OpeningFacts(JsonModel):
    """A row of the test ledger, without what was seen.

    Args:
        ledger_id: Of the row.
        kind: Why the test set was opened: a word of :class:`~dlsearch.study.states.OpeningKind`.
        trial_number: For which trial; None for the default configuration, or for several.
        seed: Of the training whose model was scored.
        evaluated_at: When.
    """

    ledger_id: int
    kind: str
    trial_number: int | None
    seed: int
    evaluated_at: str | None


@dataclass(frozen=True)
class OpeningRecord(JsonModel):
    """An opening of the test set, scored or not.

    Args:
        opening: The row of the ledger.
        round: Of the confirmation; None where it was none's, or is not known.
        scored: Whether what was seen is known.
        test_digest: Of the test split that was opened; None where it is not known.
    """

    opening: OpeningFacts = field(metadata=MERGED)
    round: int | None
    scored: bool
    test_digest: str | None = field(metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True)
class TestSetOpening(JsonModel):
    """An opening of a test set, by whichever study of the storage.

    Args:
        ledger_id: Of the row.
        study: The study's name; None for a plain run.
        is_own: Whether it is an opening by the study of the record: another one may have had its
            name.
        kind: Why: a word of :class:`~dlsearch.study.states.OpeningKind`.
        evaluated_at: When.
    """

    __test__ = False  # pytest: this is a record
    ledger_id: int
    study: str | None
    is_own: bool
    kind: str
    evaluated_at: str | None


@dataclass(frozen=True)
class TestSetRecord(JsonModel):
    """A test split, and all its openings in the storage.

    Args:
        digest: Of the split.
        openings: By all studies and plain runs, also those that are gone; oldest first.
    """

    __test__ = False  # pytest: this is a record
    digest: str
    openings: list[TestSetOpening]


@dataclass(frozen=True)
class ScoredOpening(JsonModel):
    """An opening of the test set that was scored.

    Args:
        opening: The row of the ledger.
        seen: What the test set showed: its keys depend on the kind of task.
    """

    opening: OpeningFacts = field(metadata=MERGED)
    seen: JsonObject = field(metadata=MERGED)


@dataclass(frozen=True)
class StudyRecord(JsonModel):
    """Everything about a study.

    Args:
        schema: The version of the record's form.
        study: What was asked, and what it cost.
        trials: All trials, by their number.
        winner: Who won; None with several objectives, or without a score.
        finalization: The newest round of confirmation; None before the first.
        test: The openings of the test set that were scored, oldest first.
        openings: All openings.
        test_set: The test split with its openings by all studies of the storage; None where it has
            no digest.
        pareto: The trials of the front, with several objectives.
    """

    schema: int
    study: StudyFacts
    trials: list[TrialRecord]
    winner: WinnerRecord | None
    finalization: ConfirmationRecord | None
    test: list[ScoredOpening]
    openings: list[OpeningRecord]
    test_set: TestSetRecord | None = field(metadata=LEFT_OUT_IF_NONE)
    pareto: list[int] | None = field(metadata=LEFT_OUT_IF_NONE)
