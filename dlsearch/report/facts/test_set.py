"""Facts of the test set: how often it was opened, what the kept model scored, who accessed it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dlsearch.report.facts.intervals import estimate_mean
from dlsearch.report.facts.kinds.registry import is_headline, recognise_kind
from dlsearch.report.formats import epoch, listed, times

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import (
        BreachRow,
        EnsembleRow,
        LedgerOpening,
        MainScore,
        MetricOverSeeds,
        OpeningRow,
        ScoredOpening,
        SealRow,
        StoreOpenings,
        TestedReplicaRow,
        TestFacts,
    )
    from dlsearch.report.study import LedgerRow, TestedReplica, TestSetOpening, Trial, View

#: Characters of a digest that a sentence shows.
_SHOWN_DIGITS = 12
#: Misclassified examples that are shown.
MOST_ERRORS = 16


def describe_test(view: View) -> TestFacts:
    """The ledger of the test set, and in full the scored opening that the report quotes."""
    rows = sorted(view.ledger, key=_order_of_row)
    quoted = _choose_quoted(view, rows)
    facts: TestFacts = {
        "rows": [_describe_scored(row) for row in rows],
        "openings": None,
        "opened": len(rows),
        "unscored": None,
        "ensembles": _list_ensembles(rows),
        "main": None,
        "in_store": _count_in_store(view),
        "seals": _list_seals(view),
    }
    if quoted is not None:
        facts["main"] = _describe_main(view, quoted, rows.index(quoted))
    if view.openings is not None:
        openings = sorted(view.openings, key=_order_of_row)
        facts["openings"] = [_describe_opening(row) for row in openings]
        facts["opened"] = len(openings)
        facts["unscored"] = sum(not row.scored for row in openings)
    return facts


def _list_seals(view: View) -> list[SealRow]:
    """Who held the seal, the most frequent first; the trainings that say nothing are left out."""
    held = [trial.seal for trial in view.trials]
    finalists = view.finalization.configurations if view.finalization else ()
    for finalist in finalists:
        held += [replica.seal for replica in finalist.replicas]
    counts = Counter(words for words in held if words is not None)
    return [{"held": words, "trainings": number} for words, number in counts.most_common()]


def list_breaches(view: View) -> list[BreachRow]:
    """Every access to the test set while hyperparameters were being chosen."""
    rows: list[BreachRow] = []
    for trial in view.trials:
        rows += _describe_breaches(trial.breaches, trial.number, None)
    finalists = view.finalization.configurations if view.finalization else ()
    for finalist in finalists:
        for replica in finalist.replicas:
            rows += _describe_breaches(replica.breaches, finalist.trial_number, replica.replica)
    return rows


def _describe_breaches(
    breaches: Iterable[tuple[str, str]],
    trial: int | None,
    replica: int | None,
) -> list[BreachRow]:
    return [
        {"trial": trial, "replica": replica, "how": how, "what": what} for how, what in breaches
    ]


# -- the ledger -----------------------------------------------------------------------------------


def _order_of_row(row: LedgerRow) -> tuple[str, int, str]:
    time = str(row.evaluated_at or "")
    number = row.ledger_id if isinstance(row.ledger_id, int) else 0
    return time, number, str(row.ledger_id)


def _describe_row(row: LedgerRow) -> OpeningRow:
    return {
        "ledger_id": row.ledger_id,
        "kind": row.kind,
        "round": row.round,
        "trial_number": row.trial_number,
        "seed": row.seed,
        "evaluated_at": row.evaluated_at,
    }


def _describe_scored(row: LedgerRow) -> ScoredOpening:
    return {**_describe_row(row), "n": row.n, "metrics": row.metrics}


def _describe_opening(row: LedgerRow) -> LedgerOpening:
    return {**_describe_row(row), "scored": row.scored}


def _list_ensembles(rows: Iterable[LedgerRow]) -> list[EnsembleRow]:
    """Ensembles of the best trials: members, weights, figures beside the single best model's."""
    ensembles: list[EnsembleRow] = []
    for row in rows:
        found = row.ensemble
        if not found:
            continue
        ensemble: EnsembleRow = {
            "ledger_id": row.ledger_id,
            "by": found["by"],
            "members": found["members"],
            "single": found["single"],
            "weights": found["weights"],
            "chosen": found["chosen"],
            "validation": found["validation"],
            "test": found["test"],
        }
        ensembles.append(ensemble)
    return ensembles


