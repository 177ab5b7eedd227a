"""What a worker writes into the journals of its runs.

How they begin, how they end, what the confirmation showed.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dlsearch.confirmation.rounds import Rounds, result_of
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.files.disk import is_full
from dlsearch.core.files.inside import inside, is_inside, plain
from dlsearch.core.machine.processes import ProcessState, state_of
from dlsearch.core.text import line_of_error
from dlsearch.records.confirmation import kept_folder
from dlsearch.storage.attempts import holder_of
from dlsearch.storage.availability import to_stderr
from dlsearch.storage.database import Attempt
from dlsearch.study.models import Claim, ConfirmClaim
from dlsearch.study.states import AttemptKind, AttemptState
from dlsearch.tracking import layout
from dlsearch.tracking.journal import Journal, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.confirmation.rounds import Round
    from dlsearch.core.types import JsonObject, Params
    from dlsearch.execution.study_files import NamedDocument
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import AttemptSummary
    from dlsearch.study.study import Study


#: After so long an attempt's journal is ended for a worker that cannot be seen, seconds.
UNSEEN_S = 60.0


def folder_of(study: str, claim: Claim) -> str:
    """Where a claim's files lie, relative to the store."""
    if isinstance(claim, ConfirmClaim):
        return layout.confirm_folder(study, claim.name)
    return layout.trial_folder(study, claim.number)


@dataclass(frozen=True)
class _RunHead:
    """What the run of an attempt is opened with.

    Args:
        kind: ``trial`` or ``replicate``.
        name: The run's name.
        parent: The journal of the run that it stands below.
        number: The trial's number; None for the default configuration where no trial ran it.
        params: Searched values.
        tags: Those that only runs of its kind have.
    """

    kind: str
    name: str
    parent: str
    number: int | None
    params: Params
    tags: dict[str, str] = field(default_factory=dict)


def begin(
    study: NamedDocument,
    claim: Claim,
    holder: Holder,
    store: Path,
) -> Path | None:
    """Open the journal of an attempt; its path, None where it has no run of its own."""
    if claim.kind == AttemptKind.TEST:
        return None
    document = study.document
    folder = inside(store, folder_of(study.name, claim))
    path = inside(store, folder / f"journal.a{claim.attempt}.jsonl")
    if isinstance(claim, ConfirmClaim):
        head = _head_of_replica(study, claim, store)
    else:
        head = _head_of_trial(study, claim)
    tags = {
        **layout.study_tags(document),
        layout.TRIAL_ATTEMPT: str(claim.attempt),
        layout.TRIAL_STATE: AttemptState.RUNNING,
        layout.TEST_EVALUATED: "false",
        layout.WORKER_ID: holder.worker,
        layout.WORKER_HOST: holder.host,
    }
    if not holder.device.startswith("cpu"):
        tags[layout.WORKER_GPU] = holder.device
    tags |= head.tags
    if head.number is not None:
        tags[layout.TRIAL_NUMBER] = str(head.number)
    journal = Journal(path)
    journal.open(
        head.kind,
        head.name,
        document["experiment"],
        head.parent,
        tags,
    )
    journal.params({f"hp/{name}": value for name, value in head.params.items()})
    journal.artifact(folder / "config.yaml", "")
    _datasets(journal, document, {"train": "train", "val": "validation"})
    journal.close()
    return path


def _head_of_trial(study: NamedDocument, claim: Claim) -> _RunHead:
    return _RunHead(
        kind="trial",
        name=layout.run_name(study.name, claim.number, claim.attempt),
        parent=f"{layout.study_folder(study.name)}/journal.jsonl",
        number=claim.number,
        params=claim.params,
    )


def _head_of_replica(
    study: NamedDocument,
    claim: ConfirmClaim,
    store: Path,
) -> _RunHead:
    finalist = claim.finalist
    tags = {
        layout.REPLICA_ROUND: str(claim.round),
        layout.REPLICA_SEED: str(claim.seed),
        layout.REPLICA_DEFAULT: str(finalist.default).lower(),
        layout.REPLICA_REFIT: str(claim.replica is None).lower(),
    }
    if claim.replica is not None:
        tags[layout.REPLICA_NUMBER] = str(claim.replica)
    return _RunHead(
        kind="replicate",
        name=layout.replica_run_name(study.name, claim.name, claim.attempt),
        parent=_parent(study, store),
        number=finalist.trial_number,
        params=finalist.params,
        tags=tags,
    )


def _parent(study: NamedDocument, store: Path) -> str:
    """The journal of the level-0 run that holds all replicas; opened by the first of them."""
    path = _parent_path(study, store)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with Journal(path) as journal:
            name = layout.confirm_run_name(study.name)
            journal.open(
                "confirm",
                name,
                study.document["experiment"],
                None,
                layout.study_tags(study.document),
            )
    return str(path.relative_to(store))


def _parent_path(study: NamedDocument, store: Path) -> Path:
    return inside(store, f"{layout.confirm_folder(study.name)}/journal.jsonl")


