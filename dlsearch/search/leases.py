"""Attempts: who runs which trial until when. Every write is conditional on the attempt still being the holder's."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from dlsearch.search.database import Attempt, Storage, TestEvaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LIVE = "running"


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

    def open(self, kind: str, number: int, holder: Holder) -> tuple[int, int, str]:
        """Start the next attempt at trial `number`; returns its id, ordinal and fencing token."""
        token = uuid.uuid4().hex
        with self.storage.begin() as connection:
            now = self.storage.now(connection)
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

    def renew(self, tokens: Iterable[str], progress: dict[str, dict[str, Any]]) -> set[str]:
        """Extend live attempts, and note how far they are; returns those that are still live."""
        tokens = list(tokens)
        if not tokens:
            return set()
        with self.storage.begin() as connection:
            until = self.storage.now(connection) + self.lease_s
            live = sa.update(Attempt).where(Attempt.token.in_(tokens), Attempt.state == LIVE)
            held = set(connection.execute(live.values(lease_until=until).returning(Attempt.token)).scalars())
            for token, value in progress.items():
                if token in held:
                    mine = sa.update(Attempt).where(Attempt.token == token)
                    connection.execute(mine.values(progress=json.dumps(value)))
        return held

    def overdue(self) -> bool:
        """Whether an attempt has outlived its lease; a look that keeps nobody waiting."""
        with self.storage.begin() as connection:
            now = self.storage.now(connection)
            held = sa.select(Attempt.id).where(Attempt.study == self.study, Attempt.state == LIVE)
            return connection.execute(held.where(Attempt.lease_until < now).limit(1)).first() is not None

    def close(
        self, token: str, state: str, *, reason: str | None, error: str | None, result: dict[str, Any] | None
    ) -> bool:
        """End an attempt; False when it was not live any more, and its result therefore does not count."""
        with self.storage.begin() as connection:
            now = self.storage.now(connection)
            done = connection.execute(
                sa.update(Attempt)
                .where(Attempt.token == token, Attempt.state == LIVE)
                .values(
                    state=state, reason=reason, error=error, ended=now, lease_until=now,
                    result=json.dumps(result) if result is not None else None,
                )
            )  # fmt: skip
        return done.rowcount == 1

    def expire(self, worker: str | None = None) -> list[Attempt]:
        """End as lost all attempts beyond their lease (or all of a worker known to be dead); returns them."""
        with self.storage.begin() as connection:
            now = self.storage.now(connection)
            dead = Attempt.worker == worker if worker is not None else Attempt.lease_until < now
            where = (Attempt.study == self.study, Attempt.state == LIVE, dead)
            ids = []
            for row in connection.execute(sa.select(Attempt.id, Attempt.lease_until).where(*where)).all():
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

    def opened(self, kind: str, number: int | None, seed: int) -> int:
        """Write the row before the test set is opened; returns its id."""
        with self.storage.begin() as connection:
            return int(
                connection.execute(
                    sa.insert(TestEvaluation)
                    .values(study=self.study, kind=kind, number=number, seed=seed, opened=self.storage.now(connection))
                    .returning(TestEvaluation.id)
                ).scalar_one()
            )

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
