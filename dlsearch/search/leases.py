"""Attempts: who runs which trial until when. Every write is conditional on the attempt still being the holder's.

Nobody is taken for dead whom only the database could not hear. A lease runs out by the database's clock; but it is
reaped by somebody who has been in touch with the database himself, without a gap, for as long as a lease lasts: so
long had its holder, who asks at least every few seconds, the chance to renew it. Whoever comes fresh, or comes back
after an outage, a lock that was waited for, or a pause of his own, waits for so long first.
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dlsearch.search.database import Attempt, Storage, TestEvaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection

LIVE = "running"
#: A gap in the contact with the database that ends it, seconds, or half a lease if that is more.
GAP_S = 3.0
#: After a gap nobody is reaped for so long, or for a lease if that is more: see `outage.CAP_S` and the time-outs of
#: `schema.connection_arguments`, which say how soon a holder notices that the database is back.
HOLD_S = 5.0


@dataclass(frozen=True)
class Holder:
    """Who holds an attempt.

    Args:
        worker: The worker's name, unique over all machines.
        host: Its machine.
        pid: Its process there.
        slot: Which of its slots.
        device: What the slot is: ``cpu:0`` or a GPU's UUID.
    """

    worker: str
    host: str
    pid: int
    slot: int
    device: str


class Leases:
    """The attempts of one study.

    Args:
        storage: The open storage.
        study: The study's name.
        lease_s: How long an attempt lives without renewal, seconds.
    """

    def __init__(self, storage: Storage, study: str, lease_s: float) -> None:
        """Nothing is read yet."""
        self.storage, self.study, self.lease_s = storage, study, lease_s
        self._host = socket.gethostname()
        self._since, self._last = math.inf, -math.inf  # of this process's contact, by the database's clock
        #: The token of an attempt that was opened, and may or may not have been committed; see :meth:`forget`.
        self.unsure: str | None = None

    def _now(self, connection: Connection) -> float:
        """The database's clock, which is also a sign that one is in touch."""
        now = self.storage.now(connection)
        if not 0 <= now - self._last <= max(GAP_S, self.lease_s / 2):
            self._since = now
        self._last = now
        return now

    def broken(self) -> None:
        """Note that the database was away."""
        self._last = -math.inf

    def _may_reap(self, row: Any, now: float) -> bool:
        """Whether an attempt beyond its lease was silent, rather than not heard."""
        hold = max(HOLD_S, self.lease_s)
        if self._since + hold <= now or row.lease_until + self.storage.patience_s + hold < now:
            return True  # its worker would have been heard; or has given up since
        if row.host == self._host:
            return is_dead(row.pid)
        return self.storage.sqlite  # no file of this machine has been away from it

    def open(self, kind: str, number: int, holder: Holder) -> tuple[int, int, str]:
        """Start the next attempt at trial `number`; returns its id, ordinal and fencing token."""
        self.unsure = token = uuid.uuid4().hex
        with self.storage.begin() as connection:
            now = self._now(connection)
            before = connection.execute(
                sa.select(sa.func.max(Attempt.attempt)).where(
                    Attempt.study == self.study, Attempt.kind == kind, Attempt.number == number
                )
            ).scalar()
            ordinal = (before or 0) + 1
            row = connection.execute(
                sa.insert(Attempt)
                .values(
                    study=self.study, kind=kind, number=number, attempt=ordinal, token=token, state=LIVE,
                    worker=holder.worker, host=holder.host, pid=holder.pid, slot=holder.slot, device=holder.device,
                    started=now, lease_until=now + self.lease_s,
                )
                .returning(Attempt.id)
            ).scalar_one()  # fmt: skip
        return row, ordinal, token

    def forget(self) -> None:
        """Undo an attempt that was opened, where its commit stands and nobody heard of it: nothing came of it."""
        if self.unsure is not None:
            with self.storage.begin() as connection:
                connection.execute(sa.delete(Attempt).where(Attempt.token == self.unsure, Attempt.state == LIVE))

    def renew(self, tokens: Iterable[str], progress: dict[str, dict[str, Any]]) -> set[str]:
        """Extend live attempts, and note how far they are; returns those that are still live."""
        tokens = list(tokens)
        if not tokens:
            return set()
        with self.storage.begin() as connection:
            until = self._now(connection) + self.lease_s
            live = sa.update(Attempt).where(Attempt.token.in_(tokens), Attempt.state == LIVE)
            held = set(connection.execute(live.values(lease_until=until).returning(Attempt.token)).scalars())
            for token, value in progress.items():
                if token in held:
                    mine = sa.update(Attempt).where(Attempt.token == token)
                    connection.execute(mine.values(progress=json.dumps(value)))
        return held

    def overdue(self) -> bool:
        """Whether there is an attempt to reap; a look that keeps nobody waiting."""
        with self.storage.begin() as connection:
            now = self._now(connection)
            columns = sa.select(Attempt.lease_until, Attempt.host, Attempt.pid)
            held = columns.where(Attempt.study == self.study, Attempt.state == LIVE, Attempt.lease_until < now)
            return any(self._may_reap(row, now) for row in connection.execute(held).all())

    def close(
        self, token: str, state: str, *, reason: str | None, error: str | None, result: dict[str, Any] | None
    ) -> bool:
        """End an attempt; False when it was not live any more, and its result therefore does not count."""
        with self.storage.begin() as connection:
            now = self._now(connection)
            done = connection.execute(
                sa.update(Attempt)
                .where(Attempt.token == token, Attempt.state == LIVE)
                .values(state=state, reason=reason, error=error, ended=now, lease_until=now, result=_text(result))
            )
        return done.rowcount == 1

    def was_closed(
        self, token: str, state: str, *, reason: str | None, error: str | None, result: dict[str, Any] | None
    ) -> bool:
        """Whether an attempt ended just so: its holder wrote it before, and has not heard that it stands."""
        query = sa.select(Attempt.state, Attempt.reason, Attempt.error, Attempt.result).where(Attempt.token == token)
        with self.storage.begin() as connection:
            row = connection.execute(query).one_or_none()
        return row is not None and tuple(row) == (state, reason, error, _text(result))

    def expire(self, worker: str | None = None) -> list[Attempt]:
        """End as lost all attempts beyond their lease (or all of a worker known to be dead); returns them."""
        with self.storage.begin() as connection:
            now = self._now(connection)
            dead = Attempt.worker == worker if worker is not None else Attempt.lease_until < now
            where = (Attempt.study == self.study, Attempt.state == LIVE, dead)
            ids = []
            columns = sa.select(Attempt.id, Attempt.lease_until, Attempt.host, Attempt.pid)
            for row in connection.execute(columns.where(*where)).all():
                if worker is None and not self._may_reap(row, now):
                    continue
                ended = min(now, row.lease_until)
                done = connection.execute(
                    sa.update(Attempt)
                    .where(Attempt.id == row.id, *where)  # it may have been renewed since
                    .values(state="lost", reason="lost", ended=ended)
                )
                ids += [row.id] * done.rowcount
        return self.rows(ids=ids) if ids else []

    def live(self) -> list[Attempt]:
        """The attempts that are held now."""
        return self.rows(state=LIVE)

    def rows(
        self,
        *,
        ids: Sequence[int] | None = None,
        kind: str | None = None,
        state: str | None = None,
        number: int | None = None,
    ) -> list[Attempt]:
        """All attempts of the study, oldest first."""
        query = sa.select(Attempt).where(Attempt.study == self.study).order_by(Attempt.id)
        if ids is not None:
            query = query.where(Attempt.id.in_(ids))
        if kind is not None:
            query = query.where(Attempt.kind == kind)
        if state is not None:
            query = query.where(Attempt.state == state)
        if number is not None:
            query = query.where(Attempt.number == number)
        with self.storage.begin() as connection, sa.orm.Session(connection, expire_on_commit=False) as session:
            found = list(session.execute(query).scalars())
            session.expunge_all()
        return found

    def live_numbers(self, kind: str) -> set[int]:
        """The trials that have a live attempt."""
        query = sa.select(Attempt.number).where(
            Attempt.study == self.study, Attempt.state == LIVE, Attempt.kind == kind
        )
        with self.storage.begin() as connection:
            return set(connection.execute(query).scalars())


