"""The storage: Optuna's tables, and beside them ours for study records, attempts with leases, and the test ledger.

Optuna's :class:`~optuna.storages.RDBStorage` owns trials. What it does not have is here: who runs which attempt of
which trial until when (a lease with a fencing token), what was composed when the study was opened, and every look
at a test set. Both live in one database, so that one transaction log orders them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dlsearch.config.errors import ConfigError
from dlsearch.search.place import check_storage, mask, refuse_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION = 2


class Base(DeclarativeBase):
    """Our tables."""


class Version(Base):
    """The schema that wrote this database."""

    __tablename__ = "dlsearch_version"
    version: Mapped[int] = mapped_column(primary_key=True)


class StudyRow(Base):
    """The record of a study: what was composed when it was opened, as one JSON document."""

    __tablename__ = "dlsearch_study"
    name: Mapped[str] = mapped_column(sa.String(512), primary_key=True)
    uuid: Mapped[str] = mapped_column(sa.String(32))
    created: Mapped[float]
    n_trials: Mapped[int]
    seconds: Mapped[float] = mapped_column(default=0.0)
    finished: Mapped[bool] = mapped_column(default=False)
    document: Mapped[str] = mapped_column(sa.Text)


class Attempt(Base):
    """One try at one trial by one worker, alive until `lease_until` on the database's clock."""

    __tablename__ = "dlsearch_attempt"
    __table_args__ = (
        sa.UniqueConstraint("study", "kind", "number", "attempt"),
        sa.Index("ix_dlsearch_attempt_held", "study", "state", "kind"),  # since version 2
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(sa.String(512), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16), default="trial")  # or confirm, refit, test
    number: Mapped[int]
    attempt: Mapped[int]
    token: Mapped[str] = mapped_column(sa.String(32))
    state: Mapped[str] = mapped_column(sa.String(16), index=True)
    reason: Mapped[str | None] = mapped_column(sa.String(32))
    error: Mapped[str | None] = mapped_column(sa.Text)
    worker: Mapped[str] = mapped_column(sa.String(128))
    host: Mapped[str] = mapped_column(sa.String(255))
    pid: Mapped[int | None]
    slot: Mapped[int]
    device: Mapped[str] = mapped_column(sa.String(128))
    started: Mapped[float]
    ended: Mapped[float | None]
    lease_until: Mapped[float]
    progress: Mapped[str | None] = mapped_column(sa.Text)
    result: Mapped[str | None] = mapped_column(sa.Text)


