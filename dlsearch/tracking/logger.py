"""Lightning's logger over a journal. Imported by the process that trains, and by no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger

from dlsearch.console.terminal import warn
from dlsearch.tracking.missing import Experiment, Missing

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
        #: What was asked for that other loggers have, in the order in which it was first asked for
        self.missing_calls: list[str] = []

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
    def log_dir(self) -> str:
        """The run's folder, under the name that TensorBoard's and CSV's loggers give it."""
        return self.save_dir

    @property
    def root_dir(self) -> str:
        """The run's folder."""
        return self.save_dir

    @property
    def experiment(self) -> Experiment:
        """The journal, for code that asks a logger for what lies behind it.

        What the experiments of other loggers can do, and a journal cannot, does nothing.
        """
        return Experiment(self._journal, self._miss)

    def __getattr__(self, name: str) -> Missing:
        """What other loggers have, and this one has not, as ``watch`` or ``log_image``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self._miss(name)

    def _miss(self, name: str) -> Missing:
        if name not in self.missing_calls:
            self.missing_calls.append(name)
            warn(f"logger.{name} is of another logger: here it does nothing", prefix="")
        return Missing(name)

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