def _count_in_store(view: View) -> StoreOpenings | None:
    """How often this test set was opened in the store, and by which others."""
    if view.test_set is None:
        return None
    others: Counter[str] = Counter()
    for opening in view.test_set.openings:
        if not opening.is_own:
            others[_name_opener(opening, view.document.name)] += 1
    opened = len(view.test_set.openings)
    text = f"Over all studies of this store, this test set was opened {times(opened)}"
    if others:
        parts = [f"{times(count)} by {name}" for name, count in sorted(others.items())]
        text += f": {times(opened - others.total())} by this study, {listed(parts)}"
    return {
        "digest": view.test_set.digest,
        "opened": opened,
        "by_others": others.total(),
        "openings": [
            {"study": opening.study, "is_own": opening.is_own} for opening in view.test_set.openings
        ],
        "text": f"{text} (test split {view.test_set.digest[:_SHOWN_DIGITS]}).",
    }


def _name_opener(opening: TestSetOpening, own_name: str | None) -> str:
    if opening.study is None:
        return "single runs"
    if opening.study == own_name:
        return f"an earlier study {opening.study}"
    return opening.study


def _choose_quoted(view: View, rows: Sequence[LedgerRow]) -> LedgerRow | None:
    """The first evaluation after the last selection: no other informed what it scored.

    Of a study that was extended, that is the first one of the last round; the ledger shows what
    came before. An ensemble is never quoted, since no model that is kept scored it.
    """
    confirmed = [row for row in rows if row.kind == "confirm"]
    of_single_models = [row for row in rows if row.kind != "ensemble"]
    of_last_round: list[LedgerRow] = []
    if view.finalization is not None:
        last = view.finalization.round
        of_last_round = [row for row in confirmed if row.round == last]
    candidates = of_last_round or confirmed or of_single_models
    return candidates[0] if candidates else None


# -- the quoted score -----------------------------------------------------------------------------


def _describe_main(view: View, row: LedgerRow, index: int) -> MainScore:
    trial = _find_tested_trial(view, row)
    return {
        **recognise_kind(row).describe_scores(row, view),
        "index": index,
        "n": int(row.n or 0),
        "metrics": row.metrics,
        "errors": row.errors[:MOST_ERRORS],
        "trial_number": row.trial_number,
        "seed": row.seed,
        "trial_seed": None if trial is None else trial.seed,
        "search_value": trial.values[0] if trial is not None and trial.values else None,
        "retrained_value": None if view.multi else row.value,
        "objective": view.objective.name,
        "delay": _measure_delay(view, row),
        "round": row.round,
        "refit": row.refit_metrics,
        "replicas": _describe_replicas(row.replicas),
        "over_seeds": _estimate_over_seeds(row.replicas),
        "first_layer": row.first_layer,
        "inside": row.inside,
    }


def _find_tested_trial(view: View, row: LedgerRow) -> Trial | None:
    if row.trial_number is None:
        return view.winner
    return view.find_trial(row.trial_number)


def _measure_delay(view: View, row: LedgerRow) -> float | None:
    """Seconds from the end of the last trial to the evaluation."""
    ends = [
        attempt.ended
        for trial in view.trials
        for attempt in trial.attempts
        if attempt.ended is not None
    ]
    if not ends or row.evaluated_at is None:
        return None
    try:
        return epoch(row.evaluated_at) - max(ends)
    except (TypeError, ValueError):
        return None


def _describe_replicas(replicas: Iterable[TestedReplica]) -> list[TestedReplicaRow]:
    return [
        {"replica": replica.replica, "seed": replica.seed, "metrics": replica.metrics}
        for replica in sorted(replicas, key=_order_of_replica)
    ]


def _order_of_replica(replica: TestedReplica) -> tuple[bool, int]:
    return replica.replica is None, replica.replica or 0


def _estimate_over_seeds(replicas: Sequence[TestedReplica]) -> list[MetricOverSeeds]:
    """Mean, standard deviation and intervals of each test metric over the replicas."""
    if len(replicas) < 2:
        return []
    names = {name for replica in replicas for name in replica.metrics}
    ordered = sorted(names, key=lambda name: (not is_headline(name), name))
    return [_estimate_metric(name, replicas) for name in ordered]


def _estimate_metric(name: str, replicas: Iterable[TestedReplica]) -> MetricOverSeeds:
    values = [replica.metrics.get(name) for replica in replicas]
    known = [value for value in values if value is not None]
    return {"metric": name, **estimate_mean(known)}