class TestEvaluation(Base):
    """The ledger: a row for every time that a test set was opened, written before it was."""

    __test__ = False  # pytest: this is a table
    __tablename__ = "dlsearch_test_evaluation"
    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(sa.String(512), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    number: Mapped[int | None]
    seed: Mapped[int] = mapped_column(sa.BigInteger)  # below 2³², which PostgreSQL's INTEGER does not hold
    opened: Mapped[float]
    document: Mapped[str | None] = mapped_column(sa.Text)


class RoundRow(Base):
    """A round of confirmation: its finalists, seeds and settings, and, once it has one, its outcome."""

    __tablename__ = "dlsearch_round"
    __table_args__ = (sa.UniqueConstraint("study", "round"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(sa.String(512), index=True)
    round: Mapped[int]
    opened: Mapped[float]
    finished: Mapped[float | None]
    document: Mapped[str] = mapped_column(sa.Text)


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=60000")
    cursor.close()


class Storage:
    """An open storage. `rdb` is Optuna's view of it, `engine` ours.

    Args:
        url: ``sqlite:///path`` or ``postgresql+psycopg://…``.

    Raises:
        ConfigError: The database cannot be opened, or belongs to another program.
    """

    def __init__(self, url: str) -> None:
        """Open, and create what is missing."""
        self.url = url
        self._thread = threading.local()
        self.sqlite = url.startswith("sqlite")
        try:
            if self.sqlite:
                self.path = Path(make_url(url).database or "")
                self._prepare_sqlite()
                connect: dict[str, Any] = {"connect_args": {"timeout": 60}}
            else:
                connect = {"pool_pre_ping": True}
            with self._schema_lock():
                self.rdb = RDBStorage(url, engine_kwargs=connect)
                self.engine = self.rdb.engine
                if self.sqlite:
                    self.engine.dispose()  # its first connections were made untuned
                    sa.event.listen(self.engine, "connect", _tune_sqlite)
                self._create_tables()
        except (SQLAlchemyError, sqlite3.Error, OSError, ImportError, RuntimeError) as error:
            raise ConfigError("study.storage", f"cannot open {mask(url)}: {_first(error)}") from error
        self.optuna = self.fresh()

    def _prepare_sqlite(self) -> None:
        check_storage(self.url)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(self.path, timeout=60) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()

    def _create_tables(self) -> None:
        with self.engine.begin() as connection:
            if not self.sqlite:
                refuse_foreign(self.url, set(sa.inspect(connection).get_table_names()))
            Base.metadata.create_all(connection)
            version = connection.execute(sa.select(sa.func.max(Version.version))).scalar() or 0
            if version > SCHEMA_VERSION:
                raise ConfigError("study.storage", "was written by a newer dlsearch", "upgrade dlsearch")
            if version < SCHEMA_VERSION:
                _upgrade(connection)
            if not self.sqlite:
                _widen(connection)

    @contextmanager
    def _schema_lock(self) -> Iterator[None]:
        """Creation of the schema is serial: many first starts at once create one."""
        if self.sqlite:
            with _file_lock(self.path.with_name(f"{self.path.name}.lock")):
                yield
            return
        engine = sa.create_engine(self.url, pool_pre_ping=True, poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(7305801)"))
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(7305801)"))
        engine.dispose()

    @contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """The study's critical section: claiming, reaping, telling. Its holder's death releases it."""
        if self.sqlite:
            with _file_lock(self.path.with_name(f"{self.path.name}.lock")):
                yield
            return
        with self.engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(7305802, hashtext(:s))"), {"s": study})
            connection.commit()
            self._thread.locked = connection
            try:
                yield
            finally:
                self._thread.locked = None
                connection.execute(sa.text("SELECT pg_advisory_unlock(7305802, hashtext(:s))"), {"s": study})
                connection.commit()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that this thread writes meanwhile, by :meth:`begin` or by Optuna through `rdb`, stands, or nothing.

        Its own reads see it at once, others when it ends. What Optuna has cached in one that failed is void: see
        :meth:`fresh`.
        """
        locked: Connection | None = getattr(self._thread, "locked", None)
        with ExitStack() as stack:
            if locked is not None:  # the lock's own connection: each from the pool costs PostgreSQL a question
                stack.enter_context(locked.begin())
                connection = locked
            else:
                connection = stack.enter_context(self.engine.begin())
            self.rdb.remove_session()
            self.rdb.scoped_session(bind=connection, join_transaction_mode="rollback_only")
            self._thread.joined = connection
            try:
                yield
            finally:
                self._thread.joined = None
                self.rdb.remove_session()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction of its own; within :meth:`transaction`, that one."""
        joined: Connection | None = getattr(self._thread, "joined", None)
        if joined is not None:
            yield joined
            return
        with self.engine.begin() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """Seconds since the epoch on the database's clock: the one clock that all workers share."""
        if self.sqlite:
            return time.time()
        return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def fresh(self) -> optuna.storages.BaseStorage:
        """Optuna's view from now on, with nothing cached."""
        self.optuna = optuna.storages.get_storage(self.rdb)
        return self.optuna

    def close(self) -> None:
        """Close all connections; a fork must not inherit one."""
        self.rdb.remove_session()
        self.engine.dispose()


def _upgrade(connection: Connection) -> None:
    """Bring a database of any earlier version, or a new one, to this one; run once, alone."""
    # Version 2: what is open is found without reading what is finished.
    for index in Base.metadata.tables["dlsearch_attempt"].indexes:
        index.create(connection, checkfirst=True)
    connection.execute(sa.text("CREATE INDEX IF NOT EXISTS ix_dlsearch_trials_state ON trials (study_id, state)"))
    connection.execute(sa.delete(Version))
    connection.execute(sa.insert(Version).values(version=SCHEMA_VERSION))


def _widen(connection: Connection) -> None:
    """Give the ledger's seeds the room that they had not in PostgreSQL; no new version, since older ones read both."""
    column = "table_schema = current_schema() AND table_name = 'dlsearch_test_evaluation' AND column_name = 'seed'"
    found = connection.execute(sa.text(f"SELECT data_type FROM information_schema.columns WHERE {column}")).scalar()
    if found == "integer":
        connection.execute(sa.text("ALTER TABLE dlsearch_test_evaluation ALTER COLUMN seed TYPE BIGINT"))


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _first(error: BaseException) -> str:
    return (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
