"""Attempts and their leases: which holder runs which trial, and until when.

Every write is conditional on the fencing token: it succeeds only while the attempt is live and
still its holder's.

A holder that only the database could not hear is not taken for dead. A lease runs out by the
database's clock; but it is reaped by a process that has itself been in contact with the database,
without a gap, for as long as a lease lasts: its holder asks at least every few seconds, and had the
chance to renew it for as long. A process that has just started, or comes back after an outage, a
lock that it waited for, a pause of its own, or a machine's sleep, waits for as long first.

A holder on the same machine is looked at instead: one that is alive keeps what it holds, whatever
its lease says.
"""

from __future__ import annotations

import functools
import json
import math
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from dlsearch.core.machine.processes import ProcessIdentity, ProcessState, state_of
from dlsearch.storage.database import Attempt, Storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection

__all__ = ["LIVE", "Holder", "Leases", "OpenedAttempt", "holder_of"]

#: The state of an attempt that its holder has not ended.
LIVE = "running"
_LOST = "lost"
#: A gap in the contact with the database that ends it, seconds, or half a lease if that is more.
GAP_S = 3.0
#: After a gap nothing is reaped for so long, or for a lease if that is more: see
#: `availability.CAP_S` and the time-outs of `schema.connection_arguments`, which say how soon a
#: holder notices that the database is back.
HOLD_S = 5.0


@dataclass(frozen=True)
class Holder:
    """Who holds an attempt.

    Args:
        worker: The worker's name, unique over all machines.
        host: The name of its machine, for people to read: it does not identify the machine.
        pid: Its process there.
        slot: Which of its slots.
        device: What the slot is: ``cpu:0`` or a GPU's UUID.
        process: Which process that is; None where its lease alone decides whether it is alive.
    """

    worker: str
    host: str
    pid: int
    slot: int
    device: str
    process: ProcessIdentity | None = None


class OpenedAttempt(NamedTuple):
    """An attempt that was just opened.

    Args:
        id: Of its row.
        ordinal: Which attempt at its trial it is, from 1.
        token: Its fencing token.
    """

    id: int
    ordinal: int
    token: str


class Contact:
    """This process's contact with the database, by the database's clock.

    Args:
        lease_s: How long an attempt lives without renewal, seconds.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._unbroken_since = math.inf
        self._last = -math.inf
        #: When this process was in contact for the first time.
        self.first: float | None = None

    def note_answer(self, now: float) -> None:
        """Note that the database answered."""
        longest_gap = max(GAP_S, self._lease_s / 2)
        gap = now - self._last
        if not 0 <= gap <= longest_gap:
            self._unbroken_since = now
        self._last = now
        if self.first is None:
            self.first = now

    def note_outage(self) -> None:
        """Note that the database could not be reached."""
        self._last = -math.inf

    def hold_seconds(self) -> float:
        """For how long nothing is reaped after a gap, seconds."""
        return max(HOLD_S, self._lease_s)

    def is_long_enough(self, now: float) -> bool:
        """Whether a holder that lives would have been heard meanwhile."""
        return self._unbroken_since + self.hold_seconds() <= now

    def began_after(self, moment: float) -> bool:
        """Whether this process was in contact for the first time after a moment."""
        return self.first is not None and self.first > moment


@dataclass(frozen=True)
class _Statements:
    """What is written at every claim and every end.

    Args:
        insert: The next attempt at a trial, by the columns' names; returns what the database adds.
        end: Ends the live attempt of a token; returns the time.
    """

    insert: sa.Executable
    end: sa.Executable


@functools.cache
def _make_statements(is_sqlite: bool) -> _Statements:
    """The statements; the clock is an argument on SQLite, and the server's elsewhere."""
    clock: sa.ColumnElement[float] = sa.bindparam("clock", type_=sa.Double)
    if not is_sqlite:
        clock = sa.cast(
            sa.literal_column("extract(epoch FROM clock_timestamp())"),
            sa.Double,
        )
    last_ordinal = (
        sa.select(sa.func.coalesce(sa.func.max(Attempt.attempt), 0))
        .where(
            Attempt.study == sa.bindparam("its_study"),
            Attempt.kind == sa.bindparam("its_kind"),
            Attempt.number == sa.bindparam("its_number"),
        )
        .scalar_subquery()
    )
    insert = (
        sa.insert(Attempt)
        .values(
            attempt=last_ordinal + 1,
            started=clock,
            lease_until=clock + sa.bindparam("lease_s", type_=sa.Double),
        )
        .returning(Attempt.id, Attempt.attempt, Attempt.started)
    )
    end = (
        sa.update(Attempt)
        .where(Attempt.token == sa.bindparam("its_token"), Attempt.state == LIVE)
        .values(ended=clock, lease_until=clock)
        .returning(Attempt.ended)
    )
    return _Statements(insert, end)


