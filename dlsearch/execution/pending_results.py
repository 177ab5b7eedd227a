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
from dlsearch.execution.outcome import FENCED
from dlsearch.storage.availability import is_away, to_stderr
from dlsearch.study.models import Claim, Ending
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from dlsearch.core.types import JsonObject
    from dlsearch.execution.attempt import Running
    from dlsearch.study.client import AttemptSummary, StudyClient

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
    return record_end(
        client,
        claim,
        end,
        running.ledger_row,
    )


def report_epochs(client: StudyClient, running: Running) -> bool:
    """Report the epochs that are not reported yet; the pruner's verdict on the last."""
    report_late(client, running, but=1)
    epoch, value = running.unreported[0]
    if running.killed_for is FENCED:
        running.unreported.clear()
        return False
    prune = client.report(
        running.claim,
        epoch,
        value,
    )
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


def record_end(
    client: StudyClient,
    claim: Claim,
    end: Ending,
    ledger_row: int | None,
) -> bool:
    """Record how an attempt ended; False when it was not live any more.

    Every end comes through here, so here its text is made fit for the database.
    """
    end = end.cleaned()
    if end.result is not None:
        return client.finish(claim, end.result, ledger_row)
    if end.state is AttemptState.LOST:
        return client.lose(claim, end.error or "")
    return client.release(
        claim,
        end.reason or FailureReason.INTERRUPTED,
        error=end.error,
    )


class PendingResults:
    """The spool of one study in one store.

    Args:
        store: The store.
        study: The study's name.
    """

    def __init__(self, store: Path, study: str) -> None:
        """Nothing is kept, and nothing read."""
        self._store = store
        self._study = study

    def _folder(self) -> Path:
        return inside(self._store, layout.pending_folder(self._study))

    # -- keeping ----------------------------------------------------------------------------------
    def keep(
        self,
        claim: Claim,
        end: Ending,
        running: Running | None = None,
    ) -> None:
        """Keep the end of an attempt, with what its worker knows of it."""
        kept = KeptEnd(claim, end)
        if running is not None:
            kept = KeptEnd(
                claim,
                end,
                running.ledger_row,
                running.unreported,
                running.journal,
            )
        document = kept.to_json(self._store)
        self._write(claim.token, document)

    def keep_opened(self, tokens: Iterable[str]) -> None:
        """Keep the tokens of attempts whose claims were never confirmed.

        The database may have them or not: whether the commit arrived before the connection ended
        cannot be known now. The next worker takes them back.
        """
        for token in tokens:
            self._write(token, {"opened": token})

    def keep_all(self, running: dict[int, Running]) -> None:
        """Keep the ends of all, and that those were given back whose processes have not ended.

        None is left.
        """
        interrupted = Ending(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED)
        while running:
            slot, each = next(iter(running.items()))
            self.keep(each.claim, each.end or interrupted, each)
            del running[slot]

    def _write(self, token: str, document: JsonObject) -> None:
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / f"{token}.json", json.dumps(document))

    # -- writing what was kept --------------------------------------------------------------------
    def write_kept(self, client: StudyClient) -> None:
        """Write to the study what an earlier worker of this store kept. It is safe to repeat.

        A file that is not what it should be is put aside and said; the trial is mended by its
        lease, as ever.
        """
        for path in sorted(self._folder().glob("*.json")):
            try:
                if _read_opened(path):
                    client.forget_unconfirmed([path.stem])
                else:
                    _record_kept(client, self.read(client, path))
            except FileNotFoundError:  # another worker of this store has written it
                continue
            except Exception as error:
                if is_full(error) or is_away(error) or isinstance(error, DatabaseAwayError):
                    raise
                _put_aside(path, error)
            else:
                path.unlink(missing_ok=True)

    def read(self, client: StudyClient, path: Path) -> KeptEnd:
        """What a file of the pending folder says.

        Raises:
            ValueError: It was cut short, or is not what :meth:`keep` writes about an attempt of
                this study.
            OSError: It cannot be read.
        """
        document = read_json(path)
        _expect(isinstance(document, dict), "it is no JSON object")
        claim = _claim_of(document.get("claim"))
        _expect(claim.token == path.stem, "its token is not its name")
        attempts = client.attempts(kind=claim.kind, number=claim.number)
        found = [each for each in attempts if _is_at(each, claim)]
        _expect(len(found) == 1, f"no attempt of study {self._study} has its token")
        end = _end_of(document.get("end"), len(client.facts().directions))
        row = document.get("ledger_row")
        _expect(row is None or _is_integer(row), "its ledger_row is no number")
        epochs = document.get("unreported")
        _expect(_are_reports(epochs), "its unreported epochs are none")
        journal = document.get("journal")
        path_of_journal = None if journal is None else self._journal(journal)
        return KeptEnd(
            claim,
            end,
            row,
            epochs,
            path_of_journal,
        )

    def _journal(self, relative: Any) -> Path:
        """A journal's path, of this study and nowhere else: what a file names is input."""
        _expect(isinstance(relative, str), "its journal is no path")
        is_in_store = is_inside(self._store, relative)
        _expect(is_in_store, "its journal lies outside of the store, or behind a link")
        path = inside(self._store, relative)
        of_study = path.is_relative_to(self._store / layout.study_folder(self._study))
        _expect(of_study and path.match("journal*.jsonl"), "its journal is none of this study's")
        return path


