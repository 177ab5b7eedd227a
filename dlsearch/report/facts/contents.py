"""What ``report.json`` holds, as types; ``schema.json`` of the report says the same for others.

A pair or row that is a tuple here is a list in the file. Numbers are rounded to twelve digits
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from dlsearch.report.facts.intervals import Interval, MeanEstimate, PairedEstimate

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject, Params
    from dlsearch.inspection.findings import FirstLayer, InsideFindings
    from dlsearch.report.facts.statistics import ExpectedBest, Span
    from dlsearch.report.study import (
        Breach,
        CheckRow,
        ConfusionMatrix,
        Curve,
        Metrics,
        ReplicaState,
        TrialState,
    )

Side = Literal["lower", "upper"]


class Bar(NamedTuple):
    """One attempt on the timeline, with the number of its trial."""

    slot: str
    start: float
    end: float
    state: TrialState
    number: int


class BandRow(NamedTuple):
    """One epoch of a finalist's learning curves, over the `n` replicas that reached it."""

    epoch: int
    n: int
    least: float
    mean: float
    most: float


class ObjectiveRow(TypedDict):
    """One objective; `percent`: its values read in per cent."""

    name: str
    maximize: bool
    percent: bool


class AttemptRow(TypedDict):
    """One execution of a trial or of a replica. Times are seconds since 1970."""

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


class TrialRow(TypedDict):
    """One trial; `standing` is its first objective, or the last score that it reported."""

    number: int
    state: TrialState
    reason: str | None
    error: str | None
    params: Params
    values: tuple[float, ...]
    standing: float | None
    scored: bool
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
    attempts: list[AttemptRow]
    breaches: tuple[Breach, ...]
    state_sha256: str | None
    seal: str | None


class Won(TypedDict):
    """The configuration that the study names, whether or not a trial ran it."""

    name: str
    label: str
    trial_number: int | None
    default: bool
    params: Params
    search_value: float | None
    value: float | None
    n: int
    sd: float | None
    interval: Interval | None
    student: Interval | None
    confirmed: bool


# -- the trials -----------------------------------------------------------------------------------


class FailureRow(TypedDict):
    """A trial that failed."""

    number: int
    reason: str | None
    error: str | None
    attempts: int
    params: Params


class RetriedRow(TypedDict):
    """A trial that took more than one attempt; `ends` says how each attempt ended."""

    number: int
    state: TrialState
    attempts: int
    ends: list[str]


class DuplicateRow(TypedDict):
    """A trial whose configuration is that of an earlier one."""

    number: int
    of: int


class NoteRow(TypedDict):
    """What a reader should know of a trial's metrics."""

    number: int
    note: str


class Accounting(TypedDict):
    """Where every trial that was asked for is; `attempts` counts those of all trials."""

    asked: int
    counts: dict[TrialState, int]
    not_started: int
    failed_by_reason: dict[str, int]
    failures: list[FailureRow]
    retried: list[RetriedRow]
    duplicates: list[DuplicateRow]
    notes: list[NoteRow]
    attempts: int


class Compute(TypedDict):
    """What the search cost. `gaps` are the pauses in which no slot was busy."""

    device_seconds: float
    by_state: dict[TrialState, float]
    wall_seconds: float | None
    slots: list[str]
    bars: list[Bar]
    busy: list[tuple[float, int]]
    gaps: list[Span]
    utilisation: float | None
    trial_mean: float | None
    trial_median: float | None
    devices: dict[str, int]


class Course(TypedDict):
    """What was reached by number of trials; `independent`: the sampler ignores earlier results."""

    best_so_far: list[tuple[int, float]]
    distribution: list[tuple[float, float]]
    median: float | None
    spread: list[tuple[str, float]]
    quarters: list[tuple[int, float]]
    independent: bool
    expected_best: list[ExpectedBest]


class Importances(TypedDict):
    """The share of each hyperparameter in the variation; `why_not` where there is none."""

    evaluator: str
    seed: int | None
    target_quantile: float | None
    trials: int
    left_out: int
    values: list[tuple[str, float]]
    why_not: str | None


class Edge(TypedDict):
    """A hyperparameter whose winning value lies at an end of its range."""

    name: str
    value: float
    side: Side


class Resolution(TypedDict):
    """How close two scores on `n` validation examples are that these cannot distinguish.

    `near` are the numbers of the trials that are as close to the best one.
    """

    n: int
    width: float
    near: list[int]


# -- the confirmation -----------------------------------------------------------------------------


class GapRow(TypedDict):
    """One metric of training minus validation, the mean over `n` trainings that logged both."""

    metric: str
    n: int
    train: float
    val: float
    gap: float


