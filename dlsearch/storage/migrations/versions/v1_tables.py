"""The tables as they were first.

Each is made where it is absent: databases without Alembic's table have them.
"""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Create what is absent."""
    op.create_table(
        "dlsearch_version", sa.Column("version", sa.Integer, primary_key=True), if_not_exists=True
    )
    op.create_table(
        "dlsearch_study",
        sa.Column("name", sa.String(512), primary_key=True),
        sa.Column("uuid", sa.String(32), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("n_trials", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("finished", sa.Boolean, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "dlsearch_attempt",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study", sa.String(512), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("error", sa.Text),
        sa.Column("worker", sa.String(128), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("device", sa.String(128), nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("result", sa.Text),
        sa.UniqueConstraint("study", "kind", "number", "attempt"),
        if_not_exists=True,
    )
    for column in ("study", "state"):
        op.create_index(
            f"ix_dlsearch_attempt_{column}", "dlsearch_attempt", [column], if_not_exists=True
        )
    op.create_table(
        "dlsearch_test_evaluation",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study", sa.String(512), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("opened", sa.Double, nullable=False),
        sa.Column("document", sa.Text),
        if_not_exists=True,
    )
    op.create_table(
        "dlsearch_round",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study", sa.String(512), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("opened", sa.Double, nullable=False),
        sa.Column("finished", sa.Double),
        sa.Column("document", sa.Text, nullable=False),
        sa.UniqueConstraint("study", "round"),
        if_not_exists=True,
    )
    for table in ("dlsearch_test_evaluation", "dlsearch_round"):
        op.create_index(f"ix_{table}_study", table, ["study"], if_not_exists=True)
