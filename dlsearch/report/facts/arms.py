"""A comparison's arms: what each spent, what each reached on fresh seeds, and all pairs of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlsearch.report.facts.intervals import compare_pairs
from dlsearch.report.study import TrialState
from dlsearch.sampling.arms import Arms, write_option

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import ArmPair, ArmRow, ArmsFacts, Confirmation, FinalistRow
    from dlsearch.report.study import Trial, View

_OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


def read_arms(study: Mapping[str, Any]) -> Arms | None:
    """What a study compares, as its record says; None where it compares nothing."""
    config = study.get("config") or {}
    settings = config.get("study") or {}
    key = settings.get("compare")
    for dim in study.get("space") or []:
        if key is not None and dim["name"] == key and dim.get("choices"):
            return Arms(key, tuple(dim["choices"]))
    return None


def name_arms(
    confirmation: Confirmation | None,
    arms: Arms | None,
) -> None:
    """Have the finalists of a comparison named after their arms.

    Args:
        confirmation: Its finalists are changed.
        arms: The comparison's; None where nothing is compared.
    """
    if confirmation is None or arms is None:
        return
    for finalist in confirmation["finalists"]:
        place = _place_of(finalist, arms)
        option = write_option(arms.options[place])
        finalist["arm"] = option
        finalist["name"] = f"{arms.key}={option} (trial {finalist['trial_number']})"


def describe_arms(
    view: View,
    confirmation: Confirmation | None,
    arms: Arms | None,
) -> ArmsFacts | None:
    """The arms of a comparison and the differences between them; None where nothing is compared."""
    if arms is None:
        return None
    asked = _count_asked(view, arms)
    rows = [
        _describe_arm(
            view,
            confirmation,
            arms,
            place,
        )
        for place in range(len(arms))
    ]
    pairs = [] if confirmation is None else _compare_all(rows, confirmation, view)
    return {"key": arms.key, "asked": asked, "arms": rows, "pairs": pairs}


def _count_asked(view: View, arms: Arms) -> int:
    """The budget of each arm."""
    total = view.study.get("n_trials") or len(view.trials)
    return int(total) // len(arms)


def _place_of(finalist: FinalistRow, arms: Arms) -> int:
    trial_number = finalist["trial_number"]
    assert trial_number is not None, "an arm's finalist is one of its trials"
    return arms.place_of(trial_number)


def _describe_arm(
    view: View,
    confirmation: Confirmation | None,
    arms: Arms,
    place: int,
) -> ArmRow:
    trials = [trial for trial in view.trials if arms.place_of(trial.number) == place]
    finalists = [] if confirmation is None else confirmation["finalists"]
    found = [i for i, row in enumerate(finalists) if _place_of(row, arms) == place]
    return {
        "option": write_option(arms.options[place]),
        "ended": sum(trial.state in _OVER for trial in trials),
        "completed": sum(trial.state is TrialState.COMPLETE for trial in trials),
        "device_seconds": _sum_seconds(trials),
        "finalist": found[0] if found else None,
    }


def _sum_seconds(trials: Sequence[Trial]) -> float:
    return sum(sorted(trial.seconds for trial in trials if trial.seconds is not None))


# -- pairs ----------------------------------------------------------------------------------------


def _compare_all(
    rows: Sequence[ArmRow],
    confirmation: Confirmation,
    view: View,
) -> list[ArmPair]:
    """Every pair of arms over the seeds that both completed, the one with the better mean first."""
    maximize = view.objective.maximize
    pairs: list[ArmPair] = []
    for first, second in itertools.combinations(range(len(rows)), 2):
        values = [_values_of(rows[place], confirmation) for place in (first, second)]
        both = sorted(values[0].keys() & values[1].keys())
        if not both:
            continue
        one = [values[0][replica] for replica in both]
        other = [values[1][replica] for replica in both]
        of = first
        against = second
        estimate = compare_pairs(one, other, maximize)
        if estimate["mean"] is not None and estimate["mean"] < 0:
            of = second
            against = first
            estimate = compare_pairs(other, one, maximize)
        pair: ArmPair = {
            "of": of,
            "with": against,
            "replicas": both,
            **estimate,
            "p": _two_sided(estimate["probability"], estimate["differences"]),
            "holm": None,
        }
        pairs.append(pair)
    _correct(pairs)
    return pairs


def _values_of(row: ArmRow, confirmation: Confirmation) -> dict[int, float]:
    """What an arm's finalist reached, by replica."""
    if row["finalist"] is None:
        return {}
    replicas = confirmation["finalists"][row["finalist"]]["replicas"]
    return {each["replica"]: each["value"] for each in replicas if each["value"] is not None}


def _two_sided(probability: float | None, differences: Sequence[float]) -> float | None:
    """The p value of the two-sided paired t test, by the probability that the first is better.

    Where all differences are zero it is 1; where all are equal and not zero there is none.
    """
    if probability is not None:
        return min(1.0, 2 * min(probability, 1 - probability))
    return 1.0 if differences and not any(differences) else None


def _correct(pairs: Sequence[ArmPair]) -> None:
    """Note the p values as corrected for the number of pairs."""
    known = [pair for pair in pairs if pair["p"] is not None]
    corrected = correct_by_holm([pair["p"] or 0.0 for pair in known])
    for pair, p in zip(known, corrected, strict=True):
        pair["holm"] = p


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm, 1979), in the order in which they are given.

    That any true hypothesis is rejected where the corrected value is below a level has at most that
    chance, whatever depends on what.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        weighted = (len(p_values) - rank) * p_values[index]
        largest = max(largest, min(1.0, weighted))
        corrected[index] = largest
    return corrected