class Leases:
    """The attempts of one study.

    Args:
        storage: The open storage.
        study: The study's name.
        lease_s: How long an attempt lives without renewal, seconds.
        patience_s: How long any worker of the study waits in an outage, seconds.
    """

    def __init__(
        self,
        storage: Storage,
        study: str,
        lease_s: float,
        patience_s: float = 0.0,
    ) -> None:
        """Nothing is read yet."""
        self.storage = storage
        self.study = study
        self.lease_s = lease_s
        self._patience_s = max(storage.patience_s, patience_s)
        self.contact = Contact(lease_s)
        self._statements = _make_statements(storage.sqlite)
        #: Tokens of attempts that were opened, and may be in the database although nothing came of
        #: them; see :meth:`forget`.
        self.unsure: set[str] = set()

    def broken(self) -> None:
        """Note that the database could not be reached."""
        self.contact.note_outage()

    def _read_clock(self, connection: Connection) -> float:
        """The database's clock; its answer is also a sign of contact."""
        now = self.storage.now(connection)
        self.contact.note_answer(now)
        return now

    # -- opening -----------------------------------------------------------------------------------
    def open(
        self,
        kind: str,
        number: int,
        holder: Holder,
        *,
        proposed: bool = True,
    ) -> OpenedAttempt:
        """Start the next attempt at trial `number`; returns its id, ordinal and fencing token.

        Args:
            kind: ``trial``; ``confirm``, ``refit`` or ``test``.
            number: The trial's, or the replica's.
            holder: Who holds it.
            proposed: Whether its parameters are known; else :meth:`propose` notes it.
        """
        token = uuid.uuid4().hex
        self.unsure.add(token)
        process = holder.process
        arguments = {
            "study": self.study,
            "kind": kind,
            "number": number,
            "token": token,
            "state": LIVE,
            "worker": holder.worker,
            "host": holder.host,
            "pid": holder.pid,
            "slot": holder.slot,
            "device": holder.device,
            "proposed": proposed,
            "pid_space": None if process is None else process.space,
            "pid_born": None if process is None else process.born,
            "its_study": self.study,
            "its_kind": kind,
            "its_number": number,
            "lease_s": self.lease_s,
        }
        with self.storage.begin() as connection:
            found = connection.execute(self._statements.insert, arguments | self._clock()).one()
        self.contact.note_answer(found.started)
        return OpenedAttempt(found.id, found.attempt, token)

    def _clock(self) -> dict[str, float]:
        """The database's clock as an argument, where a statement does not ask for it itself."""
        if self.storage.sqlite:
            return {"clock": time.time()}
        return {}

    def forget(self) -> None:
        """Undo attempts that were opened and came to nothing, where they are in the database."""
        if not self.unsure:
            return
        delete = sa.delete(Attempt).where(
            Attempt.token.in_(self.unsure),
            Attempt.state == LIVE,
        )
        with self.storage.begin() as connection:
            connection.execute(delete)

    def propose(self, token: str, seen: str | None = None) -> bool:
        """Note that an attempt has its parameters.

        Args:
            token: The attempt's.
            seen: What the proposal saw of the other trials, as JSON; None where it is not known.

        Returns:
            False where it was lost or withdrawn meanwhile.
        """
        update = (
            sa.update(Attempt)
            .where(Attempt.token == token, Attempt.state == LIVE)
            .values(proposed=True, seen=seen)
        )
        with self.storage.begin() as connection:
            return connection.execute(update).rowcount == 1

    def withdraw(self, token: str) -> bool:
        """Take back an attempt without parameters, so that nothing is left of it.

        Returns:
            False where it has parameters.
        """
        delete = sa.delete(Attempt).where(
            Attempt.token == token,
            Attempt.state == LIVE,
            Attempt.proposed.is_(False),
        )
        with self.storage.begin() as connection:
            return connection.execute(delete).rowcount == 1

    def discard(self, token: str) -> None:
        """Remove an attempt at a trial that turned out to be a duplicate: none is made at it."""
        delete = sa.delete(Attempt).where(Attempt.token == token)
        with self.storage.begin() as connection:
            connection.execute(delete)

    # -- renewing ----------------------------------------------------------------------------------
    def renew(
        self,
        tokens: Iterable[str],
        progress: dict[str, dict[str, Any]],
    ) -> set[str]:
        """Extend the leases of live attempts, and note how far the attempts are.

        Args:
            tokens: Of the attempts.
            progress: What to note, by token.

        Returns:
            The tokens of those that are still live.
        """
        wanted = list(tokens)
        if not wanted:
            return set()
        with self.storage.begin() as connection:
            until = self._read_clock(connection) + self.lease_s
            extend = (
                sa.update(Attempt)
                .where(Attempt.token.in_(wanted), Attempt.state == LIVE)
                .values(lease_until=until)
                .returning(Attempt.token)
            )
            live = set(connection.execute(extend).scalars())
            for token, value in progress.items():
                if token in live:
                    note = (
                        sa.update(Attempt)
                        .where(Attempt.token == token)
                        .values(progress=json.dumps(value))
                    )
                    connection.execute(note)
        return live

    # -- ending ------------------------------------------------------------------------------------
    def close(
        self,
        token: str,
        state: str,
        *,
        reason: str | None,
        error: str | None,
        result: dict[str, Any] | None,
        verdict: str | None = None,
    ) -> bool:
        """End an attempt.

        Args:
            token: The attempt's.
            state: How it ended.
            reason: Why, where it is not obvious.
            error: One line of it.
            result: What counts of it.
            verdict: The pruner's last verdict on it, as JSON; None where there was none.

        Returns:
            False where it was not live any more, so that its result does not count.
        """
        arguments = {
            "its_token": token,
            "state": state,
            "reason": reason,
            "error": error,
            "result": _dump_result(result),
            "verdict": verdict,
        }
        with self.storage.begin() as connection:
            ended = connection.execute(self._statements.end, arguments | self._clock())
            ended_at = ended.scalar_one_or_none()
        if ended_at is None:
            return False
        self.contact.note_answer(ended_at)
        return True

    def was_closed(
        self,
        token: str,
        state: str,
        *,
        reason: str | None,
        error: str | None,
        result: dict[str, Any] | None,
    ) -> bool:
        """Whether an attempt ended with this result.

        Its holder wrote that before, and did not hear whether the commit succeeded.
        """
        columns = (Attempt.state, Attempt.reason, Attempt.error, Attempt.result)
        query = sa.select(*columns).where(Attempt.token == token)
        with self.storage.begin() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return False
        return tuple(row) == (state, reason, error, _dump_result(result))

    # -- reaping -----------------------------------------------------------------------------------
    def overdue(self) -> bool:
        """Whether there is an attempt to reap; a look that keeps no other process waiting."""
        with self.storage.begin() as connection:
            now = self._read_clock(connection)
            query = self._select_holders().where(Attempt.lease_until < now)
            rows = connection.execute(query).all()
            return any(self._may_reap(row, now) for row in rows)

    def expire(self, worker: str | None = None) -> list[Attempt]:
        """End as lost all attempts beyond their lease, and return them.

        Args:
            worker: A worker that is known to be dead: then all its attempts, whatever their lease.
        """
        lost_ids = []
        with self.storage.begin() as connection:
            now = self._read_clock(connection)
            is_due = Attempt.lease_until < now if worker is None else Attempt.worker == worker
            query = self._select_holders().where(is_due)
            for row in connection.execute(query).all():
                if worker is None and not self._may_reap(row, now):
                    continue
                update = (
                    sa.update(Attempt)
                    .where(Attempt.id == row.id)
                    # It may have been renewed since.
                    .where(Attempt.study == self.study, Attempt.state == LIVE, is_due)
                    .values(state=_LOST, reason=_LOST, ended=min(now, row.lease_until))
                )
                if connection.execute(update).rowcount:
                    lost_ids.append(row.id)
        if not lost_ids:
            return []
        return self.rows(ids=lost_ids)

    def _select_holders(self) -> sa.Select[int, float, int | None, str | None, str | None]:
        """Live attempts of the study, with what shows whether their holders are alive."""
        return sa.select(
            Attempt.id,
            Attempt.lease_until,
            Attempt.pid,
            Attempt.pid_space,
            Attempt.pid_born,
        ).where(Attempt.study == self.study, Attempt.state == LIVE)

    def _may_reap(
        self,
        row: Any,
        now: float,
    ) -> bool:
        """Whether the holder of an attempt beyond its lease is gone, rather than not heard."""
        holder = state_of(holder_of(row))
        if holder is ProcessState.DEAD:
            return True
        if holder is ProcessState.ALIVE:
            return False  # a holder that sleeps with its machine wakes with it
        if self.contact.is_long_enough(now):
            return True
        if holder is ProcessState.HIDDEN:
            return False  # the machine may have slept, and the holder with it
        gave_up_at = row.lease_until + self._patience_s + self.contact.hold_seconds()
        if self.contact.began_after(row.lease_until) and gave_up_at < now:
            return True
        # A file of this machine has no outages.
        return self.storage.sqlite

    # -- reading -----------------------------------------------------------------------------------
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
        """Attempts of the study, oldest first; all of them where nothing is given."""
        query = sa.select(Attempt).where(Attempt.study == self.study).order_by(Attempt.id)
        if ids is not None:
            query = query.where(Attempt.id.in_(ids))
        if kind is not None:
            query = query.where(Attempt.kind == kind)
        if state is not None:
            query = query.where(Attempt.state == state)
        if number is not None:
            query = query.where(Attempt.number == number)
        with (
            self.storage.begin() as connection,
            sa.orm.Session(connection, expire_on_commit=False) as session,
        ):
            found = list(session.execute(query).scalars())
            session.expunge_all()
        return found

    def live_numbers(self, kind: str) -> set[int]:
        """The trials that have a live attempt."""
        query = sa.select(Attempt.number).where(
            Attempt.study == self.study,
            Attempt.state == LIVE,
            Attempt.kind == kind,
        )
        with self.storage.begin() as connection:
            return set(connection.execute(query).scalars())


def holder_of(row: Any) -> ProcessIdentity | None:
    """The process that holds an attempt; None where it was not recorded, as before version 4."""
    if row.pid_space is None or row.pid is None:
        return None
    return ProcessIdentity(row.pid_space, row.pid, row.pid_born or "")


def _dump_result(result: dict[str, Any] | None) -> str | None:
    if result is None:
        return None
    return json.dumps(result)
