"""The test ledger: every opening of a test set, in order. Nothing is ever removed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.storage.database import Storage, TestEvaluation

#: No digest is longer; one that is has been made by a data module of somebody's own.
_LONGEST_DIGEST = 128


def digest_of_test_split(data: Any) -> str | None:
    """The digest of the test split, as a data module describes its data.

    Args:
        data: What ``describe()`` returned, as a study's document holds it under ``data``.

    Returns:
        None where the data have no digest.
    """
    if not isinstance(data, Mapping):
        return None
    digests = data.get("digests")
    found = digests.get("test") if isinstance(digests, Mapping) else None
    if isinstance(found, str) and 0 < len(found) <= _LONGEST_DIGEST:
        return found
    return None


class Ledger:
    """The openings of test sets by one study, and those of its test set by all studies.

    Args:
        storage: The open storage.
        study: The study's name; empty for a plain run.
        uuid: The study's, for another one may have had its name; None for a plain run.
        test_digest: Of the test split that is opened; None where that is not known.
    """

    def __init__(
        self,
        storage: Storage,
        study: str,
        *,
        uuid: str | None = None,
        test_digest: str | None = None,
    ) -> None:
        """Nothing is read yet."""
        self.storage = storage
        self.study = study
        self.test_digest = test_digest
        self._uuid = uuid

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
                            test_digest=self.test_digest,
                            study_uuid=self._uuid,
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
        query = sa.select(TestEvaluation).where(self._is_own()).order_by(TestEvaluation.id)
        with self.storage.begin() as connection:
            rows = connection.execute(query).mappings()
            return [dict(row) for row in rows]

    def rows_of_test_set(self) -> list[dict[str, Any]] | None:
        """All openings of this test set in the storage, of whichever study; oldest first.

        Without what was seen. Rows of studies that are gone are among them. None where the test
        split has no digest, so that nothing can be said of others.
        """
        if self.test_digest is None:
            return None
        columns = (
            TestEvaluation.id,
            TestEvaluation.study,
            TestEvaluation.study_uuid,
            TestEvaluation.kind,
            TestEvaluation.opened,
            self._is_own().label("is_own"),
        )
        is_of_test_set = TestEvaluation.test_digest == self.test_digest
        is_own_of_old = sa.and_(self._is_own(), TestEvaluation.test_digest.is_(None))
        query = (
            sa.select(*columns)
            .where(sa.or_(is_of_test_set, is_own_of_old))
            .order_by(TestEvaluation.id)
        )
        with self.storage.begin() as connection:
            rows = connection.execute(query).mappings()
            return [dict(row) for row in rows]

    def _is_own(self) -> sa.ColumnElement[bool]:
        """Whether a row is this study's; those of earlier versions say its name alone."""
        is_of_name = TestEvaluation.study == self.study
        is_of_another = TestEvaluation.study_uuid != self._uuid
        is_known = TestEvaluation.study_uuid.is_not(None)
        return sa.and_(is_of_name, sa.not_(sa.and_(is_known, is_of_another)))


def _select_id(token: str | None) -> sa.Select[int]:
    return sa.select(TestEvaluation.id).where(TestEvaluation.token == token)
