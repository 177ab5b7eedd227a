"""The typed view of a study record, which facts and statistics of a report are computed from.

:func:`dlsearch.report.load.view` makes it. A field is None where the record does not hold it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

from dlsearch.confirmation.racing import FIRST_RULE

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject, Params
    from dlsearch.inspection.findings import FirstLayer, InsideFindings


class TrialState(StrEnum):
    """The state of a trial, in the order in which the report names them."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    RUNNING = "running"
    WAITING = "waiting"


class ReplicaState(StrEnum):
    """The state of a replica of the confirmation."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    LOST = "lost"
    RUNNING = "running"
    WAITING = "waiting"


class DimensionKind(StrEnum):
    """What the values of a hyperparameter are."""

    FLOAT = "float"
    INT = "int"
    CATEGORICAL = "categorical"


#: The states of a trial, in the order in which the report names them.
STATES = tuple(TrialState)

#: Values of metrics, by name.
Metrics = dict[str, float]

#: Examples by their class and by the class that they were taken for.
ConfusionMatrix = list[list[int]]

#: A score that was reported while the training ran: its epoch and its value.
Score = tuple[int, float]

#: The scores of a training in the order of the epochs.
Curve = tuple[Score, ...]

#: An access to the test set that was refused during the search: how it came, and what it was.
Breach = tuple[str, str]


class CheckRow(TypedDict):
    """One check of the record against itself; `found` says what is wrong where it is not `ok`."""

    check: str
    ok: bool
    found: str


@dataclass(frozen=True)
class Attempt:
    """One execution of a trial on one slot. Times are seconds since 1970."""

    attempt: int
    state: str
    reason: str | None
    slot: str
    device: str | None
    host: str | None
    started: float | None
    ended: float | None
    seconds: float | None
    run_id: str | None


@dataclass(frozen=True)
class Trial:
    """One trial.

    ``values`` is empty unless it is complete with a finite value for each objective.
    """

    number: int
    state: TrialState
    reason: str | None
    error: str | None
    params: Params
    values: tuple[float, ...]
    intermediate: Curve
    started: float | None
    seconds: float | None
    seed: int | None
    duplicate_of: int | None
    default: bool
    enqueued: bool
    epochs: int | None
    best_epoch: int | None
    n_params: int | None
    summary: Metrics
    attempts: tuple[Attempt, ...]
    breaches: tuple[Breach, ...] = ()
    seal: str | None = None
    state_sha256: str | None = None
    feasible: bool = True
    notes: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether the trial is a result of the search; one that violates a constraint is not."""
        is_complete = self.state == TrialState.COMPLETE
        return is_complete and self.feasible and bool(self.values)

    @property
    def standing(self) -> float | None:
        """The (first) objective, or the last score that the trial reported before it stopped."""
        if self.values:
            return self.values[0]
        if self.intermediate:
            return self.intermediate[-1][1]
        return None


@dataclass(frozen=True)
class Objective:
    """One objective of the study; ``percent``: its values are shares, best read in per cent."""

    name: str
    maximize: bool
    percent: bool

    @property
    def sign(self) -> int:
        """What a value is multiplied with so that more is better."""
        return 1 if self.maximize else -1


@dataclass(frozen=True)
class Replica:
    """A training of a finalist on a fresh seed; ``value`` is None unless it is complete."""

    replica: int
    seed: int | None
    state: ReplicaState
    reason: str | None
    value: float | None
    epochs: int | None
    best_epoch: int | None
    seconds: float | None
    intermediate: Curve
    summary: Metrics
    state_sha256: str | None
    attempts: tuple[Attempt, ...]
    breaches: tuple[Breach, ...]
    threads: int | None = None
    seal: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the training ended without a score and was not stopped by a pruner."""
        return self.state in (ReplicaState.FAILED, ReplicaState.LOST)


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained again.

    ``trial_number`` is None where no trial of the search ran the configuration.
    """

    trial_number: int | None
    default: bool
    params: Params
    search_value: float | None
    dropped_after: int | None
    winner: bool
    replicas: tuple[Replica, ...]

    @property
    def completed(self) -> list[Replica]:
        """The replicas that have a score, in the order of the seeds."""
        return [replica for replica in self.replicas if replica.value is not None]

    @property
    def values(self) -> list[float]:
        """The scores of the completed replicas, in the order of the seeds."""
        return [replica.value for replica in self.replicas if replica.value is not None]

    @property
    def failures(self) -> int:
        """How many replicas failed."""
        return sum(replica.failed for replica in self.replicas)