class NamedGap(TypedDict):
    """The gaps of one configuration; `first` marks the winner."""

    name: str
    first: bool
    gap: list[GapRow]


class ReplicaRow(TypedDict):
    """A training of a finalist on a fresh seed."""

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
    attempts: list[AttemptRow]
    breaches: tuple[Breach, ...]


class Ends(TypedDict):
    """Medians over the seeds of the best epoch and of the number of epochs; `limit` is allowed.

    Where the study counts its progress in another unit, they are in that.
    """

    best: float
    epochs: float
    limit: Any


class FinalistRow(MeanEstimate):
    """A finalist, with the estimate of its mean over fresh seeds; `arm` is its option's name.

    `chance` is the one that it had of winning when racing dropped it; None where it was not
    dropped, or for a failure.
    """

    name: str
    arm: str | None
    trial_number: int | None
    default: bool
    winner: bool
    params: Params
    search_value: float | None
    dropped_after: int | None
    chance: float | None
    failed: int
    all_seeds: bool
    optimism: float | None
    replicas: list[ReplicaRow]
    band: list[BandRow]
    ends: Ends | None
    gap: list[GapRow]


# "with" is a word of Python
_Places = TypedDict("_Places", {"of": int, "with": int})


class Comparison(PairedEstimate, _Places):
    """The winner (`of`) against another finalist (`with`), over replicas that both completed."""

    replicas: list[int]


class Confirmation(TypedDict):
    """The last round; `winner`, `runner_up` and `default` are places in `finalists`."""

    round: int
    rounds: int
    state: str
    top: int | None
    racing: bool
    refit: bool
    seeds: tuple[int, ...]
    finalists: list[FinalistRow]
    winner: int | None
    runner_up: int | None
    default: int | None
    against_default: Comparison | None
    against_runner_up: Comparison | None
    comparisons: list[Comparison]
    probability_method: str
    kept: JsonObject | None
    checkpoint: str | None
    scoring_error: str | None
    device_seconds: float | None


class ArmRow(TypedDict):
    """An arm of a comparison; `finalist` is its place in the confirmation, if it was confirmed.

    `ended` trials of it are over, `completed` of these with a score.
    """

    option: str
    ended: int
    completed: int
    device_seconds: float
    finalist: int | None


class ArmPair(Comparison):
    """Two arms, by their places: `of` has the better mean.

    `p` is of the two-sided paired t test, `holm` the same corrected for the number of pairs.
    """

    p: float | None
    holm: float | None


class ArmsFacts(TypedDict):
    """A comparison: the options of `key`, each after a search of `asked` trials, and all pairs."""

    key: str
    asked: int
    arms: list[ArmRow]
    pairs: list[ArmPair]


class Optimism(TypedDict):
    """The best score of the search against the mean of the winner over fresh seeds.

    `drop` is positive where the search promised more than the winner keeps; `of_best` is the drop
    of the trial that scored best, where it was a finalist; `drops` are those of all finalists.
    """

    best: float
    number: int
    mean: float
    interval: Interval | None
    drop: float
    of_best: float | None
    drops: list[float]


# -- the test set ---------------------------------------------------------------------------------


class OpeningRow(TypedDict):
    """One opening of the test set."""

    ledger_id: Any
    kind: str | None
    round: int | None
    trial_number: int | None
    seed: int | None
    evaluated_at: str | None


class LedgerOpening(OpeningRow):
    """An opening, and whether it gave a score."""

    scored: bool


class ScoredOpening(OpeningRow):
    """An opening that gave scores on `n` examples."""

    n: int | None
    metrics: Metrics


class EnsembleRow(TypedDict):
    """An ensemble of the best trials, with its figures beside those of the single best model."""

    ledger_id: Any
    by: Any
    members: Any
    single: Any
    weights: Any
    chosen: Any
    validation: Any
    test: Any


class TestedReplicaRow(TypedDict):
    """The scores of one replica of the winner."""

    replica: int | None
    seed: int | None
    metrics: Metrics


class MetricOverSeeds(MeanEstimate):
    """The estimate of a test metric over the replicas of the winner."""

    metric: str


# "class" is a word of Python
ClassRow = TypedDict(
    "ClassRow",
    {
        "class": str,
        "support": int,
        "precision": float | None,
        "recall": float | None,
        "f1": float | None,
    },
)


class ConfusedPair(TypedDict):
    """Examples of one class that were taken for another; `share` is of those of the class."""

    label: str
    prediction: str
    count: int
    share: float


