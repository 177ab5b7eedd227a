"""What a worker has in hand while the database is away, and what it keeps in the store when it gives up waiting.

That is one file an attempt, named by its token, in the study's folder ``unwritten``. The next worker of the store, or
``dlsearch status``, tells the study what the worker would have told: the fencing token says whether it still counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dlsearch.search import run_journals
from dlsearch.search.endings import FENCED, Ending
from dlsearch.search.leases import LIVE
from dlsearch.search.rounds import TEST, Rounds
from dlsearch.search.study import Claim, Study
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.search.starting import Running

FOLDER = "unwritten"


def settle(rounds: Rounds, running: Running, end: Ending) -> bool:
    """Tell the study how an attempt ended; False when it was lost meanwhile, and its end does not count."""
    study, claim = rounds.study, running.claim
    if running.unreported:
        if claim.token in study.leases.renew([claim.token], {}):
            report_late(study, running)
        running.unreported.clear()
    if end.state == "lost" and running.killed_for == FENCED:
        return False
    return tell(rounds, claim, end, running.ledger_row)


def verdict(study: Study, running: Running) -> bool:
    """The pruner's word on the last epoch that is to be reported."""
    report_late(study, running, but=1)
    prune = running.killed_for != FENCED and study.report(running.claim, *running.unreported[0])
    running.unreported.clear()
    return prune


def report_late(study: Study, running: Running, but: int = 0) -> None:
    """Report the epochs that could not be reported when they ended, but for the last ones; verdicts come too late."""
    while len(running.unreported) > but:
        if running.killed_for != FENCED:
            study.report(running.claim, *running.unreported[0])
        running.unreported.pop(0)


def tell(rounds: Rounds, claim: Claim, end: Ending, ledger_row: int | None) -> bool:
    """Tell the study how an attempt ended; False when it was not live any more."""
    if end.result is not None:
        if claim.kind == TEST:
            return rounds.score(claim, end.result, ledger_row)
        return rounds.study.finish(claim, end.result)
    if end.state == "lost":
        return rounds.study.lose(claim, end.error or "")
    return rounds.study.release(claim, end.reason or "interrupted", error=end.error)


def keep(study: Study, store: Path, claim: Claim, end: Ending, running: Running | None = None) -> None:
    """Keep the end of an attempt, with what its worker knows of it."""
    journal = None if running is None else running.journal
    folder = _folder(study, store)
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "claim": {key: getattr(claim, key) for key in ("kind", "number", "attempt", "token")},
        "end": vars(end),
        "ledger_row": None if running is None else running.ledger_row,
        "unreported": [] if running is None else running.unreported,
        "journal": None if journal is None else str(journal.relative_to(store)),
    }
    part = folder / f"{claim.token}.part"
    part.write_text(json.dumps(document))
    part.replace(folder / f"{claim.token}.json")


def keep_all(study: Study, store: Path, running: dict[int, Running]) -> None:
    """Keep the ends of all, and that those were given back whose processes have not ended; none is left."""
    while running:
        slot, each = next(iter(running.items()))
        keep(study, store, each.claim, each.end or Ending("interrupted", "interrupted"), each)
        del running[slot]


def write_kept(study: Study, store: Path) -> None:
    """Write what an earlier worker of this store kept. It is safe to repeat."""
    for path in sorted(_folder(study, store).glob("*.json")):
        document = json.loads(path.read_text())
        claim = Claim(**document["claim"], params={}, seed=0, trial=None)
        end = Ending(**document["end"])
        _report(study, claim, document["unreported"])
        accepted = tell(Rounds(study), claim, end, document["ledger_row"])
        if document["journal"] is not None and not run_journals.has_ended(store / document["journal"]):
            state, reason = (end.state, end.reason) if accepted else ("lost", "lost")
            run_journals.end(store / document["journal"], claim.attempt, state, reason)
        path.unlink(missing_ok=True)


def _report(study: Study, claim: Claim, epochs: list[tuple[int, float]]) -> None:
    if claim.kind != "trial" or not epochs or len(study.directions) > 1:
        return
    storage, live = study.storage.optuna, study.leases.rows(kind="trial", state=LIVE, number=claim.number)
    if claim.token in {attempt.token for attempt in live}:
        trial = storage.get_trial_id_from_study_id_trial_number(study.optuna._study_id, claim.number)
        known = storage.get_trial(trial).intermediate_values
        for epoch, value in epochs:
            if epoch not in known:
                storage.set_trial_intermediate_value(trial, epoch, value)


def _folder(study: Study, store: Path) -> Path:
    return store / layout.study_folder(study.name) / FOLDER
