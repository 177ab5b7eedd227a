"""``hydra/launcher=local``: jobs of this machine in supervised, pinned processes. Imports nothing but Hydra.

Under our own sweeper there is one job, a worker that serves all slots (one fork server, one supervisor); a worker
that is killed is started again. Under any other sweeper every job is a training, and up to `workers` run at a time.
"""

from __future__ import annotations

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

from dlsearch.config.errors import AWAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hydra.types import HydraContext, TaskFunction

MAX_RESTARTS = 20
STOP_S = 9.0


@dataclass
class LocalLauncherConf:
    """The launcher's config."""

    _target_: str = "hydra_plugins.dlsearch_plugins.LocalLauncher"
    workers: Any = "auto"  # slots: GPUs × worker.slots_per_gpu, else cores / worker.threads


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="dlsearch")


class LocalLauncher(Launcher):
    """Runs jobs in forked processes.

    Args:
        workers: How many trials (or jobs) at a time; ``auto`` goes by GPUs, else by cores.
    """

    def __init__(self, workers: Any = "auto") -> None:
        """Called by Hydra."""
        self.workers = workers
        #: Entered around every fork, so that no other thread of this process is in the middle of something.
        self.fork_guard: AbstractContextManager[Any] = nullcontext()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what jobs need."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; returns when they have ended."""
        from dlsearch.search.slots import slots

        places = slots(self.workers, threads=None, accelerator="auto", key="hydra.launcher.workers")
        waiting = list(enumerate(job_overrides))
        returns: dict[int, JobReturn] = {}
        running: dict[int, tuple[int, Sequence[str], int]] = {}  # pid → (index, overrides, place)
        restarts = 0
        try:
            while waiting or running:
                free = [p for p in range(len(places)) if p not in {place for _, _, place in running.values()}]
                while waiting and free:
                    index, overrides = waiting.pop(0)
                    place = free.pop(0)
                    env = places[place].env if len(job_overrides) > 1 else {}
                    running[self._fork(initial_job_idx + index, overrides, env)] = (index, overrides, place)
                pid, status = _ended(running)
                if not pid:
                    time.sleep(0.05)
                    continue
                index, overrides, _ = running.pop(pid)
                code = os.waitstatus_to_exitcode(status)
                if code < 0 and restarts < MAX_RESTARTS and len(job_overrides) == 1:
                    restarts += 1
                    waiting.append((index, overrides))
                    continue
                fine = code in (0, AWAY, 130)  # 130: told to stop, and did
                done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED if fine else JobStatus.FAILED)
                done.return_value = code if fine else RuntimeError(f"job {index} ended with exit status {code}")
                returns[index] = done
        except BaseException:
            self._stop(list(running))
            raise
        return [returns[index] for index in sorted(returns)]

    def _fork(self, number: int, overrides: Sequence[str], env: dict[str, str]) -> int:
        sweep = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(sweep):
            sweep.hydra.job.id, sweep.hydra.job.num = str(number), number
        with self.fork_guard:
            pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver turns Ctrl-C into SIGTERM
            os.environ.update(env)
            done = run_job(
                hydra_context=self.hydra_context, task_function=self.task_function, config=sweep,
                job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
            )  # fmt: skip
            code = int(done.return_value or 0) if done.status is JobStatus.COMPLETED else 1
        finally:
            os._exit(code)

    def _stop(self, pids: list[int]) -> None:
        """Ask all jobs to end, then make them."""
        for number, patience in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 1.0)):
            for pid in pids:
                os.kill(pid, number)
            until = time.monotonic() + patience
            while pids and time.monotonic() < until:
                for pid in list(pids):
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        pids.remove(pid)
                time.sleep(0.02)


def _ended(pids: Iterable[int]) -> tuple[int, int]:
    """The first of our jobs that has ended, and its status; (0, 0) while all run.

    Other children of this process are not ours to reap.
    """
    for pid in pids:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return ended, status
    return 0, 0
