"""The files of a study whose database this process reaches itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.execution import checkpoint_retention, run_journals
from dlsearch.execution.attempt import scoring_payload, trial_payload
from dlsearch.study.models import ConfirmClaim
from dlsearch.study.states import AttemptKind
from dlsearch.study.trial_secrets import NO_SECRETS, TrialSecrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlsearch.execution.clients.database import DatabaseClient
    from dlsearch.execution.messages import ScoringPayload, TrialPayload
    from dlsearch.execution.run_journals import JournalEnd
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import AttemptSummary
    from dlsearch.study.models import Claim


class DatabaseFiles:
    """The files of one study in one store.

    Args:
        client: The study; the thread that uses it uses these, too.
        store: Where this machine writes.
        paths: This machine's ``paths`` config.
        secrets: What the masks of the study's document hide.
    """

    def __init__(
        self,
        client: DatabaseClient,
        store: Path,
        paths: Mapping[str, str],
        secrets: TrialSecrets = NO_SECRETS,
    ) -> None:
        """Nothing is written yet."""
        self._client = client
        self._study = client.study
        self._rounds = client.rounds
        self._store = store
        self._paths = dict(paths)
        self._secrets = secrets
        self._keeper = checkpoint_retention.Keeper(client.study, store)

    @property
    def store(self) -> Path:
        """Where this machine writes."""
        return self._store

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
        folder = self._store / run_journals.folder_of(self._study.name, claim)
        if claim.kind == AttemptKind.TEST:
            return scoring_payload(
                self._rounds,
                folder,
                self._store,
                self._paths,
                self._secrets,
            )
        histories = [before]
        original = claim.finalist.trial_number if isinstance(claim, ConfirmClaim) else None
        if original is not None:
            histories.append(self._client.attempts(kind=AttemptKind.TRIAL, number=original))
        return trial_payload(
            self._study,
            claim,
            histories,
            folder,
            self._paths,
            self._secrets,
        )

    def begin_journal(self, claim: Claim, holder: Holder) -> Path | None:
        """Open the journal of an attempt; None where it has no run of its own."""
        return run_journals.begin(self._study, claim, holder, self._store)

    def open_journals(self, ended: Sequence[AttemptSummary]) -> list[JournalEnd]:
        """The ends of those among the ended attempts whose journals lie here and are open."""
        return run_journals.left_open(self._study, self._store, ended)

    def open_journals_of_the_dead(self) -> list[JournalEnd]:
        """The same, for attempts of this machine whose workers died before they wrote it."""
        return run_journals.left_open(
            self._study,
            self._store,
            run_journals.of_the_dead(self._study),
        )

    def trial_has_ended(self, number: int) -> None:
        """A trial has its final state: checkpoints go that are not kept.

        Raises:
            OutsideError: A folder of the study is a symbolic link.
        """
        self._keeper.ended(number)

    def close_round(self) -> None:
        """Once a round is over: what it showed goes to its runs, and one checkpoint is kept."""
        finished = self._rounds.close()
        if finished is not None:
            checkpoint_retention.close_round(
                self._study,
                self._store,
                finished,
            )