class Ledger:
    """Every opening of a test set, in order. Nothing is ever removed.

    Args:
        storage: The open storage.
        study: The study's name; empty for a plain run.
    """

    def __init__(self, storage: Storage, study: str) -> None:
        """Nothing is read yet."""
        self.storage, self.study = storage, study

    def opened(self, kind: str, number: int | None, seed: int, token: str | None = None) -> int:
        """Write the row before the test set is opened; returns its id.

        Args:
            kind: ``manual``, ``confirm`` or ``ensemble``.
            number: The trial's; None for the default configuration.
            seed: Of the training that is scored.
            token: Of this opening: written again under the same one, it stays one row.
        """
        query = sa.select(TestEvaluation.id).where(TestEvaluation.token == token)
        values = {"study": self.study, "kind": kind, "number": number, "seed": seed, "token": token}
        try:
            with self.storage.begin() as connection:
                found = connection.execute(query).scalar() if token else None
                if found is None:
                    row = sa.insert(TestEvaluation).values(**values, opened=self.storage.now(connection))
                    found = connection.execute(row.returning(TestEvaluation.id)).scalar_one()
        except sa.exc.IntegrityError:  # it was still on its way when we looked
            with self.storage.begin() as connection:
                found = connection.execute(query).scalar_one()
        return int(found)

    def scored(self, row: int, document: dict[str, Any]) -> None:
        """Add what was seen."""
        with self.storage.begin() as connection:
            connection.execute(
                sa.update(TestEvaluation).where(TestEvaluation.id == row).values(document=json.dumps(document))
            )

    def documents(self) -> list[dict[str, Any]]:
        """What was seen, of those rows that have it, oldest first."""
        return [json.loads(row["document"]) for row in self.rows() if row["document"]]

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the study, oldest first."""
        query = sa.select(TestEvaluation).where(TestEvaluation.study == self.study).order_by(TestEvaluation.id)
        with self.storage.begin() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]


def is_dead(pid: int | None) -> bool:
    """Whether a process of this machine is gone."""
    try:
        os.kill(pid or os.getpid(), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _text(result: dict[str, Any] | None) -> str | None:
    return json.dumps(result) if result is not None else None
