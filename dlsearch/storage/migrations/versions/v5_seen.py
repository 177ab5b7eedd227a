"""An attempt has what its proposal saw, and the last verdict of the pruner on it."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Add the columns; those that were claimed before say nothing. Each step may have been done."""
    _add_text_column("seen")
    _add_text_column("verdict")
    op.execute("DELETE FROM dlsearch_version")
    op.execute("INSERT INTO dlsearch_version (version) VALUES (5)")


def _add_text_column(name: str) -> None:
    columns = sa.inspect(op.get_bind()).get_columns("dlsearch_attempt")
    if name not in {column["name"] for column in columns}:
        op.add_column("dlsearch_attempt", sa.Column(name, sa.Text))
