"""What one command holds while it searches or serves: passed along, never a module's own state.

Hydra calls a task function and tells nobody what a sweep came to. The task function of the command
is therefore an object, a :class:`SessionTask`, and the sweeper finds the session on it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlsearch.study.trial_secrets import TrialSecrets

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from dlsearch.app.view import View
    from dlsearch.execution.processes.forkserver import ForkServer


@dataclass(frozen=True)
class SearchOutcome:
    """What a search came to.

    Args:
        name: The study.
        storage_url: Its storage.
        store: Where it wrote.
        interrupted: Whether Ctrl-C ended it.
        failed: Whether the study is over and no trial completed.
        unscored: Why the winner has no test score, where its scoring failed.
        report: The folder of its report; None where none was written.
        shipped: Whether MLflow has everything.
    """

    name: str
    storage_url: str
    store: Path
    interrupted: bool
    failed: bool
    unscored: str | None
    report: Path | None
    shipped: bool


@dataclass
class Session:
    """One command of this process.

    Args:
        warm_server: The fork server of the search, while it serves. Workers that are forked from
            this process inherit the session, and use it.
        outcome: What the search came to, once it has ended.
        argv: The words of the command, as the study's record has them.
        view: What the search shows its user; the terminal where it is None.
        trial_secrets: What the trials of its study need and the database has masked. Workers that
            are forked from this process inherit them.
        fork_lock: Held around every fork of this process, and by whatever must not be in the
            middle of something then. Sessions that run at once in one process share one.
    """

    warm_server: ForkServer | None = None
    outcome: SearchOutcome | None = None
    argv: tuple[str, ...] = ()
    view: View | None = None
    trial_secrets: TrialSecrets = field(default_factory=TrialSecrets, repr=False)
    fork_lock: threading.Lock = field(default_factory=threading.Lock)


class SessionTask(ABC):
    """A task function of Hydra's that belongs to a session."""

    session: Session

    @abstractmethod
    def __call__(self, cfg: DictConfig) -> int:
        """Do what one composed config means; returns an exit code."""
