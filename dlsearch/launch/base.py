"""What a search asks of the launcher that starts its workers. Imports nothing heavy.

Hydra's own interface has two methods, ``setup`` and ``launch``. A search needs to know more: how
many trials run at a time, whether a signal reaches the jobs, and whether they have machines of
their own. :class:`SearchLauncher` says so; each launcher of ours implements it, and
:mod:`dlsearch.launch.others` implements it for those that others wrote.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from dlsearch.study.study import Study


class JobPlace(StrEnum):
    """Where the jobs of a launcher run, as seen from the process of the search."""

    #: On this machine; a signal to the command, or its end, reaches them.
    HERE = "here"
    #: On this machine, in sessions of their own: no signal reaches them.
    DETACHED = "detached"
    #: On machines, or shares of machines, of their own.
    ELSEWHERE = "elsewhere"


class SearchLauncher(ABC):
    """A launcher as a search sees it: each job that it starts is a worker."""

    #: The config key with which a user sets the number of slots.
    slots_key = "study.workers"
    #: Whether one job, forked from this process, serves all slots of this machine.
    serves_all_slots = False

    @property
    @abstractmethod
    def job_place(self) -> JobPlace:
        """Where its jobs run."""

    @abstractmethod
    def launch_workers(
        self,
        overrides: Sequence[str],
        jobs: int,
        *,
        fork_guard: AbstractContextManager[Any],
    ) -> Sequence[JobReturn]:
        """Run `jobs` workers, each with the same `overrides`; returns when all have ended.

        Args:
            overrides: Of a worker's config.
            jobs: How many.
            fork_guard: Entered around every fork of this process, so that no other thread is in
                the middle of something.
        """

    @property
    def signals_reach_jobs(self) -> bool:
        """Whether a signal to the command, or its end, reaches the jobs."""
        return self.job_place is JobPlace.HERE

    @property
    def has_own_machines(self) -> bool:
        """Whether the jobs have machines, or shares of machines, of their own."""
        return self.job_place is JobPlace.ELSEWHERE

    def connect(self, *, elastic: bool) -> None:  # noqa: B027  # most have nothing to connect to
        """Reach whatever runs the jobs, before anything is written.

        Args:
            elastic: Whether there may be as many workers at each moment as fit.

        Raises:
            ConfigError: It is not there.
        """

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """Let go of what :meth:`connect` reached. A second time does nothing."""

    def slots_here(self, workers: int | None) -> Any:
        """Trials that run on this machine at a time: a number, or ``auto``.

        Args:
            workers: ``study.workers``.
        """
        return 1 if self.has_own_machines else workers or 1

    def slots_of_job(self, wanted: Any) -> Any:
        """``worker.slots`` of one job.

        With ``auto`` it takes all that its engine gives it, or one where jobs share a machine.

        Args:
            wanted: ``worker.slots`` of the command: a number, or ``auto``.
        """
        return 1 if wanted == "auto" and not self.has_own_machines else wanted

    def job_count(self, workers: int | None) -> int:
        """How many jobs are launched, for ``study.workers``."""
        return 1 if self.serves_all_slots else workers or 1

    def notices(self, storage_url: str, config: Mapping[str, Any]) -> list[str]:
        """What a user should know of a storage or a server that not every machine reaches."""
        if not self.has_own_machines:
            return []
        from dlsearch.launch.remote import notices

        return notices(storage_url, config)

    def new_session_word(self) -> str | None:
        """A word by which :meth:`recall` names the jobs of one search; None where signals do."""
        return None if self.signals_reach_jobs else uuid.uuid4().hex

    def recall(self, study: Study, session: str) -> None:
        """Have the jobs of `session` give their trials back and end."""
        from dlsearch.launch.remote import recall

        recall(study, session)

    def was_interrupted(
        self,
        returns: Sequence[JobReturn],
        is_done: Callable[[], bool],
        patience_s: float,
    ) -> bool:
        """Whether the jobs ended because they were asked to.

        Args:
            returns: Of :meth:`launch_workers`.
            is_done: Whether nothing is left of the study.
            patience_s: How long the workers waited for the database.

        Raises:
            DatabaseAwayError: It was away for longer.
            RuntimeError: No job served the study to its end.
        """
        from dlsearch.launch.ends import was_interrupted

        return was_interrupted(returns, is_done, patience_s)