def _datasets(
    journal: Journal,
    document: Mapping[str, Any],
    contexts: Mapping[str, str],
) -> None:
    data = document.get("data", {})
    digests = data.get("digests", {})
    for split, context in contexts.items():
        if split in digests:
            name = data["name"]
            journal.dataset(name, digests[split], context, name)


@dataclass(frozen=True)
class JournalEnd:
    """What is to be written at the end of an attempt's journal.

    Args:
        path: The journal.
        attempt: Which try it is, from 1.
        state: How it ended.
        reason: Why.
        error: The same in a line.
    """

    path: Path
    attempt: int
    state: str
    reason: str | None
    error: str | None = None


def write_end(end: JournalEnd) -> None:
    """Close the journal of an attempt, with its log."""
    with Journal(end.path) as journal:
        tags = {layout.TRIAL_STATE: end.state}
        if end.reason:
            tags[layout.TRIAL_FAIL_REASON] = end.reason
        if end.error:
            tags[layout.TRIAL_FAIL_CAUSE] = end.error
        journal.tags(tags)
        log = end.path.parent / f"worker.a{end.attempt}.log"
        if log.is_file() and not log.is_symlink():
            journal.artifact(log, "logs")
        journal.status(layout.status_of(end.state))


class Ends:
    """How attempts ended, until it is written into their journals.

    Args:
        no_room: Told why something could not be written.
        say: Tells the user.
    """

    def __init__(
        self,
        no_room: Callable[[str], object],
        say: Callable[[str], object] = to_stderr,
    ) -> None:
        """Nothing is left to be written."""
        self._no_room = no_room
        self._say = say
        self.left: list[JournalEnd] = []

    def end_all(self, ends: Sequence[JournalEnd]) -> None:
        """End these journals, and those that wait for it."""
        self.left += ends
        self.write()

    def write(self) -> None:
        """End the journals of attempts that have ended.

        Those for which there is no space wait for it.
        """
        while self.left:
            end = self.left[0]
            try:
                write_end(end)
            except Exception as error:
                if is_full(error):
                    self._no_room(str(error))
                    return
                # Of this run alone: no other trial shall end for it.
                self._say(f"{end.path}: its run cannot be ended: {line_of_error(error)}")
            self.left.pop(0)


def left_open(
    study: Study,
    store: Path,
    ended: Sequence[Attempt | AttemptSummary],
) -> list[JournalEnd]:
    """The ends of those among the ended attempts whose journals lie here and were not ended."""
    found: list[JournalEnd] = []
    for attempt in ended:
        claim = claimed(study, attempt)
        if claim is None:
            continue
        name = f"{folder_of(study.name, claim)}/journal.a{attempt.attempt}.jsonl"
        if not is_inside(store, name):  # what lies behind a link is none of this store's
            continue
        path = inside(store, name)
        if path.is_file() and not has_ended(path):
            found.append(
                JournalEnd(
                    path,
                    attempt.attempt,
                    attempt.state,
                    attempt.reason,
                    getattr(attempt, "error", None),  # a summary has none
                )
            )
    return found


def of_the_dead(study: Study) -> list[Attempt]:
    """Ended attempts of this machine whose journals may lack their end, because its writer is dead.

    A worker tells the storage first and the journal then, so that of each slot the last attempt
    alone may lack it; and those that were lost with a worker, and that nobody here heard of.
    """
    host = socket.gethostname()
    mine = (
        Attempt.study == study.name,
        Attempt.host == host,
        Attempt.state != AttemptState.RUNNING,
    )
    last = sa.select(sa.func.max(Attempt.id)).where(*mine).group_by(Attempt.worker, Attempt.slot)
    lost = sa.select(Attempt.id).where(*mine, Attempt.state == AttemptState.LOST)
    with study.storage.begin() as connection:
        ids = set(connection.execute(last).scalars())
        ids.update(connection.execute(lost).scalars())
    found = study.leases.rows(ids=sorted(ids)) if ids else []
    with study.storage.begin() as connection:
        now = study.storage.now(connection)
    return [each for each in found if each.state == AttemptState.LOST or _is_left_alone(each, now)]


def _is_left_alone(attempt: Attempt, now: float) -> bool:
    """Whether the worker of an ended attempt writes no journal any more.

    A worker that cannot be seen from here has had a minute for it: another machine's that has this
    one's name, one of before a restart of the machine, or one in a container.
    """
    state = state_of(holder_of(attempt))
    if state in (ProcessState.HIDDEN, ProcessState.ELSEWHERE):
        return attempt.ended is not None and attempt.ended + UNSEEN_S < now
    return state is ProcessState.DEAD