@dataclass(frozen=True)
class KeptEnd:
    """The end of an attempt as it is kept.

    Args:
        claim: What was done.
        end: How it ended.
        ledger_row: Of the test set's opening.
        unreported: (epoch, first objective) that the storage has not heard of.
        journal: Of its run; None where it has none.
    """

    claim: Claim
    end: Ending
    ledger_row: int | None = None
    unreported: Sequence[tuple[int, float]] = ()
    journal: Path | None = None

    def to_json(self, store: Path) -> JsonObject:
        """As a file of the store has it."""
        claim = self.claim
        journal = None if self.journal is None else str(self.journal.relative_to(store))
        return {
            "claim": {
                "kind": claim.kind,
                "number": claim.number,
                "attempt": claim.attempt,
                "token": claim.token,
            },
            "end": self.end.to_json(),
            "ledger_row": self.ledger_row,
            "unreported": list(self.unreported),
            "journal": journal,
        }


def _read_opened(path: Path) -> bool:
    """Whether a file is about a claim that was never confirmed.

    See :meth:`PendingResults.keep_opened`.

    Raises:
        ValueError: It names another attempt than its own name does.
        OSError: It cannot be read.
    """
    document = read_json(path)
    if not isinstance(document, dict) or set(document) != {"opened"}:
        return False
    _expect(document["opened"] == path.stem, "its token is not its name")
    return True


def _record_kept(client: StudyClient, kept: KeptEnd) -> None:
    claim = kept.claim
    _report_kept(client, claim, kept.unreported)
    is_accepted = record_end(
        client,
        claim,
        kept.end,
        kept.ledger_row,
    )
    if kept.journal is None or run_journals.has_ended(kept.journal):
        return
    end = kept.end if is_accepted else Ending(AttemptState.LOST, FailureReason.LOST)
    journal_end = run_journals.JournalEnd(
        kept.journal,
        claim.attempt,
        end.state,
        end.reason,
        end.error,
    )
    run_journals.write_end(journal_end)


def _report_kept(
    client: StudyClient,
    claim: Claim,
    epochs: Sequence[tuple[int, float]],
) -> None:
    """Report the epochs of a trial that is still live; verdicts come too late."""
    if claim.kind != AttemptKind.TRIAL or not epochs:
        return
    attempts = client.attempts(kind=claim.kind, number=claim.number)
    live = {each.token for each in attempts if each.state is AttemptState.RUNNING}
    if claim.token in live:
        for epoch, value in epochs:
            client.report(claim, epoch, value)


# -- checking what a file says ---------------------------------------------------------------------
def _is_at(attempt: AttemptSummary, claim: Claim) -> bool:
    return attempt.token == claim.token and attempt.attempt == claim.attempt


def _claim_of(fields: Any) -> Claim:
    _expect(isinstance(fields, dict), "it names no claim")
    _expect(fields.get("kind") in KINDS, f"its kind is none of {', '.join(KINDS)}")
    are_numbers = _is_integer(fields.get("number")) and _is_integer(fields.get("attempt"))
    _expect(are_numbers, "its numbers are none")
    _expect(isinstance(fields.get("token"), str), "it has no token")
    return Claim(
        kind=AttemptKind(fields["kind"]),
        number=fields["number"],
        attempt=fields["attempt"],
        token=fields["token"],
        params={},
        seed=0,
        trial_timeout_s=None,
    )


def _end_of(fields: Any, n_objectives: int) -> Ending:
    has_end = isinstance(fields, dict) and set(fields) <= set(Ending.__dataclass_fields__)
    _expect(has_end, "it has no end")
    state = fields.get("state")
    _expect(state in STATES, f"its state is none of {', '.join(STATES)}")
    for key in ("reason", "error"):
        _expect(isinstance(fields.get(key), str | None), f"its {key} is no text")
    result = fields.get("result")
    _expect(isinstance(result, dict | None), "its result is none")
    if result is not None:
        _check_result(result, state, n_objectives)
    return Ending(**fields)


def _check_result(result: JsonObject, state: str, n_objectives: int) -> None:
    _expect(result.get("state") == state, "its result is of another state")
    _expect(isinstance(result.get("reason"), str | None), "its result's reason is no text")
    values = result.get("values")
    if values is not None:
        are_numbers = isinstance(values, list) and all(map(_is_number, values))
        fit = are_numbers and len(values) == n_objectives
        _expect(fit, "its values are none of this study's objectives")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_reports(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_report, value))


def _is_report(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    epoch, metric = value
    return _is_integer(epoch) and _is_number(metric)


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
        later = "its trial is tried again when its lease has run out"
        to_stderr(f"{line}; put aside as {aside.name}, {later}")
