"""What a worker writes into the journals of its runs.

How they begin, how they end, what the confirmation showed.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dlsearch.confirmation.rounds import Rounds, result_of
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.files.disk import is_full
from dlsearch.core.files.inside import inside, is_inside, plain
from dlsearch.core.processes import ProcessState, state_of
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
    from pathlib import Path

    from dlsearch.confirmation.rounds import Round
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


def begin(
    study: Study,
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
    tags = {
        **layout.study_tags(document),
        layout.TRIAL_ATTEMPT: str(claim.attempt),
        layout.TRIAL_STATE: AttemptState.RUNNING,
        layout.TEST_EVALUATED: "false",
        layout.WORKER_ID: holder.worker,
        layout.WORKER_HOST: holder.host,
        **({} if holder.device.startswith("cpu") else {layout.WORKER_GPU: holder.device}),
    }
    if isinstance(claim, ConfirmClaim):
        kind = "replicate"
        name = layout.replica_run_name(study.name, claim.name, claim.attempt)
        parent = _parent(study, store)
        number = claim.finalist.trial_number
        params = claim.finalist.params
        tags[layout.REPLICA_ROUND] = str(claim.round)
        tags[layout.REPLICA_SEED] = str(claim.seed)
        tags[layout.REPLICA_DEFAULT] = str(claim.finalist.default).lower()
        tags[layout.REPLICA_REFIT] = str(claim.replica is None).lower()
        if claim.replica is not None:
            tags[layout.REPLICA_NUMBER] = str(claim.replica)
    else:
        kind = "trial"
        name = layout.run_name(study.name, claim.number, claim.attempt)
        parent = f"{layout.study_folder(study.name)}/journal.jsonl"
        number = claim.number
        params = claim.params
    if number is not None:
        tags[layout.TRIAL_NUMBER] = str(number)
    journal = Journal(path)
    journal.open(kind, name, document["experiment"], parent, tags)
    journal.params({f"hp/{name}": value for name, value in params.items()})
    journal.artifact(folder / "config.yaml", "")
    _datasets(journal, document, {"train": "train", "val": "validation"})
    journal.close()
    return path


def _parent(study: Study, store: Path) -> str:
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


def _parent_path(study: Study, store: Path) -> Path:
    return inside(store, f"{layout.confirm_folder(study.name)}/journal.jsonl")


def _datasets(journal: Journal, document: Mapping[str, Any], contexts: Mapping[str, str]) -> None:
    digests = document.get("data", {}).get("digests", {})
    for split, context in contexts.items():
        if split in digests:
            journal.dataset(
                document["data"]["name"], digests[split], context, document["data"]["name"]
            )


def end(
    path: Path,
    attempt: int,
    state: str,
    reason: str | None,
) -> None:
    """Close the journal of an attempt, with its log."""
    with Journal(path) as journal:
        tags = {layout.TRIAL_STATE: state}
        if reason:
            tags[layout.TRIAL_FAIL_REASON] = reason
        journal.tags(tags)
        log = path.parent / f"worker.a{attempt}.log"
        if log.is_file() and not log.is_symlink():
            journal.artifact(log, "logs")
        journal.status(layout.status_of(state))


class Ends:
    """How attempts ended, until it is written into their journals.

    Args:
        study: The open study.
        store: This machine's.
        no_room: Told why something could not be written.
        say: Tells the user.
    """

    def __init__(
        self,
        study: Study,
        store: Path,
        no_room: Callable[[str], object],
        say: Callable[[str], object] = to_stderr,
    ) -> None:
        """Nothing is left to be written."""
        self.study = study
        self.store = store
        self._no_room = no_room
        self._say = say
        self.left: list[tuple[Path, int, str, str | None]] = []

    def lost(self, attempts: Sequence[Attempt | AttemptSummary]) -> None:
        """End those that were lost, where their journals lie in this store."""
        self.left += left_open(self.study, self.store, attempts)
        self.write()

    def write(self) -> None:
        """End the journals of attempts that have ended.

        Those for which there is no space wait for it.
        """
        while self.left:
            try:
                end(*self.left[0])
            except Exception as error:
                if is_full(error):
                    self._no_room(str(error))
                    return
                # Of this run alone: no other trial shall end for it.
                self._say(f"{self.left[0][0]}: its run cannot be ended: {line_of_error(error)}")
            self.left.pop(0)


def left_open(
    study: Study, store: Path, ended: Sequence[Attempt | AttemptSummary]
) -> list[tuple[Path, int, str, str | None]]:
    """The arguments of :func:`end` for those of the ended attempts whose journals lie here and were not ended."""
    found: list[tuple[Path, int, str, str | None]] = []
    for attempt in ended:
        claim = claimed(study, attempt)
        name = (
            None
            if claim is None
            else f"{folder_of(study.name, claim)}/journal.a{attempt.attempt}.jsonl"
        )
        # what lies behind a link is none of this store's
        if name is None or not is_inside(store, name):
            continue
        path = inside(store, name)
        if path.is_file() and not has_ended(path):
            found.append((path, attempt.attempt, attempt.state, attempt.reason))
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
        ids = sorted({*connection.execute(last).scalars(), *connection.execute(lost).scalars()})
    found = study.leases.rows(ids=ids) if ids else []
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
        return Claim(kind, number, attempt.attempt, attempt.token, {}, 0, None)
    now = Rounds(study).last() if kind != AttemptKind.TEST else None
    if now is None:
        return None
    about = now.of(attempt)
    if about["number"] is None and not about["default"]:
        return None
    finalist = next(
        f for f in now.field if (f.trial_number, f.default) == (about["number"], about["default"])
    )
    return ConfirmClaim(
        kind,
        number,
        attempt.attempt,
        attempt.token,
        {},
        0,
        None,
        now.number,
        finalist,
        about["replica"],
    )


def has_ended(path: Path) -> bool:
    """Whether a run's journal says how it ended."""
    last = [row["row"] for row in rows(path) if row["row"] in ("open", "status")][-1:]
    return last == ["status"]