def claimed(study: Study, attempt: Attempt | AttemptSummary) -> Claim | None:
    """What an attempt was at, as far as its folder goes.

    None for a scoring, and for a round that was given up.
    """
    kind = AttemptKind(attempt.kind)
    number = attempt.number
    if kind == AttemptKind.TRIAL:
        return Claim(
            kind=kind,
            number=number,
            attempt=attempt.attempt,
            token=attempt.token,
            params={},
            seed=0,
            trial_timeout_s=None,
        )
    now = Rounds(study).last() if kind != AttemptKind.TEST else None
    if now is None:
        return None
    about = now.of(attempt)
    if about["number"] is None and not about["default"]:
        return None
    wanted = (about["number"], about["default"])
    finalist = next(each for each in now.field if (each.trial_number, each.default) == wanted)
    return ConfirmClaim(
        kind=kind,
        number=number,
        attempt=attempt.attempt,
        token=attempt.token,
        params={},
        seed=0,
        trial_timeout_s=None,
        round=now.number,
        finalist=finalist,
        replica=about["replica"],
    )


def has_ended(path: Path) -> bool:
    """Whether a run's journal says how it ended."""
    is_ended = False
    for row in rows(path):
        if row["row"] == "open":
            is_ended = False
        elif row["row"] == "status":
            is_ended = True
    return is_ended


@dataclass(frozen=True)
class _Score:
    """What the test set showed of one training.

    Args:
        name: Of the training's folder.
        metrics: By name.
        step: Of the weights that were scored.
    """

    name: str
    metrics: Mapping[str, float]
    step: int


def close_round(study: Study, store: Path, now: Round) -> None:
    """Write what a finished round showed into the runs of those scored, and into their parent's.

    A run that was journalled on another machine is left alone: its journal is there. Their parent
    is one for all machines, and each of them says the same of it.
    """
    row = _last_of_round(study.ledger.documents(), now.number)
    winner = now.race.winner
    parent = store / _parent(study, store)
    if row is None or winner is None:
        with Journal(parent) as journal:
            journal.status(layout.FAILED)
        return
    kept = str(kept_folder(study, now)).rsplit("/", 1)[-1]
    for score in _scores_of(now, row):
        folder = plain(store, layout.confirm_folder(study.name, score.name))
        _write_score(study, folder, score, kept=score.name == kept)
    number = now.field[winner].trial_number
    opened_s = _opened_at(study, now.number)
    with Journal(parent) as journal:
        _take_up(journal)
        journal.metrics(
            {layout.OBJECTIVE: row["value"], **row["metrics"]},
            now.number,
            at_ms=round(1000 * opened_s),
        )
        journal.tags({layout.WINNER: "default" if number is None else str(number)})
        journal.status(layout.FINISHED)


def _last_of_round(documents: Sequence[JsonObject], number: int) -> JsonObject | None:
    """What the ledger says of a round's scoring; None where there was none."""
    for document in reversed(documents):
        if document.get("round") == number:
            return document
    return None


def _scores_of(now: Round, row: JsonObject) -> list[_Score]:
    """What was scored: the winner's replicas, and its training on train + validation."""
    winner = now.race.winner
    assert winner is not None
    trial_number = now.field[winner].trial_number
    found: list[_Score] = []
    for each in row["replicas"]:
        replica = each["replica"]
        name = layout.replica_name(now.round_of(winner, replica), trial_number, replica)
        step = now.result(winner, replica).get("best_step") or 0
        found.append(_Score(name, each["metrics"], step))
    if "refit" in row:
        step = result_of(now.refits).get("best_step") or 0
        found.append(
            _Score(
                f"r{now.number}-refit",
                row["refit"]["metrics"],
                step,
            )
        )
    return found


def _opened_at(study: Study, number: int) -> float:
    """When the test set was opened for a round, seconds since the epoch."""
    for row in reversed(study.ledger.rows()):
        if row["document"] and _round(row) == number:
            opened: float = row["opened"]
            return opened
    raise LookupError(f"the ledger has no opening for round {number}")


def _write_score(
    study: Study,
    folder: Path,
    score: _Score,
    *,
    kept: bool,
) -> None:
    found = folder.glob("journal.a*.jsonl")
    journals = sorted(found, key=lambda path: (len(path.name), path.name))
    if not journals:
        return
    with Journal(journals[-1]) as journal:
        _take_up(journal)
        journal.metrics(score.metrics, score.step)
        journal.tags({layout.TEST_EVALUATED: "true", layout.REPLICA_KEPT: str(kept).lower()})
        _datasets(journal, study.document, {"test": "test"})
        if kept:
            journal.model("winner", {})
        journal.status(layout.FINISHED)


def _round(row: Mapping[str, Any]) -> Any:
    return parse_json(row["document"], IN_DATABASE).get("round")


def _take_up(journal: Journal) -> None:
    """Have a run that has ended go on."""
    first = next(row for row in rows(journal.path) if row["row"] == "open")
    journal.open(
        first["kind"],
        first["name"],
        first["experiment"],
        first["parent"],
    )


def attach(path: Path, folder: Path) -> None:
    """Add a folder to a run's artifacts after the run has ended.

    Args:
        path: The run's journal.
        folder: Copied below the artifacts' root, under its own name.
    """
    with Journal(path) as journal:
        _take_up(journal)
        journal.artifact(folder, "")
        journal.status(_last_status(path))


def _last_status(path: Path) -> str:
    last: str = layout.FINISHED
    for row in rows(path):
        if row["row"] == "status":
            last = row["status"]
    return last
