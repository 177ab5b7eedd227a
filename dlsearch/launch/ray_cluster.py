"""``hydra/launcher=ray``: jobs as tasks of a Ray cluster, as many as it holds at each moment. Imports Hydra alone.

Under our own sweeper a job is a worker. Nodes may join and leave while the study runs: one that joins gets a worker,
and what a node that dies took with it is started again as soon as there is room for it. Its trials are found by their
leases.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from dlsearch.config.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra.types import HydraContext, TaskFunction

LOOK_S = 2.0  # between two looks at the cluster's nodes
MAX_RESTARTS = 100
INTERRUPTED = 130
AUTO = "auto"


class RayLauncher(Launcher):
    """Runs jobs on a Ray cluster.

    Args:
        ray: ``init``, the arguments of ``ray.init``, and ``remote``, those of ``ray.remote``: what a worker takes of
            the cluster. The keys are those of Hydra's own launcher for Ray.
    """

    def __init__(self, ray: Mapping[str, Any]) -> None:
        """Called by Hydra."""
        given: Any = OmegaConf.to_container(ray, resolve=True) if OmegaConf.is_config(ray) else ray
        self.init: dict[str, Any] = given["init"]
        self.remote: dict[str, Any] = given["remote"]
        #: Whether the one job that is launched is to run as often as the cluster has room for it.
        self.elastic = False

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what jobs need."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def connect(self) -> None:
        """Join the cluster, or start Ray on this machine.

        Raises:
            ConfigError: Ray is not installed, what a worker takes is no number, or there is no such cluster.
        """
        self._need = need(self.remote)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError("hydra/launcher", "Ray is not installed", "pip install 'dlsearch[ray]'") from error
        if ray.is_initialized():
            return
        try:
            ray.init(**{"logging_level": "WARNING", "include_dashboard": False, **self.init})
        except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                "hydra.launcher.ray.init",
                line,
                "address=auto joins a cluster on this machine; one with a token asks for RAY_AUTH_MODE=token as well",
            ) from error

    def close(self) -> None:
        """Leave the cluster; what still runs there for us is ended by Ray."""
        import ray

        ray.shutdown()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; returns when they have ended."""
        self.connect()
        return _Jobs(self, [list(each) for each in job_overrides], initial_job_idx).run()

    def submit(self, overrides: list[str], number: int, node: Node | None) -> Any:
        """Hand a job to Ray; returns its reference.

        Args:
            overrides: Of its config.
            number: The job's.
            node: Where it runs, with all that the node has; None where it takes what was configured, anywhere.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        sweep = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(sweep):
            sweep.hydra.job.id, sweep.hydra.job.num = str(number), number
        others = {key: value for key, value in self.remote.items() if key not in ("num_cpus", "num_gpus")}
        options: dict[str, Any] = {
            **others,
            "max_retries": 0,
        }  # what is lost is started again by us, with what it knows
        if node is None:
            options |= {"num_cpus": self._need["CPU"], "num_gpus": self._need["GPU"]}
        else:
            options |= {"num_cpus": node.cpus, "num_gpus": node.gpus}
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node.id, soft=False)
        task = ray.remote(**options)(_job)
        return task.remote(self.hydra_context, sweep, self.task_function, Singleton.get_state())


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Args:
        id: Ray's name for it.
        cpus: It has, whoever uses them.
        gpus: Likewise.
    """

    id: str
    cpus: float
    gpus: float

    def holds(self, need: Mapping[str, float]) -> int:
        """How many workers that take `need` there is room for."""
        rooms = [int(has / need[name] + 1e-9) for name, has in (("CPU", self.cpus), ("GPU", self.gpus)) if need[name]]
        return min(rooms, default=1)


def need(remote: Mapping[str, Any]) -> dict[str, float]:
    """What a worker takes: ``CPU`` and ``GPU``; empty where it takes a whole node.

    Raises:
        ConfigError: Something is no number.
    """
    given = {name: remote.get(f"num_{name.lower()}s", AUTO) for name in ("CPU", "GPU")}
    for name, value in given.items():
        key = f"hydra.launcher.ray.remote.num_{name.lower()}s"
        if value == AUTO or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise ConfigError(key, f"expected auto or a number from 0, got {value!r}", f"{key}=1")
        if value > 1 and value != int(value):
            raise ConfigError(key, f"above 1 it is a whole number, got {value!r}", f"{key}={int(value)}")
    if all(value == AUTO for value in given.values()):
        return {}
    plain = {"CPU": 1.0, "GPU": 0.0}
    return {name: plain[name] if value in (AUTO, None) else float(value) for name, value in given.items()}