class KindFacts(TypedDict):
    """What the kind of evaluation finds in the scores on the test set.

    Empty where it finds none.
    """

    accuracy: float | None
    right: int | None
    wilson: Interval | None
    clopper_pearson: Interval | None
    classes: list[str]
    confusion: ConfusionMatrix
    per_class: list[ClassRow]
    confusions: list[ConfusedPair]


class MainScore(KindFacts):
    """The scored opening that the report quotes; `index` is its place in the rows.

    `delay` are the seconds from the end of the last trial to it, negative where the search went on.
    """

    index: int
    n: int
    metrics: Metrics
    errors: list[JsonObject]
    trial_number: int | None
    seed: int | None
    trial_seed: int | None
    search_value: float | None
    retrained_value: float | None
    objective: str
    delay: float | None
    round: int | None
    refit: Metrics | None
    replicas: list[TestedReplicaRow]
    over_seeds: list[MetricOverSeeds]
    first_layer: FirstLayer | None
    inside: InsideFindings | None


class Opener(TypedDict):
    """Whose an opening was: a study's, or with None a plain run's; `is_own` is this study's."""

    study: str | None
    is_own: bool


class StoreOpenings(TypedDict):
    """All openings of the test set in the study's store, over all studies.

    `by_others` are those of other studies and of plain runs; `text` says so in a sentence.
    `openings` are all of them, in the order of the record.
    """

    digest: str
    openings: list[Opener]
    opened: int
    by_others: int
    text: str


class SealRow(TypedDict):
    """Who held the seal on the test set before the choice, and in how many trainings."""

    held: str
    trainings: int


class TestFacts(TypedDict):
    """The ledger of the test set; `openings` is None where the record does not hold them.

    `in_store` is None where the data have no digest, or the record is of an earlier version.
    `seals` is empty where the record does not say who held the seal.
    """

    rows: list[ScoredOpening]
    openings: list[LedgerOpening] | None
    opened: int
    unscored: int | None
    ensembles: list[EnsembleRow]
    main: MainScore | None
    in_store: StoreOpenings | None
    seals: list[SealRow]


class BreachRow(TypedDict):
    """An access to the test set during the search, by a trial or by a replica of a finalist."""

    trial: int | None
    replica: int | None
    how: str
    what: str


# -- data, commands, sentences --------------------------------------------------------------------


class Balance(TypedDict):
    """How even the classes of a split are; `ratio` is that of the largest to the smallest."""

    shares: list[float]
    smallest: int
    largest: int
    ratio: float | None


class DataFacts(TypedDict):
    """The balance of each split, and how many examples are in more than one split."""

    balance: dict[str, Balance]
    overlap_index: int | None
    overlap_content: int | None


class Commands(TypedDict):
    """The command lines that repeat the study or a part of it, and the code they need."""

    study: str | None
    again: str
    winner: str | None
    verify: str | None
    predict: str | None
    commit: str | None
    dirty: bool


class Claim(TypedDict):
    """The first screen.

    `gain` over the default configuration is positive where the winner is better.
    """

    headline: str
    sentences: list[str]
    gain: float | None


class ChecklistRow(TypedDict):
    """One item of a reproducibility checklist; `section` is the id of the section about it."""

    topic: str
    item: str
    of: str
    answer: str
    text: str
    section: str


class Findings(TypedDict):
    """All that is computed from a record, before anything is said of it."""

    schema: int
    study: JsonObject
    objectives: list[ObjectiveRow]
    trials: list[TrialRow]
    best: int | None
    winner: int | None
    default: int | None
    won: Won | None
    pareto: tuple[int, ...]
    top: list[int]
    leaders: list[int]
    varied: list[str]
    accounting: Accounting
    compute: Compute
    course: Course
    importances: Importances
    edges: list[Edge]
    resolution: Resolution | None
    test: TestFacts
    confirmation: Confirmation | None
    arms: ArmsFacts | None
    optimism: Optimism | None
    breaches: list[BreachRow]
    data: DataFacts | None
    gaps: list[NamedGap]
    kept_sha256: str | None
    reproduce: Commands
    checks: list[CheckRow]


class Report(Findings):
    """The whole of ``report.json``: what was found, what it means, and what a repetition needs."""

    claim: Claim
    limits: list[str]
    checklist: list[ChecklistRow]
    replay: list[JsonObject]
    again: JsonObject


def find_winner(confirmation: Confirmation | None) -> FinalistRow | None:
    """The finalist that was confirmed."""
    if confirmation is None or confirmation["winner"] is None:
        return None
    return confirmation["finalists"][confirmation["winner"]]
