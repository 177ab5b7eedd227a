"""What is open is found without reading what is finished; in Optuna's table of trials too."""

from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Create both indexes, unless version 2 of before Alembic did."""
    held = ["study", "state", "kind"]
    op.create_index("ix_dlsearch_attempt_held", "dlsearch_attempt", held, if_not_exists=True)
    op.create_index("ix_dlsearch_trials_state", "trials", ["study_id", "state"], if_not_exists=True)
