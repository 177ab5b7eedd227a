"""What a comparison holds: the content of ``compare.json``, typed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.config.progress import ProgressUnit

#: Both ends of an interval.
Ends: TypeAlias = Sequence[float]
#: The splits of a data set that are compared.
SPLITS = ("train", "val", "test")


class DataVerdict(StrEnum):
    """What the studies' data have in common.

    Attributes:
        SAME: All splits.
        TRAINING: What scores were computed on; training examples differ.
        SPLIT: One of validation and test set.
        DIFFERENT: Neither of these.
        UNKNOWN: A study does not record it.
    """

    SAME = "same"
    TRAINING = "training"
    SPLIT = "split"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class BudgetCurve(StrEnum):
    """How budgets are compared: by the expected best of n trials, or by the best of the first n."""

    EXPECTED = "expected"
    BEST = "best"


class ObjectiveFacts(TypedDict):
    """The objective that the studies share."""

    name: str
    maximize: bool
    percent: bool


class DataComparison(TypedDict):
    """Which splits the studies share; ``rows`` say what each study was trained and scored on."""

    verdict: DataVerdict
    same: dict[str, bool]
    rows: list[tuple[str, list[Any]]]
    notes: list[str]


class TrialCounts(TypedDict):
    """How many trials were run, and how they ended."""

    run: int
    asked: int
    complete: int
    pruned: int
    failed: int


class BestTrial(TypedDict):
    """The trial of the configuration that a study names."""

    number: int
    value: float
    params: Mapping[str, Any]


class MeanInterval(TypedDict):
    """A mean with its bootstrap interval and Student's, or why there is none."""

    n: int
    mean: float
    sd: float | None
    interval: Ends | None
    method: str | None
    student: Ends | None
    why_not: str | None


class ConfirmedMean(MeanInterval):
    """The winner's trainings on fresh seeds."""

    trial_number: int | None
    default: bool
    seeds: list[int]
    values: list[float]


class TestAccuracy(TypedDict):
    """Accuracy of the kept model; ``wrong`` lists its errors where the record has all of them."""

    n: int
    right: int
    accuracy: float
    wilson: Ends
    replicas: MeanInterval | None
    opened: int
    wrong: list[int] | None


class SpentBudget(TypedDict):
    """What a study cost."""

    epochs: int
    confirm_epochs: int
    device_hours: float
    confirm_device_hours: float
    wall_hours: float | None


class ComparedStudy(TypedDict):
    """One study of a comparison.

    ``expected_best`` has rows of n, the expected best of n trials, and its quartiles. A study that
    does not say its ``progress_unit`` counts in epochs.
    """

    name: str
    state: str | None
    seed: int | None
    sampler: str
    pruner: str
    independent: bool
    n_params: int | None
    trials: TrialCounts
    best: BestTrial | None
    winner: Mapping[str, Any]
    default: float | None
    confirmed: ConfirmedMean | None
    test: TestAccuracy | None
    budget: SpentBudget
    best_so_far: list[tuple[int, float]]
    expected_best: Sequence[tuple[int, float, float, float]]
    seconds_a_trial: float | None
    progress_unit: NotRequired[ProgressUnit]


class TestedDifference(TypedDict):
    """The difference of two sets of trainings, first minus second, and how it was tested.

    ``p`` is None where every pair differs by the same.
    """

    test: str
    n: list[int]
    difference: float
    interval: Ends | None
    method: str | None
    student: Ends | None
    why_not: str | None
    p: float | None
    df: float
    permutation_p: float
    smallest_p: float
    effect: float | None
    superiority: float


class DiscordantExamples(TypedDict):
    """Test examples that only one of two models got right, and McNemar's exact p."""

    only_a: int
    only_b: int
    p: float


class AccuracyDifference(TypedDict):
    """The difference of two test accuracies, with Newcombe's interval."""

    difference: float
    low: float
    high: float
    mcnemar: DiscordantExamples | None


class ComparedPair(TypedDict):
    """Two studies, first minus second; ``holm`` is p corrected for all pairs."""

    a: str
    b: str
    search: float | None
    confirmed: TestedDifference | None
    better: str | None
    holm: float | None
    test: AccuracyDifference | None


class EqualHours(TypedDict):
    """What a study reaches in as many device-hours as the cheapest one had."""

    hours: float
    trials: int
    value: float


class BudgetRowBase(TypedDict):
    """What a budget in trials bought in one study."""

    name: str
    value: float | None


class BudgetRow(BudgetRowBase, total=False):
    """The same; quartiles where it is an expectation."""

    low: float
    high: float
    device_hours: EqualHours | None


class BudgetComparison(TypedDict):
    """What equal budgets buy; ``kind`` is None where too few studies have a score."""

    kind: BudgetCurve | None
    trials: int | None
    rows: list[BudgetRow]


class TableRow(TypedDict):
    """A value of each study under one key, and whether they differ."""

    key: str
    values: list[Any]
    differs: bool


class Verdict(TypedDict):
    """What a comparison comes to, in sentences."""

    headline: str
    sentences: list[str]
    warnings: list[str]


class Comparison(TypedDict):
    """The whole comparison."""

    schema: int
    level: float
    objective: ObjectiveFacts
    data: DataComparison
    studies: list[ComparedStudy]
    pairs: list[ComparedPair]
    curves: BudgetComparison
    params: list[TableRow]
    space: list[TableRow]
    config: list[TableRow]
    verdict: Verdict