@dataclass(frozen=True)
class Finalization:
    """The last round of confirmation. ``kept`` names the replica whose model the study keeps."""

    round: int
    rounds: int
    top: int | None
    seeds: tuple[int, ...]
    racing: bool
    refit: bool
    state: str
    configurations: tuple[Finalist, ...]
    kept: JsonObject | None
    checkpoint: str | None
    scoring_error: str | None = None
    rule: int = FIRST_RULE

    @property
    def winner(self) -> Finalist | None:
        """The configuration that was confirmed."""
        for finalist in self.configurations:
            if finalist.winner:
                return finalist
        return None

    @property
    def kept_replica(self) -> int | None:
        """The number of the winner's replica whose model the study keeps."""
        return (self.kept or {}).get("replica")


@dataclass(frozen=True)
class TestedReplica:
    """The scores of one replica of the winner on the test set."""

    replica: int | None
    seed: int | None
    metrics: Metrics


@dataclass(frozen=True)
class LedgerRow:
    """One opening of the test set, with what was scored; ``scored`` is known of openings alone."""

    ledger_id: Any
    kind: str | None
    round: int | None
    trial_number: int | None
    seed: int | None
    evaluated_at: str | None
    n: int | None
    scored: bool
    metrics: Metrics
    confusion: ConfusionMatrix
    classes: list[Any]
    errors: list[JsonObject]
    value: float | None
    refit_metrics: Metrics | None
    replicas: tuple[TestedReplica, ...]
    ensemble: JsonObject | None
    first_layer: FirstLayer | None
    inside: InsideFindings | None


@dataclass(frozen=True)
class TestSetOpening:
    """An opening of the study's test set by whichever study of its store.

    ``study`` is None for a plain run; ``is_own`` tells the study from others of its name.
    """

    study: str | None
    is_own: bool


@dataclass(frozen=True)
class TestSet:
    """The study's test split, with all openings of it in the store."""

    digest: str
    openings: tuple[TestSetOpening, ...]


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter of the search space. ``added``: the base configuration lacks its key."""

    name: str
    kind: DimensionKind
    low: float | None
    high: float | None
    log: bool
    step: float | None
    choices: tuple[Any, ...] | None
    added: bool


@dataclass(frozen=True)
class DataDescription:
    """What the study document says of the data; the mappings are by split."""

    known: bool
    sizes: dict[str, int]
    digests: dict[str, str]
    class_counts: dict[str, list[int]]
    classes: list[Any]
    shape: list[int] | None
    overlap_index: int | None
    overlap_content: int | None


@dataclass(frozen=True)
class ModelDescription:
    """The net of the base configuration. ``macs`` are multiply-adds for one example."""

    n_params: int | None
    macs: int | None
    layers: list[JsonObject]


@dataclass(frozen=True)
class Provenance:
    """Code, packages and machine of the study. ``lock`` is the digest of the lock file."""

    commit: str | None
    dirty: bool
    packages: dict[str, str]
    lock: str | None
    threads: int | None
    cpu: str | None
    platform: str | None
    gpus: list[Any]
    nondeterministic: list[str]


@dataclass(frozen=True)
class StudyDocument:
    """What the report reads of the study document.

    ``config`` and ``sampler`` are JSON of whatever shape their classes have.
    """

    name: str
    state: str | None
    seconds: float | None
    command: str | None
    overrides: tuple[str, ...]
    slots: tuple[str, ...]
    space: tuple[Dimension, ...]
    sampler: JsonObject
    config: JsonObject
    data: DataDescription
    model: ModelDescription
    provenance: Provenance

    def config_section(self, name: str) -> JsonObject:
        """One section of the configuration; empty where there is none."""
        return self.config.get(name) or {}


@dataclass(frozen=True)
class View:
    """The typed view of a record.

    ``best`` is the best trial of the search. ``winner`` is the configuration that the study names:
    the confirmed one where there was a confirmation, else the best trial; it is None where that
    configuration was no trial.

    ``study`` and ``test`` are the study document and the scored rows of the test ledger as the
    record holds them; ``document`` and ``ledger`` are the same, read.
    """

    study: JsonObject
    document: StudyDocument
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    asked: int
    best: Trial | None
    winner: Trial | None
    pareto: tuple[int, ...]
    default: Trial | None
    finalization: Finalization | None
    test: tuple[JsonObject, ...]
    ledger: tuple[LedgerRow, ...]
    openings: tuple[LedgerRow, ...] | None
    checks: tuple[CheckRow, ...]
    test_set: TestSet | None = None
    replay: tuple[JsonObject, ...] = ()
    again: JsonObject = field(default_factory=dict)

    @property
    def objective(self) -> Objective:
        """The first objective, and the only one of most studies."""
        return self.objectives[0]

    @property
    def scored(self) -> list[Trial]:
        """The completed and feasible trials with a finite value, by number."""
        return [trial for trial in self.trials if trial.scored]

    @property
    def multi(self) -> bool:
        """Whether the study has more than one objective."""
        return len(self.objectives) > 1

    def find_trial(self, number: int | None) -> Trial | None:
        """The trial of this number."""
        for trial in self.trials:
            if trial.number == number:
                return trial
        return None
