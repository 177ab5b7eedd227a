"""Lightning's logger over a journal. Imported by the process that trains, and by no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from dlsearch.core.types import Params
    from dlsearch.tracking.journal import Journal


class JournalLogger(Logger):
    """Writes what a LightningModule logs into a :class:`~dlsearch.tracking.journal.Journal`.

    The run's params and its status are its owner's: hyperparameters are those that the search
    chose, and how the run ended is known only after ``fit`` has returned.

    Args:
        journal: The run's journal, open.
    """

    def __init__(self, journal: Journal) -> None:
        """Write nothing yet."""
        super().__init__()
        self._journal = journal
        #: Whether rows are left out: those of a step that has written its own already
        self.muted = False

    @property
    def name(self) -> str:
        """The journal's name."""
        return self._journal.path.stem

    @property
    def version(self) -> str:
        """The folder that the journal stands in."""
        return self._journal.path.parent.name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._journal.path.parent)

    @property
    def experiment(self) -> Journal:
        """The journal, for code that asks a logger for what lies behind it."""
        return self._journal

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row at the trainer's global step."""
        if not self.muted:
            self._journal.metrics(metrics, step or 0)

    def log_hyperparams(
        self,
        params: Params | Namespace,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Nothing: the searched values and the config are recorded by the run's owner."""

    def save(self) -> None:
        """Flush.

        Lightning calls it after all that it logs, so an epoch's rows are out when the epoch ends.
        """
        self._journal.flush()

    def finalize(self, status: str) -> None:
        """Flush. A pruned trial arrives here as ``failed``, so no status is written."""
        self._journal.flush()
