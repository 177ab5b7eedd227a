"""A study's row has its budget; an attempt has the process of its holder.

An attempt has also whether its parameters are known.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from dlsearch.config.compose import seconds
from dlsearch.core.bounded import IN_DATABASE, parse_json

revision = "4"
down_revision = "3"

_STUDY = sa.table(
    "dlsearch_study",
    sa.column("name"),
    sa.column("document"),
    sa.column("timeout_s"),
    sa.column("trial_timeout_s"),
    sa.column("target"),
)


def upgrade() -> None:
    """Add the columns, and take the budgets from the studies' documents.

    Each step may have been done.
    """
    _add("dlsearch_study", "timeout_s", sa.Double)
    _add("dlsearch_study", "trial_timeout_s", sa.Double)
    _add("dlsearch_study", "target", sa.Double)
    _add("dlsearch_study", "deadline", sa.Double)
    _add("dlsearch_attempt", "pid_space", sa.String(128))
    _add("dlsearch_attempt", "pid_born", sa.String(32))
    _add(
        "dlsearch_attempt",
        "proposed",
        sa.Boolean,
        nullable=False,
        server_default=sa.true(),
    )
    bind = op.get_bind()
    for name, document in bind.execute(sa.select(_STUDY.c.name, _STUDY.c.document)).all():
        settings = parse_json(document, IN_DATABASE)["config"]["study"]
        bind.execute(sa.update(_STUDY).where(_STUDY.c.name == name).values(_budgets(settings)))
    op.execute("DELETE FROM dlsearch_version")
    op.execute("INSERT INTO dlsearch_version (version) VALUES (4)")


def _add(table: str, column: str, kind: Any, **options: Any) -> None:
    columns = sa.inspect(op.get_bind()).get_columns(table)
    if column not in {each["name"] for each in columns}:
        op.add_column(table, sa.Column(column, kind, **options))


def _budgets(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "timeout_s": seconds(settings.get("timeout"), "study.timeout"),
        "trial_timeout_s": seconds(settings.get("trial_timeout"), "study.trial_timeout"),
        "target": settings.get("target"),
    }