def nodes() -> list[Node]:
    """The nodes that are alive and compute, in a fixed order."""
    import ray

    alive = [each for each in ray.nodes() if each["Alive"]]
    found = [Node(each["NodeID"], *(each["Resources"].get(key, 0.0) for key in ("CPU", "GPU"))) for each in alive]
    return sorted((node for node in found if node.cpus >= 1), key=lambda node: node.id)


class _Jobs:
    """The jobs of one launch.

    Args:
        launcher: Submits them.
        overrides: Of each.
        first: The number of the first.
    """

    def __init__(self, launcher: RayLauncher, overrides: list[list[str]], first: int) -> None:
        self.launcher, self.overrides, self.first = launcher, overrides, first
        self.elastic, self.need = launcher.elastic and len(overrides) == 1, need(launcher.remote)
        self.waiting = [] if self.elastic else list(range(len(overrides)))
        self.running: dict[Any, tuple[int, str | None]] = {}  # reference → which job, on which node if that is fixed
        self.returns: list[tuple[int, JobReturn]] = []
        self.refused: set[str | None] = set()  # nodes whose worker could not serve
        self.refusals = self.restarts = 0
        self.over = self.said = False
        self.looked = 0.0

    def run(self) -> list[JobReturn]:
        import ray

        while True:
            if not self.over and time.monotonic() > self.looked + LOOK_S:
                self.looked = time.monotonic()
                self._fill()
            if self.running:
                for ready in ray.wait(list(self.running), num_returns=1, timeout=LOOK_S / 2)[0]:
                    self._end(ready)
            elif self.over or not (self.waiting or (self.elastic and not self.refusals)):
                return [done for _, done in sorted(self.returns, key=lambda pair: pair[0])]
            else:
                if not self.said:
                    self.said = True
                    sys.stderr.write("dlsearch: waiting for a node of the Ray cluster that holds a worker\n")
                time.sleep(LOOK_S / 4)

    def _fill(self) -> None:
        """Submit what there is room for; what there is none for too, where a number of jobs was asked for."""
        if self.need and not self.elastic:
            while self.waiting:
                self._submit(self.waiting.pop(0), None)
            return
        there = nodes()
        if self.need:
            room = sum(node.holds(self.need) for node in there) - self.refusals
            for _ in range(room - len(self.running)):
                self._submit(0, None)
            return
        taken = {node for _, node in self.running.values()} | self.refused
        for node in there:
            if node.id not in taken and (self.waiting or self.elastic):
                self._submit(self.waiting.pop(0) if self.waiting else 0, node)

    def _submit(self, index: int, node: Node | None) -> None:
        number = self.first + (index if not self.elastic else len(self.returns) + len(self.running) + self.restarts)
        reference = self.launcher.submit(self.overrides[index], number, node)
        self.running[reference] = (index, None if node is None else node.id)

    def _end(self, reference: Any) -> None:
        import ray

        index, node = self.running.pop(reference)
        try:
            done = ray.get(reference)
            code = done.return_value if done.status is JobStatus.COMPLETED else 1
        except ray.exceptions.RayTaskError as error:  # before the job's own code had a say: nothing is installed, say
            done, code = JobReturn(overrides=self.overrides[index], status=JobStatus.FAILED), 1
            done.return_value = error.cause if isinstance(error.cause, Exception) else error
        except ray.exceptions.RayError as error:
            done, code = JobReturn(overrides=self.overrides[index], status=JobStatus.FAILED), None
            done.return_value = RuntimeError((str(error).splitlines() or [type(error).__name__])[0])
        lost = code is None or (self.elastic and code == INTERRUPTED)
        if lost and not self.over and self.restarts < MAX_RESTARTS:
            self.restarts += 1
            if not self.elastic:
                self.waiting.append(index)
            return
        if self.elastic and code == 0:
            self.over = True  # a worker leaves when nothing is left to do: a further one finds nothing either
        elif self.elastic:
            self.refused.add(node)
            self.refusals += 1
        self.returns.append((len(self.returns) if self.elastic else index, done))


def _job(
    hydra_context: HydraContext, sweep: DictConfig, task_function: TaskFunction, state: dict[Any, Any]
) -> JobReturn:
    """A job, in a process of Ray's."""
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(sweep)
    done = run_job(
        hydra_context=hydra_context, task_function=task_function, config=sweep,
        job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
    )  # fmt: skip
    answer = JobReturn(overrides=list(done.overrides or []), status=done.status)
    answer.return_value = done.return_value  # raises what the job raised
    return answer
