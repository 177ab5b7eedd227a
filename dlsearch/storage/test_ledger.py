"""The test ledger: every opening of a test set, in order. Nothing is ever removed."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.storage.database import Storage, TestEvaluation


class Ledger:
    """The openings of test sets by one study.

    Args:
        storage: The open storage.
        study: The study's name; empty for a plain run.
    """

    def __init__(self, storage: Storage, study: str) -> None:
        """Nothing is read yet."""
        self.storage = storage
        self.study = study

    def opened(
        self,
        kind: str,
        number: int | None,
        seed: int,
        token: str | None = None,
    ) -> int:
        """Write the row before the test set is opened; returns its id.

        Args:
            kind: ``manual``, ``confirm`` or ``ensemble``.
            number: The trial's; None for the default configuration.
            seed: Of the training that is scored.
            token: Of this opening: written again with the same token, it stays one row.
        """
        try:
            with self.storage.begin() as connection:
                row_id = None
                if token:
                    row_id = connection.execute(_select_id(token)).scalar()
                if row_id is None:
                    insert = (
                        sa.insert(TestEvaluation)
                        .values(
                            study=self.study,
                            kind=kind,
                            number=number,
                            seed=seed,
                            token=token,
                            opened=self.storage.now(connection),
                        )
                        .returning(TestEvaluation.id)
                    )
                    row_id = connection.execute(insert).scalar_one()
        except sa.exc.IntegrityError:
            # The row was written meanwhile, by an earlier try whose answer was lost.
            with self.storage.begin() as connection:
                row_id = connection.execute(_select_id(token)).scalar_one()
        return int(row_id)

    def scored(self, row: int, document: dict[str, Any]) -> None:
        """Add what was seen to the row of an opening."""
        update = (
            sa.update(TestEvaluation)
            .where(TestEvaluation.id == row)
            .values(document=json.dumps(document))
        )
        with self.storage.begin() as connection:
            connection.execute(update)

    def documents(self) -> list[dict[str, Any]]:
        """What was seen, of those rows that have it, oldest first."""
        texts = [row["document"] for row in self.rows()]
        return [parse_json(text, IN_DATABASE) for text in texts if text]

    def rows(self) -> list[dict[str, Any]]:
        """All rows of the study, oldest first."""
        query = (
            sa.select(TestEvaluation)
            .where(TestEvaluation.study == self.study)
            .order_by(TestEvaluation.id)
        )
        with self.storage.begin() as connection:
            rows = connection.execute(query).mappings()
            return [dict(row) for row in rows]


def _select_id(token: str | None) -> sa.Select[int]:
    return sa.select(TestEvaluation.id).where(TestEvaluation.token == token)
