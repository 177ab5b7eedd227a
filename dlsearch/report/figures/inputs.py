"""What the figures need of ``report.json``: its rows, typed, in one place.

The figures read the file's own content, so these are typed dictionaries: JSON as it was read.
A report holds more than is named here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A value of a hyperparameter: a number, a text, a truth value, null, or what a choice holds.
ParameterValue: TypeAlias = Any
#: An epoch and the score that was reported in it.
Point: TypeAlias = tuple[int, float]
#: Both ends of an interval.
Ends: TypeAlias = tuple[float, float]


class ObjectiveRow(TypedDict):
    """One objective of the study."""

    name: str
    maximize: bool
    percent: bool


class TrialRow(TypedDict):
    """One trial. ``standing`` is its score, or the last one it reported."""

    number: int
    state: str
    params: Mapping[str, ParameterValue]
    values: list[float]
    standing: float | None
    scored: bool
    intermediate: list[Point]
    best_epoch: int | None


class StateCounts(TypedDict):
    """How many trials ended in which way."""

    counts: Mapping[str, int]


class SlotBar(NamedTuple):
    """One attempt on the timeline; times are seconds since 1970."""

    slot: str
    began: float
    ended: float
    state: str
    trial_number: int


class ComputeFacts(TypedDict):
    """What ran where and when. A bar is a row of :class:`SlotBar`."""

    bars: list[tuple[str, float, float, str, int]]
    slots: list[str]
    busy: list[tuple[float, int]]
    gaps: list[tuple[float, float]]
    utilisation: float | None


class CourseFacts(TypedDict):
    """How the search went.

    ``expected_best`` has rows of n, the expected best of n trials, and its quartiles.
    """

    best_so_far: list[tuple[int, float]]
    distribution: list[tuple[float, float]]
    median: float | None
    expected_best: list[tuple[int, float, float, float]]


class ImportanceFacts(TypedDict):
    """The share of each hyperparameter in reaching the best results."""

    values: list[tuple[str, float]]
    target_quantile: float | None
    trials: int


class ReplicaRow(TypedDict):
    """One training of a finalist on a fresh seed."""

    seed: int | None
    value: float | None
    best_epoch: int | None
    intermediate: list[Point]


class MetricGap(TypedDict):
    """One metric on training and on validation examples."""

    metric: str
    train: float
    val: float
    gap: float


class FinalistRow(TypedDict):
    """One configuration that was trained again.

    ``band`` has rows of epoch, number of replicas, least, mean and most.
    """

    name: str
    trial_number: int | None
    default: bool
    winner: bool
    search_value: float | None
    dropped_after: int | None
    replicas: list[ReplicaRow]
    band: list[tuple[int, int, float, float, float]]
    n: int
    mean: float | None
    interval: Ends | None
    method: str | None
    student: Ends | None


# ``with`` is a word of Python's own, so that this one cannot be written as a class.
ComparisonRow = TypedDict(
    "ComparisonRow",
    {
        "with": int,
        "n": int,
        "mean": float,
        "interval": Ends | None,
        "student": Ends | None,
        "differences": list[float],
        "better": int,
        "probability": float | None,
    },
)


class ConfirmationFacts(TypedDict):
    """The last round of confirmation; ``with`` of a comparison is a place in ``finalists``."""

    finalists: list[FinalistRow]
    comparisons: list[ComparisonRow]


class OptimismFacts(TypedDict):
    """How much more the search promised than fresh seeds keep."""

    drop: float
    interval: Ends | None


class GapRow(TypedDict):
    """Training against validation of one configuration, metric by metric."""

    name: str
    first: bool
    gap: list[MetricGap]


class Pictures(TypedDict):
    """Pictures as the record holds them: (n, channels, height, width) of bytes, in base64."""

    shape: list[int]
    data: str


class FirstLayer(Pictures):
    """The weights of a first layer as pictures."""

    layer: str | None
    type: str
    total: int


class LayerMaps(TypedDict):
    """Feature maps of one layer; ``names`` and ``kernels`` are those of fixed kernels."""

    layer: str
    total: int
    sides: list[int]
    tiles: Pictures
    names: list[str] | None
    kernels: Pictures | None


class DeconvolvedLayer(TypedDict):
    """For some maps of a layer, the images that excite them most, and what of them did."""

    layer: str
    field: list[int]
    channels: list[int]
    images: int
    projections: Pictures
    patches: Pictures


class WarpedImages(TypedDict):
    """What a spatial transformer made of images; ``maps`` holds a 2×3 matrix for each."""

    layer: str
    images: Pictures
    warped: Pictures
    maps: list[list[list[float]]]


class GradientNorms(TypedDict, total=False):
    """Norms of the gradient by layer, before and after the training."""

    layers: list[str]
    names: list[str]
    initial: list[float | None]
    kept: list[float | None]


class LossCurves(TypedDict):
    """Training and validation loss by epoch, and the epoch whose weights are kept."""

    train: list[Point]
    val: list[Point]
    best: int | None


class InsideFacts(TypedDict, total=False):
    """What was seen inside of a net; each part may be absent or null."""

    n: int
    source: str
    first_layer: FirstLayer | None
    image: Pictures | None
    maps: list[LayerMaps] | None
    deconvolution: list[DeconvolvedLayer] | None
    warped: WarpedImages | None
    gradients: GradientNorms | None
    curves: LossCurves | None


class Confusion(TypedDict):
    """How often one class was taken for another."""

    label: str
    prediction: str
    count: int


class TestEvaluation(TypedDict):
    """The evaluation on the test set that the report quotes."""

    n: int
    classes: list[str]
    confusion: list[list[int]]
    confusions: list[Confusion]
    first_layer: FirstLayer | None
    inside: InsideFacts | None


class TestFacts(TypedDict):
    """The test; ``main`` is null where nothing was scored."""

    main: TestEvaluation | None


class ClassBalance(TypedDict):
    """The classes of one split: the share of each, and the largest by the smallest."""

    shares: list[float]
    ratio: float | None


class DataFacts(TypedDict):
    """What is known of the data, by split."""

    balance: Mapping[str, ClassBalance]


class SpaceRow(TypedDict, total=False):
    """One dimension of the search space."""

    name: str
    kind: str
    low: float | None
    high: float | None
    step: float | None
    log: bool
    choices: list[ParameterValue] | None


class StudyData(TypedDict, total=False):
    """The data as the study's document names them."""

    classes: list[ParameterValue] | None


