"""The spool: ends that could not be written to the study, kept in the store for the next worker.

A spooled end is one file, named by the attempt's token, in the study's folder ``unwritten``. The
next worker of the store writes it to the study; the fencing token decides whether it still counts.
Ends that a worker still holds itself are recorded here, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import DatabaseAwayError
from dlsearch.core.files.disk import is_full
from dlsearch.core.files.durable import write_durably
from dlsearch.core.files.inside import inside, is_inside
from dlsearch.core.files.regular import read_json
from dlsearch.core.text import line_of_error
from dlsearch.execution import run_journals
from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.outcome import FENCED
from dlsearch.storage.availability import is_away, to_stderr
from dlsearch.study.models import Claim, Ending
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dlsearch.execution.attempt import Running
    from dlsearch.study.client import StudyClient
    from dlsearch.study.study import Study

KINDS = tuple(AttemptKind)
STATES = tuple(state for state in AttemptState if state is not AttemptState.RUNNING)


def record_running(client: StudyClient, running: Running, end: Ending) -> bool:
    """Record how an attempt ended, with the epochs that are not reported yet.

    Returns:
        False when it was lost meanwhile, and its end does not count.
    """
    claim = running.claim
    if running.unreported:
        if claim.token in client.renew({claim.token: {}}):
            report_late(client, running)
        running.unreported.clear()
    if end.state is AttemptState.LOST and running.killed_for is FENCED:
        return False
    return record_end(client, claim, end, running.ledger_row)


def report_epochs(client: StudyClient, running: Running) -> bool:
    """Report the epochs that are not reported yet; the pruner's verdict on the last."""
    report_late(client, running, but=1)
    epoch, value = running.unreported[0]
    prune = running.killed_for is not FENCED and client.report(running.claim, epoch, value)
    running.unreported.clear()
    return prune


def report_late(client: StudyClient, running: Running, but: int = 0) -> None:
    """Report the epochs that could not be reported when they ended; verdicts come too late.

    Args:
        client: The study.
        running: The attempt.
        but: How many of the last ones are left.
    """
    while len(running.unreported) > but:
        if running.killed_for is not FENCED:
            client.report(running.claim, *running.unreported[0])
        running.unreported.pop(0)


def record_end(client: StudyClient, claim: Claim, end: Ending, ledger_row: int | None) -> bool:
    """Record how an attempt ended; False when it was not live any more.

    Every end comes through here, so here its text is made fit for the database.
    """
    end = end.cleaned()
    if end.result is not None:
        return client.finish(claim, end.result, ledger_row)
    if end.state is AttemptState.LOST:
        return client.lose(claim, end.error or "")
    return client.release(claim, end.reason or FailureReason.INTERRUPTED, error=end.error)


def keep(
    study: Study,
    store: Path,
    claim: Claim,
    end: Ending,
    running: Running | None = None,
) -> None:
    """Keep the end of an attempt, with what its worker knows of it."""
    journal = None if running is None else running.journal
    folder = _folder(study, store)
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "claim": {key: getattr(claim, key) for key in ("kind", "number", "attempt", "token")},
        "end": end.to_json(),
        "ledger_row": None if running is None else running.ledger_row,
        "unreported": [] if running is None else running.unreported,
        "journal": None if journal is None else str(journal.relative_to(store)),
    }
    write_durably(folder / f"{claim.token}.json", json.dumps(document))


def keep_opened(study: Study, store: Path, tokens: Iterable[str]) -> None:
    """Keep the tokens of attempts whose claims were never confirmed.

    The database may have them or not.

    Whether the commit arrived before the connection ended cannot be known now. The next worker
    takes them back.
    """
    folder = _folder(study, store)
    for token in tokens:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / f"{token}.json", json.dumps({"opened": token}))


def keep_all(study: Study, store: Path, running: dict[int, Running]) -> None:
    """Keep the ends of all, and that those were given back whose processes have not ended.

    None is left.
    """
    while running:
        slot, each = next(iter(running.items()))
        keep(
            study,
            store,
            each.claim,
            each.end or Ending(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED),
            each,
        )
        del running[slot]


def write_kept(study: Study, store: Path) -> None:
    """Write what an earlier worker of this store kept. It is safe to repeat.

    A file that is not what it should be is put aside and said; the trial is mended by its lease, as
    ever.
    """
    for path in sorted(_folder(study, store).glob("*.json")):
        try:
            if _read_opened(path):
                study.take_back(path.stem)
            else:
                _write(study, store, read_kept(study, store, path))
        except FileNotFoundError:  # another worker of this store has written it
            continue
        except Exception as error:
            if is_full(error) or is_away(error) or isinstance(error, DatabaseAwayError):
                raise
            _put_aside(path, error)
        else:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class KeptEnd:
    """The end of an attempt as it was kept.

    Args:
        claim: What was done.
        end: How it ended.
        ledger_row: Of the test set's opening.
        unreported: (epoch, first objective) that the storage has not heard of.
        journal: Of its run; None where it has none.
    """

    claim: Claim
    end: Ending
    ledger_row: int | None
    unreported: list[tuple[int, float]]
    journal: Path | None


