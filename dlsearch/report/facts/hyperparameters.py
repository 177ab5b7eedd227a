"""Facts of the hyperparameters: which were varied, which mattered, which ended at an edge."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dlsearch.report.facts.statistics import choice
from dlsearch.report.study import Dimension, DimensionKind

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from dlsearch.core.types import Params
    from dlsearch.report.facts.contents import Edge, Importances, Side
    from dlsearch.report.study import Objective, Trial, View

#: Completed trials below which importances are not computed.
FEWEST_FOR_IMPORTANCES = 10
#: Completed trials below which the edges of the space are not looked at.
FEWEST_FOR_EDGES = 5
#: The part of a range, at each end, that is its edge.
EDGE_SHARE = 0.05
# An integer range narrower than this has its edges at its two ends alone.
_WIDE_INTEGER_RANGE = 10

# Optuna's quantile of PED-ANOVA, the best trials that its documentation asks for, and the bound.
_TARGET_QUANTILE = 0.1
_BEST_TRIALS = 5
_LARGEST_QUANTILE = 0.5


def list_varied(view: View) -> list[str]:
    """Names of the hyperparameters in the order of the space, then others that trials carry."""
    names = [dimension.name for dimension in view.document.space]
    carried = {name for trial in view.trials for name in trial.params}
    return names + sorted(carried - set(names))


# -- edges ----------------------------------------------------------------------------------------


def find_edges(view: View) -> list[Edge]:
    """Numeric hyperparameters whose winning value lies in the outer 5 % of their range."""
    winner = view.winner
    if winner is None or len(view.scored) < FEWEST_FOR_EDGES:
        return []
    edges: list[Edge] = []
    for dimension in view.document.space:
        value = winner.params.get(dimension.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        side = _side_of_edge(dimension, value)
        if side is not None:
            edges.append({"name": dimension.name, "value": value, "side": side})
    return edges


def _side_of_edge(dimension: Dimension, value: float) -> Side | None:
    """The end of the range, on its own scale, at which the value lies."""
    low = dimension.low
    high = dimension.high
    if dimension.kind == DimensionKind.CATEGORICAL or low is None or high is None:
        return None
    is_integer = dimension.kind == DimensionKind.INT
    is_narrow = high - low < _WIDE_INTEGER_RANGE
    if is_integer and is_narrow and value not in (low, high):
        return None
    start = _on_scale(dimension, low)
    end = _on_scale(dimension, high)
    if end <= start:
        return None
    at = _on_scale(dimension, value)
    above_start = at - start
    below_end = end - at
    if EDGE_SHARE <= above_start / (end - start) <= 1 - EDGE_SHARE:
        return None
    return "lower" if above_start < below_end else "upper"


def _on_scale(dimension: Dimension, value: float) -> float:
    if dimension.log and value > 0:
        return math.log(value)
    return float(value)


# -- importances ----------------------------------------------------------------------------------


def importances(view: View) -> Importances:
    """Hyperparameter importances by PED-ANOVA (Watanabe et al., 2023), from a study in memory.

    PED-ANOVA draws nothing at random, so that it has no seed. Its quantile is Optuna's 0.1, or as
    much as takes in five trials, as its documentation advises. The values are empty and ``why_not``
    says why where there are too few trials or hyperparameters.
    """
    found: Importances = {
        "evaluator": "PED-ANOVA (optuna.importance.PedAnovaImportanceEvaluator)",
        "seed": None,
        "target_quantile": None,
        "trials": 0,
        "left_out": 0,
        "values": [],
        "why_not": None,
    }
    scored = view.scored
    found["why_not"] = _find_obstacle(view.document.space, len(scored))
    if found["why_not"] is not None:
        return found

    with _silent_optuna():
        study = _rebuild_study(view.objectives, scored, view.document.space)
        n = len(study.trials)
        found["trials"] = n
        found["left_out"] = len(scored) - n
        if n < FEWEST_FOR_IMPORTANCES:
            found["why_not"] = f"only {n} completed trials lie inside the search space"
            return found
        quantile = min(_LARGEST_QUANTILE, max(_TARGET_QUANTILE, _BEST_TRIALS / n))
        found["target_quantile"] = quantile
        shares = _compute_shares(study, quantile)
    if not sum(shares.values()) > 0:
        found["why_not"] = "the best trials are spread over the space as all trials are"
        return found
    found["values"] = _order_shares(shares)
    return found


def _order_shares(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    """The largest share first, equal ones by name."""
    by_name = [(name, float(share)) for name, share in sorted(shares.items())]
    return sorted(by_name, key=lambda row: row[1], reverse=True)


def _find_obstacle(space: Sequence[Dimension], n_scored: int) -> str | None:
    """Why importances cannot be computed; None where there are trials and dimensions enough."""
    names = {dimension.name for dimension in space}
    if len(names) < 2:
        return "it takes two hyperparameters to compare"
    if n_scored < FEWEST_FOR_IMPORTANCES:
        return (
            f"it takes at least {FEWEST_FOR_IMPORTANCES} completed trials, and there are {n_scored}"
        )
    return None


@contextmanager
def _silent_optuna() -> Iterator[None]:
    """Let Optuna log and warn of nothing meanwhile."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _compute_shares(study: optuna.Study, quantile: float) -> dict[str, float]:
    from dlsearch.report.facts.importance import PedAnovaImportanceEvaluator, get_param_importances

    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    return get_param_importances(study, evaluator=evaluator)


