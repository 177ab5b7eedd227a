"""Our tables. What changes here needs a migration in ``dlsearch/search/migrations/versions``, and a new VERSION."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: The newest migration; a database that says it is opened without a look at migrations.
VERSION = "3"
VERSION_TABLE = "dlsearch_alembic_version"


class Base(DeclarativeBase):
    """Our tables."""


class Version(Base):
    """The schema that wrote this database, for programs of versions 1 and 2: they refuse it by this number."""

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
    __table_args__ = (sa.Index("ix_dlsearch_test_evaluation_token", "token", unique=True),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(sa.String(512), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    number: Mapped[int | None]
    seed: Mapped[int] = mapped_column(sa.BigInteger)  # below 2³², which PostgreSQL's INTEGER does not hold
    opened: Mapped[float]
    document: Mapped[str | None] = mapped_column(sa.Text)
    token: Mapped[str | None] = mapped_column(sa.String(32))  # of the opening, so that it is written once; since 3


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
