"""Our tables.

A change here needs a migration in ``dlsearch/storage/migrations/versions``, and a new VERSION.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: The newest migration; a database with this version is opened without a look at migrations.
VERSION = "6"
#: Alembic's table.
VERSION_TABLE = "dlsearch_alembic_version"


class Base(DeclarativeBase):
    """Our tables."""


class Version(Base):
    """The schema's version, for programs of versions 1 and 2: they refuse newer databases by it."""

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
    # The budget, as the session set it that was opened last; since version 4.
    timeout_s: Mapped[float | None]
    trial_timeout_s: Mapped[float | None]
    target: Mapped[float | None]
    # The end of claiming, on the database's clock. None: the session that opens next sets it from
    # timeout_s and the seconds that are spent.
    deadline: Mapped[float | None]


class Attempt(Base):
    """One execution of a trial by one worker, whose lease ends at `lease_until`.

    Times are the database's clock's.
    """

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
    # Which process holds it, beside `pid`; since version 4, and None in what earlier ones wrote.
    # The boot and namespace in which `pid` is its number.
    pid_space: Mapped[str | None] = mapped_column(sa.String(128))
    # When the process began: a later one may have the same number.
    pid_born: Mapped[str | None] = mapped_column(sa.String(32))
    # Whether its parameters are known; since version 4.
    proposed: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    # What its proposal saw of the other trials, and the pruner's last verdict on it, as JSON of
    # dlsearch/study/seen.py; since version 5, and None where nothing was noted.
    seen: Mapped[str | None] = mapped_column(sa.Text)
    verdict: Mapped[str | None] = mapped_column(sa.Text)


class TestEvaluation(Base):
    """A row of the test ledger: one opening of a test set, written before it was opened."""

    __test__ = False  # pytest: this is a table
    __tablename__ = "dlsearch_test_evaluation"
    __table_args__ = (
        sa.Index("ix_dlsearch_test_evaluation_token", "token", unique=True),
        sa.Index("ix_dlsearch_test_evaluation_digest", "test_digest"),  # since version 6
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(sa.String(512), index=True)
    kind: Mapped[str] = mapped_column(sa.String(16))
    number: Mapped[int | None]
    # Below 2³², which PostgreSQL's INTEGER does not hold.
    seed: Mapped[int] = mapped_column(sa.BigInteger)
    opened: Mapped[float]
    document: Mapped[str | None] = mapped_column(sa.Text)
    # Of the opening, so that it is written once; since version 3.
    token: Mapped[str | None] = mapped_column(sa.String(32))
    # Of the test split that was opened, and of the study: another may have had its name. Both since
    # version 6, and None where they are not known.
    test_digest: Mapped[str | None] = mapped_column(sa.String(128))
    study_uuid: Mapped[str | None] = mapped_column(sa.String(32))


class RoundRow(Base):
    """A round of confirmation: its finalists, seeds and settings, and its outcome once it ended."""

    __tablename__ = "dlsearch_round"
    __table_args__ = (sa.UniqueConstraint("study", "round"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(sa.String(512), index=True)
    round: Mapped[int]
    opened: Mapped[float]
    finished: Mapped[float | None]
    document: Mapped[str] = mapped_column(sa.Text)