def close_round(study: Study, store: Path, now: Round) -> None:
    """Write what a finished round showed into the runs of those that were scored, and into their parent's.

    A run that was journalled on another machine is left alone: its journal is there. Their parent
    is one for all machines, and each of them says the same of it.
    """
    row = next(
        (r for r in reversed(study.ledger.documents()) if r.get("round") == now.number), None
    )
    winner = now.race.winner
    parent = store / _parent(study, store)
    if row is None or winner is None:
        with Journal(parent) as journal:
            journal.status(layout.FAILED)
        return
    number = now.field[winner].trial_number
    kept = str(kept_folder(study, now)).rsplit("/", 1)[-1]
    found = [
        (layout.replica_name(now.number, number, r["replica"]), r["metrics"])
        for r in row["replicas"]
    ]
    steps = [now.result(winner, r["replica"]).get("best_step") or 0 for r in row["replicas"]]
    if "refit" in row:
        found.append((f"r{now.number}-refit", row["refit"]["metrics"]))
        steps.append(result_of(now.refits).get("best_step") or 0)
    for (name, metrics), step in zip(found, steps, strict=True):
        _score(
            study,
            plain(store, layout.confirm_folder(study.name, name)),
            metrics,
            step,
            kept=name == kept,
        )
    opened = next(
        r["opened"]
        for r in reversed(study.ledger.rows())
        if r["document"] and _round(r) == now.number
    )
    with Journal(parent) as journal:
        _take_up(journal)
        journal.metrics(
            {layout.OBJECTIVE: row["value"], **row["metrics"]},
            now.number,
            at_ms=round(1000 * opened),
        )
        journal.tags({layout.WINNER: "default" if number is None else str(number)})
        journal.status(layout.FINISHED)


def _round(row: Mapping[str, Any]) -> Any:
    return parse_json(row["document"], IN_DATABASE).get("round")


def _score(
    study: Study,
    folder: Path,
    metrics: Mapping[str, float],
    step: int,
    *,
    kept: bool,
) -> None:
    journals = sorted(folder.glob("journal.a*.jsonl"), key=lambda path: (len(path.name), path.name))
    if not journals:
        return
    with Journal(journals[-1]) as journal:
        _take_up(journal)
        journal.metrics(metrics, step)
        journal.tags({layout.TEST_EVALUATED: "true", layout.REPLICA_KEPT: str(kept).lower()})
        _datasets(journal, study.document, {"test": "test"})
        if kept:
            journal.model("winner", {})
        journal.status(layout.FINISHED)


def _take_up(journal: Journal) -> None:
    """Have a run that has ended go on."""
    first = next(row for row in rows(journal.path) if row["row"] == "open")
    journal.open(first["kind"], first["name"], first["experiment"], first["parent"])


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
    return next(
        (row["status"] for row in reversed(list(rows(path))) if row["row"] == "status"),
        layout.FINISHED,
    )