def _rebuild_study(
    objectives: Sequence[Objective],
    trials: Sequence[Trial],
    space: Sequence[Dimension],
) -> optuna.Study:
    """A study in memory with the trials that lie inside the space."""
    import optuna

    directions = ["maximize" if objective.maximize else "minimize" for objective in objectives]
    dimensions = {dimension.name: dimension for dimension in space}
    study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
    for trial in trials:
        frozen = _freeze_trial(trial, dimensions)
        if frozen is not None:
            study.add_trial(frozen)
    return study


def _freeze_trial(trial: Trial, dimensions: Mapping[str, Dimension]) -> FrozenTrial | None:
    """The trial as Optuna's; None where a value lies outside the space.

    That of an enqueued trial may.
    """
    from optuna.trial import TrialState, create_trial

    params: Params = {}
    distributions: dict[str, BaseDistribution] = {}
    try:
        for name, value in trial.params.items():
            dimension = dimensions.get(name)
            if dimension is None:
                continue
            params[name] = _convert_value(dimension, value)
            distributions[name] = _make_distribution(dimension)
        return create_trial(
            state=TrialState.COMPLETE,
            values=list(trial.values),
            params=params,
            distributions=distributions,
        )
    except (TypeError, ValueError):
        return None


def _convert_value(dimension: Dimension, value: Any) -> str | int | float | bool | None:
    if dimension.kind == DimensionKind.FLOAT:
        return float(value)
    if dimension.kind == DimensionKind.INT:
        return int(value)
    return choice(value)


def _make_distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's distribution of a dimension.

    Raises:
        TypeError: The dimension lacks its range or its choices.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    low = dimension.low
    high = dimension.high
    if dimension.kind == DimensionKind.CATEGORICAL:
        if dimension.choices is None:
            raise TypeError(f"{dimension.name}: expected choices, got none")
        return CategoricalDistribution([choice(each) for each in dimension.choices])
    if low is None or high is None:
        raise TypeError(f"{dimension.name}: expected a range, got {low} to {high}")
    if dimension.kind == DimensionKind.FLOAT:
        return FloatDistribution(float(low), float(high), log=dimension.log, step=dimension.step)
    step = int(dimension.step or 1)
    return IntDistribution(int(low), int(high), log=dimension.log, step=step)
