"""The statistics of the search: best-so-far, distributions, expected best, importances, utilisation.

Pure functions of numbers; each names its source. Nothing here draws or formats.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlsearch.report.study import Trial, View

#: Classes of Optuna's samplers whose trials do not depend on earlier results.
INDEPENDENT = ("random", "qmc", "grid", "bruteforce")


def best_so_far(trials: Sequence[Trial], maximize: bool) -> list[tuple[int, float]]:
    """The steps of the best score by trial number: ``(number, best up to and with it)`` where it improves."""
    steps: list[tuple[int, float]] = []
    for t in trials:
        if t.scored and (not steps or (t.values[0] > steps[-1][1] if maximize else t.values[0] < steps[-1][1])):
            steps.append((t.number, t.values[0]))
    return steps


def empirical(values: Iterable[float]) -> list[tuple[float, float]]:
    """The empirical distribution function: ``(x, share of values <= x)`` at each distinct value."""
    ordered = sorted(values)
    n = len(ordered)
    last = {x: (i + 1) / n for i, x in enumerate(ordered)}
    return sorted(last.items())


def expected_best(values: Sequence[float], maximize: bool) -> list[tuple[int, float, float, float]]:
    """Expected best of ``n`` trials, n = 1 … N, drawn without replacement from the N that were run.

    The idea of Dodge et al. (2019), with the unbiased estimator of Tang et al. (2020):
    E[max of n] = Σᵢ V₍ᵢ₎ C(i−1, n−1) / C(N, n), over the order statistics V₍₁₎ ≤ … ≤ V₍N₎.

    Returns:
        Rows ``(n, mean, lower quartile, upper quartile)`` of the best of n.
    """
    import numpy as np
    from scipy.special import gammaln

    ordered = np.sort(np.asarray(values, dtype=float) * (1 if maximize else -1))
    total = len(ordered)
    ranks = np.arange(1, total + 1)
    rows: list[tuple[int, float, float, float]] = []
    for n in range(1, total + 1):
        at = ranks >= n
        log_mass = np.full(total, -np.inf)
        r = ranks[at]
        log_mass[at] = (gammaln(r) - gammaln(n) - gammaln(r - n + 1)) - (
            gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
        )
        mass = np.exp(log_mass)
        mass /= mass.sum()
        cumulative = np.cumsum(mass)
        mean = float(mass @ ordered)
        low, high = (float(ordered[min(int(np.searchsorted(cumulative, q)), total - 1)]) for q in (0.25, 0.75))
        sign = 1 if maximize else -1
        rows.append((n, sign * mean, *sorted((sign * low, sign * high))))  # type: ignore[arg-type]
    return rows


def independent(sampler: dict[str, Any] | None) -> bool:
    """Whether the sampler proposes trials without looking at earlier results."""
    name = str((sampler or {}).get("_target_") or (sampler or {}).get("name") or "").rsplit(".", 1)[-1].lower()
    return any(word in name for word in INDEPENDENT)


def _distribution(dimension: dict[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, log, step = dimension["kind"], bool(dimension.get("log")), dimension.get("step")
    if kind == "float":
        return FloatDistribution(float(dimension["low"]), float(dimension["high"]), log=log, step=step)
    if kind == "int":
        return IntDistribution(int(dimension["low"]), int(dimension["high"]), log=log, step=int(step or 1))
    return CategoricalDistribution([choice(c) for c in dimension["choices"]])


def choice(value: Any) -> str | int | float | bool | None:
    """A categorical value as the scalar it is told apart by; lists and mappings become their text."""
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def importances(view: View) -> dict[str, Any]:
    """Hyperparameter importances by PED-ANOVA (Watanabe et al., 2023), from a study rebuilt in memory.

    PED-ANOVA draws nothing at random, so that it has no seed. Its quantile is Optuna's 0.1, or as much as takes in
    five trials, as its documentation advises.

    Returns:
        ``{"evaluator", "target_quantile", "trials", "left_out", "values": [[name, share], ...], "why_not"}``; the
        values are empty and ``why_not`` says why where there is too little to go by.
    """
    scored = view.scored
    out: dict[str, Any] = {
        "evaluator": "PED-ANOVA (optuna.importance.PedAnovaImportanceEvaluator)",
        "seed": None,
        "target_quantile": None,
        "trials": 0,
        "left_out": 0,
        "values": [],
        "why_not": None,
    }
    dimensions = {d["name"]: d for d in view.study.get("space") or []}
    if len(dimensions) < 2:
        out["why_not"] = "it takes two hyperparameters to compare"
        return out
    if len(scored) < 10:
        out["why_not"] = f"it takes at least 10 completed trials, and there are {len(scored)}"
        return out
    import optuna

    import dlsearch.search.importance  # noqa: F401  # importances without scikit-learn's import

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(directions=["maximize" if o.maximize else "minimize" for o in view.objectives])
            for t in scored:
                frozen = _frozen(t, dimensions)
                if frozen is None:
                    out["left_out"] += 1
                else:
                    study.add_trial(frozen)
            n = len(scored) - out["left_out"]
            out["trials"] = n
            if n < 10:
                out["why_not"] = f"only {n} completed trials lie inside the search space"
                return out
            quantile = min(0.5, max(0.1, 5 / n))
            out["target_quantile"] = quantile
            shares = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
            )
    finally:
        optuna.logging.set_verbosity(verbosity)
    if not sum(shares.values()) > 0:
        out["why_not"] = "the best trials are spread over the space as all trials are"
        return out
    out["values"] = sorted(([k, float(v)] for k, v in shares.items()), key=lambda row: (-row[1], row[0]))
    return out


def _frozen(t: Trial, dimensions: dict[str, dict[str, Any]]) -> Any:
    """The trial as Optuna's; None where a value lies outside the space, as that of an enqueued trial may."""
    from optuna.trial import TrialState, create_trial

    params, distributions = {}, {}
    for name, value in t.params.items():
        if name not in dimensions:
            continue
        kind = dimensions[name]["kind"]
        try:
            value = float(value) if kind == "float" else int(value) if kind == "int" else choice(value)
            params[name], distributions[name] = value, _distribution(dimensions[name])
        except (TypeError, ValueError, KeyError):
            return None
    try:
        return create_trial(
            state=TrialState.COMPLETE, values=list(t.values), params=params, distributions=distributions
        )
    except ValueError:
        return None


def busy(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, int]]:
    """How many of the intervals are open: ``(time, count from then on)`` at each change."""
    changes: dict[float, int] = {}
    for start, end in intervals:
        changes[start] = changes.get(start, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    level = 0
    steps: list[tuple[float, int]] = []
    for at in sorted(changes):
        level += changes[at]
        if not steps or steps[-1][1] != level:
            steps.append((at, level))
    return steps


def idle(intervals: Sequence[tuple[float, float]], share: float = 0.1) -> list[tuple[float, float]]:
    """Gaps in which nothing ran, longer than `share` of the time in which something did."""
    steps = busy(intervals)
    gaps = [(a, b) for (a, level), (b, _) in itertools.pairwise(steps) if level == 0]
    active = (steps[-1][0] - steps[0][0] - sum(b - a for a, b in gaps)) if steps else 0.0
    return [(a, b) for a, b in gaps if b - a > share * active]
