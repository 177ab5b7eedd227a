"""A record checked against itself: what must agree in it, whatever wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlsearch.report.facts.arms import read_arms
from dlsearch.report.study import CheckRow, TrialState
from dlsearch.sampling.arms import Arms, write_option

if TYPE_CHECKING:
    from dlsearch.report.study import Finalist, Finalization, LedgerRow, View

#: What is found wrong by one check, at most, that the report lists.
MOST_FOUND = 5

# Means that differ by less, relative to their size, are equal.
_TOLERANCE = 1e-12

#: A check: the sentence that must hold, and what was found against it.
_Check = tuple[str, Sequence[str]]


def check_record(view: View, data: Mapping[str, Any]) -> list[CheckRow]:
    """Check the record against itself; each check says what was found where it fails.

    Args:
        view: The view of the record, without its checks.
        data: The record it was made of, cleaned.
    """
    checks = [
        *_check_trials(view),
        _check_result(view, data),
        *_check_round(view),
        *_check_ledger(view),
        _check_overlap(view),
    ]
    return [_make_row(sentence, found) for sentence, found in checks]


def _make_row(sentence: str, found: Sequence[str]) -> CheckRow:
    return {
        "check": sentence,
        "ok": not found,
        "found": "; ".join(found[:MOST_FOUND]),
    }


# -- the trials -----------------------------------------------------------------------------------


def _check_trials(view: View) -> Iterator[_Check]:
    yield (
        "Trials are numbered 0, 1, 2, … without gap or repetition.",
        _find_misnumbered(view),
    )
    yield (
        "Every completed trial has a finite value for each objective.",
        [
            f"trial {trial.number} has none"
            for trial in view.trials
            if trial.state == TrialState.COMPLETE and not trial.values
        ],
    )
    yield (
        "Every failed trial names its reason.",
        [
            f"trial {trial.number} names none"
            for trial in view.trials
            if trial.state == TrialState.FAILED and not trial.reason
        ],
    )
    yield ("A study that is over holds no running trial.", _find_running(view))


def _find_misnumbered(view: View) -> list[str]:
    numbers = [trial.number for trial in view.trials]
    if numbers == list(range(len(numbers))):
        return []
    return [f"{len(numbers)} trials, {len(set(numbers))} numbers"]


def _find_running(view: View) -> list[str]:
    """Running trials of a study that is over."""
    if view.document.state != "complete":
        return []
    return [
        f"trial {trial.number} is running"
        for trial in view.trials
        if trial.state == TrialState.RUNNING
    ]


# -- the result -----------------------------------------------------------------------------------


def _check_result(view: View, data: Mapping[str, Any]) -> _Check:
    """The recorded result against the one that the trials and replicas give."""
    recorded = data.get("winner")
    if view.multi:
        return (
            "The recorded Pareto set is the set of completed trials that none dominates.",
            _find_other_front(view, data),
        )
    if view.finalization is not None and view.finalization.winner is not None:
        return (
            "The recorded winner is the configuration that was confirmed.",
            _find_other_confirmed(view.finalization.winner, recorded),
        )
    return (
        "The recorded winner is the best of the completed trials.",
        _find_other_best(view, recorded),
    )


def _find_other_front(view: View, data: Mapping[str, Any]) -> list[str]:
    of_winner = (data.get("winner") or {}).get("pareto")
    recorded = sorted(data.get("pareto") or of_winner or view.pareto)
    front = list(view.pareto)
    return [] if recorded == front else [f"recorded {recorded}, found {front}"]


def _find_other_confirmed(confirmed: Finalist, recorded: Mapping[str, Any] | None) -> list[str]:
    if recorded is None:
        return ["recorded none"]
    both_default = recorded.get("default") and confirmed.default
    if recorded.get("number") == confirmed.trial_number or both_default:
        return []
    return [f"recorded trial {recorded.get('number')}, confirmed {confirmed.trial_number}"]


def _find_other_best(view: View, recorded: Mapping[str, Any] | None) -> list[str]:
    best = view.best
    is_same = (recorded is None) == (best is None)
    if recorded and best:
        # Two trials may tie: what counts is that the recorded one scored as much.
        trial = view.find_trial(recorded.get("number"))
        is_same = trial is not None and trial.values == best.values
    if is_same:
        return []
    recorded_number = recorded.get("number") if recorded else "none"
    best_number = best.number if best else "none"
    return [f"recorded trial {recorded_number}, found {best_number}"]


# -- the confirmation -----------------------------------------------------------------------------


def _check_round(view: View) -> Iterator[_Check]:
    """What must hold in a round of confirmation."""
    final = view.finalization
    if final is None:
        return
    yield (
        "Replica i of every finalist was trained with the same seed.",
        _find_unpaired(final),
    )
    yield (
        "The seeds of the confirmation are distinct, and no trial of the search had one.",
        [*_find_repeated_seeds(final), *_find_used_seeds(view, final)],
    )
    arms = read_arms(view.study)
    if arms is None:
        yield (
            "The default configuration is among the finalists and was never dropped.",
            _find_lost_default(final),
        )
    else:
        yield (
            "The best trial of every option that is compared is among the finalists, on all seeds.",
            _find_lost_arms(view, final, arms),
        )
    if final.state == "complete":
        yield (
            "Of the finalists that had all seeds, the winner has the best mean.",
            _find_better_finalists(final, view.objective.sign),
        )


def _find_unpaired(final: Finalization) -> list[str]:
    seeds = final.seeds
    if not seeds:
        return []
    return [
        f"{_name_finalist(finalist)}: replica {replica.replica} has seed {replica.seed}"
        for finalist in final.configurations
        for replica in finalist.replicas
        if replica.replica >= len(seeds) or replica.seed != seeds[replica.replica]
    ]


def _find_repeated_seeds(final: Finalization) -> list[str]:
    distinct = len(set(final.seeds))
    if distinct == len(final.seeds):
        return []
    return [f"{len(final.seeds)} seeds, {distinct} distinct"]


def _find_used_seeds(view: View, final: Finalization) -> list[str]:
    fresh = set(final.seeds)
    return [
        f"trial {trial.number} had seed {trial.seed}"
        for trial in view.trials
        if trial.seed in fresh
    ]


def _find_lost_arms(view: View, final: Finalization, arms: Arms) -> list[str]:
    """The options whose best trial is no finalist, or was dropped."""
    confirmed = {each.trial_number for each in final.configurations if each.dropped_after is None}
    lost = []
    for place, option in enumerate(arms.options):
        scored = [t for t in view.trials if t.scored and arms.place_of(t.number) == place]
        if not scored:
            continue
        sign = view.objective.sign
        best = max(scored, key=lambda trial: (sign * trial.values[0], -trial.number))
        if best.number not in confirmed:
            lost.append(f"trial {best.number} of {arms.key}={write_option(option)} is not")
    return lost


def _find_lost_default(final: Finalization) -> list[str]:
    defaults = [finalist for finalist in final.configurations if finalist.default]
    if not defaults:
        return ["it is not among them"]
    was_dropped = any(finalist.dropped_after is not None for finalist in defaults)
    return ["it was dropped"] if was_dropped else []


def _find_better_finalists(final: Finalization, sign: int) -> list[str]:
    """Finalists that had all seeds and a better mean than the winner."""
    winners = [finalist for finalist in final.configurations if finalist.winner]
    if len(winners) != 1:
        return [f"{len(winners)} winners"]
    winner = winners[0]
    if not winner.values:
        return []
    # One that could not complete its seeds does not win over one that did.
    comparable = [
        finalist
        for finalist in final.configurations
        if finalist.dropped_after is None
        and finalist.values
        and finalist.failures <= winner.failures
    ]
    best_mean = _mean_of(winner)
    tolerance = _TOLERANCE * max(1.0, abs(best_mean))
    return [
        f"{_name_finalist(finalist)} has the better mean"
        for finalist in comparable
        if sign * (_mean_of(finalist) - best_mean) > tolerance
    ]


def _mean_of(finalist: Finalist) -> float:
    return math.fsum(finalist.values) / len(finalist.values)


def _name_finalist(finalist: Finalist) -> str:
    if finalist.default and finalist.trial_number is None:
        return "the default"
    return f"trial {finalist.trial_number}"


# -- the test ledger and the data -----------------------------------------------------------------


def _check_ledger(view: View) -> Iterator[_Check]:
    yield (
        "Every test-set evaluation belongs to a configuration of this study.",
        _find_foreign_evaluations(view),
    )
    if view.openings is not None:
        yield (
            "Every test score has its row in the ledger of openings.",
            _find_unopened(view.ledger, view.openings),
        )


def _find_foreign_evaluations(view: View) -> list[str]:
    known: set[int | None] = {trial.number for trial in view.trials}
    finalists = view.finalization.configurations if view.finalization else ()
    if any(finalist.default for finalist in finalists):
        known.add(None)
    return [
        f"ledger row {row.ledger_id} names trial {row.trial_number}"
        for row in view.ledger
        if row.trial_number not in known and row.kind != "ensemble"
    ]


def _find_unopened(rows: Sequence[LedgerRow], openings: Sequence[LedgerRow]) -> list[str]:
    opened = {row.ledger_id for row in openings}
    return [
        f"ledger row {row.ledger_id} is not there" for row in rows if row.ledger_id not in opened
    ]


def _check_overlap(view: View) -> _Check:
    overlap = view.document.data.overlap_index
    return "No example stands in two splits.", [f"{overlap} do"] if overlap else []