def read_kept(study: Study, store: Path, path: Path) -> KeptEnd:
    """What a file of the pending folder says.

    Raises:
        ValueError: It was cut short, or is not what :func:`keep` writes about an attempt of this
            study.
        OSError: It cannot be read.
    """
    document = read_json(path)
    _expect(isinstance(document, dict), "it is no JSON object")
    claim = _claim_of(document.get("claim"))
    _expect(claim.token == path.stem, "its token is not its name")
    rows = study.leases.rows(kind=claim.kind, number=claim.number)
    found = [row for row in rows if (row.token, row.attempt) == (claim.token, claim.attempt)]
    _expect(len(found) == 1, f"no attempt of study {study.name} has its token")
    end = _end_of(document.get("end"), len(study.directions))
    row = document.get("ledger_row")
    epochs = document.get("unreported")
    _expect(row is None or _is_integer(row), "its ledger_row is no number")
    _expect(
        isinstance(epochs, list) and all(map(_is_report, epochs)), "its unreported epochs are none"
    )
    journal = document.get("journal")
    return KeptEnd(
        claim, end, row, epochs, None if journal is None else _journal(study, store, journal)
    )


def _read_opened(path: Path) -> bool:
    """Whether a file of the pending folder is about a claim that was never confirmed, see :func:`keep_opened`.

    Raises:
        ValueError: It names another attempt than its own name does.
        OSError: It cannot be read.
    """
    document = read_json(path)
    if not isinstance(document, dict) or set(document) != {"opened"}:
        return False
    _expect(document["opened"] == path.stem, "its token is not its name")
    return True


def _claim_of(fields: Any) -> Claim:
    _expect(isinstance(fields, dict), "it names no claim")
    _expect(fields.get("kind") in KINDS, f"its kind is none of {', '.join(KINDS)}")
    _expect(
        _is_integer(fields.get("number")) and _is_integer(fields.get("attempt")),
        "its numbers are none",
    )
    _expect(isinstance(fields.get("token"), str), "it has no token")
    return Claim(
        AttemptKind(fields["kind"]),
        fields["number"],
        fields["attempt"],
        fields["token"],
        {},
        0,
        None,
    )


def _end_of(fields: Any, objectives: int) -> Ending:
    _expect(
        isinstance(fields, dict) and set(fields) <= set(Ending.__dataclass_fields__),
        "it has no end",
    )
    state = fields.get("state")
    result = fields.get("result")
    _expect(state in STATES, f"its state is none of {', '.join(STATES)}")
    for key in ("reason", "error"):
        _expect(isinstance(fields.get(key), str | None), f"its {key} is no text")
    _expect(isinstance(result, dict | None), "its result is none")
    if result is not None:
        _expect(result.get("state") == state, "its result is of another state")
        _expect(isinstance(result.get("reason"), str | None), "its result's reason is no text")
        values = result.get("values")
        counts = (
            isinstance(values, list) and len(values) == objectives and all(map(_is_number, values))
        )
        _expect(values is None or counts, "its values are none of this study's objectives")
    return Ending(**fields)


def _journal(study: Study, store: Path, relative: Any) -> Path:
    """A journal's path, of this study and nowhere else: what a file names is input."""
    _expect(isinstance(relative, str), "its journal is no path")
    _expect(is_inside(store, relative), "its journal lies outside of the store, or behind a link")
    path = inside(store, relative)
    own = path.is_relative_to(store / layout.study_folder(study.name)) and path.match(
        "journal*.jsonl"
    )
    _expect(own, "its journal is none of this study's")
    return path


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_report(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _is_integer(value[0])
        and _is_number(value[1])
    )


def _put_aside(path: Path, error: Exception) -> None:
    """Rename what cannot be written, so that it is not read again.

    It is kept for people to look at.
    """
    aside = path.with_name(f"{path.name}.unreadable")
    line = f"{path} is not what a worker kept ({line_of_error(error)})"
    try:
        path.rename(aside)
    except OSError as refused:
        to_stderr(f"{line}, and stays: {line_of_error(refused)}")
    else:
        to_stderr(
            f"{line}; put aside as {aside.name}, its trial is tried again when its lease has run out"
        )


def _write(study: Study, store: Path, kept: KeptEnd) -> None:
    _report(study, kept.claim, kept.unreported)
    accepted = record_end(DatabaseClient(study), kept.claim, kept.end, kept.ledger_row)
    if kept.journal is not None and not run_journals.has_ended(kept.journal):
        state, reason = (
            (kept.end.state, kept.end.reason)
            if accepted
            else (AttemptState.LOST, FailureReason.LOST)
        )
        run_journals.end(kept.journal, kept.claim.attempt, state, reason)


def _report(study: Study, claim: Claim, epochs: list[tuple[int, float]]) -> None:
    if claim.kind != AttemptKind.TRIAL or not epochs or len(study.directions) > 1:
        return
    storage = study.storage.optuna
    live = study.leases.rows(
        kind=AttemptKind.TRIAL, state=AttemptState.RUNNING, number=claim.number
    )
    if claim.token in {attempt.token for attempt in live}:
        trial = storage.get_trial_id_from_study_id_trial_number(study.id, claim.number)
        known = storage.get_trial(trial).intermediate_values
        for epoch, value in epochs:
            if epoch not in known:
                storage.set_trial_intermediate_value(trial, epoch, value)


def _folder(study: Study, store: Path) -> Path:
    return inside(store, layout.pending_folder(study.name))
