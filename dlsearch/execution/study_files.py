"""What a worker writes into its store about a study: a seam beside that of the study's client.

Implementations: :class:`dlsearch.execution.clients.database_files.DatabaseFiles` for a study in a
database, :class:`dlsearch.execution.clients.in_memory_files.InMemoryFiles` for tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.execution.messages import ScoringPayload, TrialPayload
    from dlsearch.execution.run_journals import JournalEnd
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import AttemptSummary
    from dlsearch.study.documents import StudyDocument
    from dlsearch.study.models import Claim


class NamedDocument(Protocol):
    """A study, as far as its document goes."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def document(self) -> Mapping[str, Any]:
        """What was composed when it was opened."""
        ...

    @property
    def typed(self) -> StudyDocument:
        """The same, with its types."""
        ...


class StudyFiles(Protocol):
    """The files of one study in one store."""

    @property
    def store(self) -> Path:
        """Where this machine writes."""
        ...

    def prepare(
        self, claim: Claim, before: Sequence[AttemptSummary]
    ) -> TrialPayload | ScoringPayload:
        """The payload of a claim's process, but for its threads and its journal.

        Its config is put into the claim's folder.

        Args:
            claim: What is to be done; its folder exists.
            before: Earlier attempts at it.

        Raises:
            OSError: The disk is full, or the like.
        """
        ...

    def begin_journal(self, claim: Claim, holder: Holder) -> Path | None:
        """Open the journal of an attempt; None where it has no run of its own."""
        ...

    def open_journals(self, ended: Sequence[AttemptSummary]) -> list[JournalEnd]:
        """The ends of those among the ended attempts whose journals lie here and are open."""
        ...

    def open_journals_of_the_dead(self) -> list[JournalEnd]:
        """The same, for attempts of this machine whose workers died before they wrote it."""
        ...

    def trial_has_ended(self, number: int) -> None:
        """A trial has its final state: checkpoints go that are not kept.

        Raises:
            OutsideError: A folder of the study is a symbolic link.
        """
        ...

    def close_round(self) -> None:
        """Once a round is over: what it showed goes to its runs, and one checkpoint is kept."""
        ...