class StudyRow(TypedDict, total=False):
    """The study's document."""

    name: str
    space: list[SpaceRow] | None
    data: StudyData


class Claim(TypedDict):
    """What the report claims, in one sentence."""

    headline: str


class ReportFacts(TypedDict):
    """The content of ``report.json``, as far as pages and figures read it by name.

    ``best``, ``winner`` and ``default`` are numbers of trials.
    """

    study: StudyRow
    objectives: list[ObjectiveRow]
    trials: list[TrialRow]
    best: int | None
    winner: int | None
    default: int | None
    pareto: list[int]
    leaders: list[int]
    varied: list[str]
    accounting: StateCounts
    compute: ComputeFacts
    course: CourseFacts
    importances: ImportanceFacts
    test: TestFacts
    confirmation: ConfirmationFacts | None
    optimism: OptimismFacts | None
    gaps: list[GapRow]
    data: DataFacts | None
    claim: Claim


class RangeTest(TypedDict):
    """What a learning-rate range test found."""

    low: float
    rates: list[float]
    losses: list[float]
    smooth: list[float]
    diverged: bool
    begins: float | None
    least: float | None
    suggestion: float | None


def find_trial(report: ReportFacts, number: int | None) -> TrialRow | None:
    """The trial of this number."""
    return next((trial for trial in report["trials"] if trial["number"] == number), None)


def scored_trials(report: ReportFacts) -> list[TrialRow]:
    """The trials that count as results of the search."""
    return [trial for trial in report["trials"] if trial["scored"]]


def standing_of(trial: TrialRow) -> float:
    """The score of a trial that has one."""
    standing = trial["standing"]
    assert standing is not None
    return standing
