"""The ledger holds every seed, and an opening has a token.

By the token, an opening is found again whose commit was not confirmed.
"""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Widen the seeds where PostgreSQL made them INTEGER once, and add the token.

    Each step may have been done.
    """
    bind = op.get_bind()
    table = "dlsearch_test_evaluation"
    columns = {column["name"]: column["type"] for column in sa.inspect(bind).get_columns(table)}
    if bind.dialect.name == "postgresql" and not isinstance(columns["seed"], sa.BigInteger):
        op.alter_column(table, "seed", type_=sa.BigInteger)
    if "token" not in columns:
        op.add_column(table, sa.Column("token", sa.String(32)))
    op.create_index(
        "ix_dlsearch_test_evaluation_token",
        table,
        ["token"],
        unique=True,
        if_not_exists=True,
    )
    op.execute("DELETE FROM dlsearch_version")
    op.execute("INSERT INTO dlsearch_version (version) VALUES (3)")
