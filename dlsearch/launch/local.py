"""``hydra/launcher=local``: jobs of this machine in pinned processes. Imports only Hydra.

Under our own sweeper there is one job, a worker that serves all slots (one fork server, one
supervisor); a worker that is killed is started again. Under any other sweeper every job is a
training, and up to `workers` run at a time.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from dlsearch.console.streams import finish_output
from dlsearch.core.errors import AWAY
from dlsearch.core.retry import wait_until
from dlsearch.launch.base import JobPlace, SearchLauncher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hydra.types import HydraContext, TaskFunction

    from dlsearch.execution.resources.slots import Slot

logger = logging.getLogger(__name__)

MAX_RESTARTS = 20
POLL_SECONDS = 0.05
STOP_SECONDS = 9.0
KILL_SECONDS = 1.0
STOP_POLL_SECONDS = 0.02
INTERRUPTED = 130
#: Exit codes of a job that is no failure: it was asked to stop, or the database was away.
EXPECTED_CODES = (0, AWAY, INTERRUPTED)


@dataclass
class LocalLauncherConf:
    """The launcher's config."""

    _target_: str = "hydra_plugins.dlsearch_plugins.LocalLauncher"
    workers: Any = "auto"  # slots: GPUs × worker.slots_per_gpu, else cores / worker.threads


ConfigStore.instance().store(
    group="hydra/launcher",
    name="local",
    node=LocalLauncherConf,
    provider="dlsearch",
)


class LocalLauncher(Launcher, SearchLauncher):
    """Runs jobs in forked processes.

    Args:
        workers: How many trials (or jobs) at a time; ``auto`` goes by GPUs, else by cores.
    """

    slots_key = "hydra.launcher.workers"
    serves_all_slots = True

    def __init__(self, workers: Any = "auto") -> None:
        """Called by Hydra."""
        self.workers = workers
        self._fork_guard: AbstractContextManager[Any] = nullcontext()

    @property
    def job_place(self) -> JobPlace:
        """On this machine, below this process."""
        return JobPlace.HERE

    def slots_here(self, workers: int | None) -> Any:
        """``hydra.launcher.workers``."""
        return self.workers

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Keep what jobs need."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch_workers(
        self,
        overrides: Sequence[str],
        jobs: int,
        *,
        fork_guard: AbstractContextManager[Any],
    ) -> Sequence[JobReturn]:
        """Run `jobs` workers; returns when all have ended."""
        self._fork_guard = fork_guard
        return self.launch([list(overrides)] * jobs, initial_job_idx=0)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs; returns when they have ended."""
        from dlsearch.execution.resources.slots import slots

        places = slots(
            self.workers,
            threads=None,
            accelerator="auto",
            key=self.slots_key,
        )
        return _Jobs(self, job_overrides, initial_job_idx, places).run()

    def fork_job(
        self,
        number: int,
        overrides: Sequence[str],
        env: Mapping[str, str],
    ) -> int:
        """Fork a process that runs one job; returns its id.

        Args:
            number: The job's.
            overrides: Of its config.
            env: What pins it to its slot.
        """
        sweep = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(sweep):
            sweep.hydra.job.id = str(number)
            sweep.hydra.job.num = number
        with self._fork_guard:
            pid = os.fork()
        if pid == 0:
            self._run_in_child(sweep, env)
        return pid

    def _run_in_child(self, sweep: DictConfig, env: Mapping[str, str]) -> None:
        """Run the job, and end the process with its exit code."""
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search turns Ctrl-C into SIGTERM
            os.environ.update(env)
            done = run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=sweep,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            code = int(done.return_value or 0) if done.status is JobStatus.COMPLETED else 1
        finally:
            finish_output()
            os._exit(code)


@dataclass(frozen=True)
class _Job:
    """A job: its place among the others, and its overrides."""

    index: int
    overrides: Sequence[str]


class _Jobs:
    """The jobs of one launch, each in a process.

    Args:
        launcher: Forks them.
        job_overrides: Of each.
        first_number: The number of the first.
        slots: Where they run, one job in each at a time.
    """

    def __init__(
        self,
        launcher: LocalLauncher,
        job_overrides: Sequence[Sequence[str]],
        first_number: int,
        slots: Sequence[Slot],
    ) -> None:
        self._launcher = launcher
        self._first_number = first_number
        self._slots = slots
        self._waiting = [_Job(index, overrides) for index, overrides in enumerate(job_overrides)]
        self._is_alone = len(job_overrides) == 1
        self._running: dict[int, tuple[_Job, int]] = {}  # process id → the job, its slot
        self._returns: dict[int, JobReturn] = {}
        self._restarts = 0

    def run(self) -> list[JobReturn]:
        """Run all of them; returns when they have ended."""
        try:
            while self._waiting or self._running:
                self._start_in_free_slots()
                pid, status = _ended(self._running)
                if pid:
                    self._note_end(pid, os.waitstatus_to_exitcode(status))
                else:
                    time.sleep(POLL_SECONDS)
        except BaseException:
            _stop(list(self._running))
            raise
        return [self._returns[index] for index in sorted(self._returns)]

    def _start_in_free_slots(self) -> None:
        taken = {slot for _, slot in self._running.values()}
        free = [slot for slot in range(len(self._slots)) if slot not in taken]
        while self._waiting and free:
            job = self._waiting.pop(0)
            slot = free.pop(0)
            # a job that is alone is a worker, which has all slots
            env = {} if self._is_alone else self._slots[slot].env
            pid = self._launcher.fork_job(
                self._first_number + job.index,
                job.overrides,
                env,
            )
            self._running[pid] = (job, slot)

    def _note_end(self, pid: int, code: int) -> None:
        job, _ = self._running.pop(pid)
        was_killed = code < 0
        if was_killed and self._is_alone and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            logger.info(
                "job %d was killed by signal %d and starts again",
                job.index,
                -code,
                extra={"job": job.index, "job_pid": pid},
            )
            self._waiting.append(job)
            return
        self._returns[job.index] = _return_of(job, code)


def _return_of(job: _Job, code: int) -> JobReturn:
    """What Hydra learns of a job that has ended with `code`."""
    is_expected = code in EXPECTED_CODES
    status = JobStatus.COMPLETED if is_expected else JobStatus.FAILED
    done = JobReturn(overrides=job.overrides, status=status)
    failure = RuntimeError(f"job {job.index} ended with exit status {code}")
    done.return_value = code if is_expected else failure
    return done


def _ended(pids: Iterable[int]) -> tuple[int, int]:
    """The first of our jobs that has ended, and its status; (0, 0) while all run.

    Other children of this process are not ours to reap.
    """
    for pid in pids:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return ended, status
    return 0, 0


def _stop(pids: list[int]) -> None:
    """Ask all jobs to end, then kill those that have not."""
    _signal_and_wait(pids, signal.SIGTERM, STOP_SECONDS)
    _signal_and_wait(pids, signal.SIGKILL, KILL_SECONDS)


def _signal_and_wait(
    pids: list[int],
    number: signal.Signals,
    patience_s: float,
) -> None:
    """Send a signal to all jobs, and take those out of `pids` that end within `patience_s`."""

    def have_ended() -> bool:
        for pid in list(pids):
            if os.waitpid(pid, os.WNOHANG)[0]:
                pids.remove(pid)
        return not pids

    for pid in pids:
        os.kill(pid, number)
    wait_until(have_ended, timeout_s=patience_s, poll_s=STOP_POLL_SECONDS)
