"""A row of the test ledger says which data it opened, and for which study of its name."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from dlsearch.core.bounded import IN_DATABASE, parse_json

revision = "6"
down_revision = "5"

_STUDY = sa.table(
    "dlsearch_study",
    sa.column("name"),
    sa.column("uuid"),
    sa.column("created"),
    sa.column("document"),
)
_LEDGER = sa.table(
    "dlsearch_test_evaluation",
    sa.column("study"),
    sa.column("opened"),
    sa.column("test_digest"),
    sa.column("study_uuid"),
)
_INDEX = "ix_dlsearch_test_evaluation_digest"


def upgrade() -> None:
    """Add the columns, and fill in what the studies' documents know.

    Each step may have been done. Rows of plain runs, of studies whose data have no digest, and of
    studies that are gone stay without.
    """
    _add_column("test_digest", sa.String(128))
    _add_column("study_uuid", sa.String(32))
    op.create_index(_INDEX, "dlsearch_test_evaluation", ["test_digest"], if_not_exists=True)
    bind = op.get_bind()
    studies = sa.select(_STUDY.c.name, _STUDY.c.uuid, _STUDY.c.created, _STUDY.c.document)
    for name, uuid, created, document in bind.execute(studies).all():
        # What was opened before the study was made is of an earlier study of that name.
        is_its_own = sa.and_(
            _LEDGER.c.study == name,
            _LEDGER.c.opened >= created,
            _LEDGER.c.study_uuid.is_(None),
        )
        update = sa.update(_LEDGER).where(is_its_own)
        bind.execute(update.values(study_uuid=uuid, test_digest=_test_digest(document)))
    op.execute("DELETE FROM dlsearch_version")
    op.execute("INSERT INTO dlsearch_version (version) VALUES (6)")


def _add_column(name: str, kind: sa.String) -> None:
    columns = sa.inspect(op.get_bind()).get_columns("dlsearch_test_evaluation")
    if name not in {column["name"] for column in columns}:
        op.add_column("dlsearch_test_evaluation", sa.Column(name, kind))


def _test_digest(document: str) -> str | None:
    """The digest of a study's test split; None where its data have none."""
    found: Any = parse_json(document, IN_DATABASE)
    for key in ("data", "digests", "test"):
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    if isinstance(found, str) and 0 < len(found) <= 128:
        return found
    return None
