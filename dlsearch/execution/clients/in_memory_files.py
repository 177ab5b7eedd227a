"""The files of a study that lives in this process: for tests of a worker without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.execution import run_journals
from dlsearch.execution.attempt import trial_payload
from dlsearch.execution.messages import ScoringPayload
from dlsearch.study.states import AttemptKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dlsearch.execution.messages import TrialPayload
    from dlsearch.execution.run_journals import JournalEnd
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import AttemptSummary
    from dlsearch.study.documents import StudyDocument
    from dlsearch.study.models import Claim


class InMemoryFiles:
    """The files of one study in one store. Every checkpoint stays.

    Args:
        document: The study's document, as its client was given it.
        store: Where to write.
        name: The study's name.
    """

    def __init__(
        self,
        document: StudyDocument,
        store: Path,
        *,
        name: str = "s",
    ) -> None:
        """Nothing is written yet."""
        self.document = document.plain
        self.typed = document
        self.name = name
        self._store = store
        #: Trials that have their final state, as a worker said it.
        self.ended: list[int] = []

    @property
    def store(self) -> Path:
        """Where to write."""
        return self._store

    def prepare(
        self, claim: Claim, before: Sequence[AttemptSummary]
    ) -> TrialPayload | ScoringPayload:
        """The payload of a claim's process; a scoring is given no training."""
        folder = self._store / run_journals.folder_of(self.name, claim)
        if claim.kind == AttemptKind.TEST:
            typed = self.typed
            return ScoringPayload(
                str(folder),
                typed.objectives,
                typed.directions,
                [],
                0,
            )
        return trial_payload(
            self,
            claim,
            [before],
            folder,
            {},
        )

    def begin_journal(self, claim: Claim, holder: Holder) -> Path | None:
        """Open the journal of an attempt; None where it has no run of its own."""
        return run_journals.begin(self, claim, holder, self._store)

    def open_journals(self, ended: Sequence[AttemptSummary]) -> list[JournalEnd]:
        """None: no other worker can reach this study."""
        return []

    def open_journals_of_the_dead(self) -> list[JournalEnd]:
        """None: no other worker can reach this study."""
        return []

    def trial_has_ended(self, number: int) -> None:
        """Note it."""
        self.ended.append(number)

    def close_round(self) -> None:
        """There is nothing to write: the client keeps what the round showed."""
