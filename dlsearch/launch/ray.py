"""``hydra/launcher=ray``: jobs as tasks of a Ray cluster, as many as it holds. Imports only Hydra.

Under our own sweeper a job is a worker. Nodes may join and leave while the study runs: one that
joins gets a worker, and what a node that dies took with it is started again as soon as it fits on
another. Its trials are found by their leases.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError
from dlsearch.launch.remote import RemoteLauncher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from hydra.types import HydraContext, TaskFunction

    from dlsearch.core.types import JsonObject

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between two looks at the cluster's nodes
MAX_RESTARTS = 100
DONE = 0
FAILED = 1
INTERRUPTED = 130
AUTO = "auto"

#: Arguments of ``ray.remote`` by name.
RayOptions: TypeAlias = dict[str, Any]


class RayLauncher(Launcher, RemoteLauncher):
    """Runs jobs on a Ray cluster.

    Args:
        ray: ``init``, the arguments of ``ray.init``, and ``remote``, those of ``ray.remote``: what
            a worker takes of the cluster. The keys are those of Hydra's own launcher for Ray.
    """

    def __init__(self, ray: Mapping[str, Any]) -> None:
        """Called by Hydra."""
        given: Any = OmegaConf.to_container(ray, resolve=True) if OmegaConf.is_config(ray) else ray
        self.init: JsonObject = given["init"]
        self.remote: JsonObject = given["remote"]
        #: Whether the one job that is launched runs as often at a time as it fits.
        self.elastic = False

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

    def connect(self, *, elastic: bool) -> None:
        """Join the cluster, or start Ray on this machine.

        Args:
            elastic: Whether there are as many workers at each moment as fit.

        Raises:
            ConfigError: Ray is not installed, what a worker takes is no number, or there is no such
                cluster.
        """
        self.elastic = elastic
        self._need = need(self.remote)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                "hydra/launcher",
                "Ray is not installed",
                "pip install 'dlsearch[ray]'",
            ) from error
        if ray.is_initialized():
            return
        try:
            ray.init(**{"logging_level": "WARNING", "include_dashboard": False, **self.init})
        except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                "hydra.launcher.ray.init",
                line,
                "address=auto joins a cluster on this machine; "
                "one with a token asks for RAY_AUTH_MODE=token as well",
            ) from error

    def close(self) -> None:
        """Leave the cluster; what still runs there for us is ended by Ray."""
        import ray

        ray.shutdown()

    def launch_workers(
        self,
        overrides: Sequence[str],
        jobs: int,
        *,
        fork_guard: AbstractContextManager[Any],  # it forks nothing from this process
    ) -> Sequence[JobReturn]:
        """Run `jobs` workers; returns when all have ended."""
        return self.launch([list(overrides)] * jobs, initial_job_idx=0)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs; returns when they have ended."""
        self.connect(elastic=self.elastic)
        return _Jobs(
            self,
            [list(each) for each in job_overrides],
            initial_job_idx,
        ).run()

    def submit(
        self,
        overrides: list[str],
        number: int,
        node: Node | None,
    ) -> Any:
        """Hand a job to Ray; returns its reference.

        Args:
            overrides: Of its config.
            number: The job's.
            node: Where it runs, with all that the node has; None where it takes what was
                configured, anywhere.
        """
        import ray

        sweep = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(sweep):
            sweep.hydra.job.id = str(number)
            sweep.hydra.job.num = number
        task = ray.remote(**self._task_options(node))(_job)
        return task.remote(
            self.hydra_context,
            sweep,
            self.task_function,
            Singleton.get_state(),
        )

    def _task_options(self, node: Node | None) -> RayOptions:
        """Arguments of ``ray.remote`` for a job on `node`, or anywhere."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: RayOptions = dict(self.remote)
        options["max_retries"] = 0  # what is lost is started again by us, with what it knows
        if node is None:
            options["num_cpus"] = self._need["CPU"]
            options["num_gpus"] = self._need["GPU"]
        else:
            options["num_cpus"] = node.cpus
            options["num_gpus"] = node.gpus
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return options


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Args:
        id: Ray's name for it.
        cpus: Its cores, used or not.
        gpus: Its GPUs, used or not.
    """

    id: str
    cpus: float
    gpus: float

    def holds(self, need: Mapping[str, float]) -> int:
        """How many workers that take `need` fit on it."""
        has = {"CPU": self.cpus, "GPU": self.gpus}
        # 1e-9: ten tenths of a card are one card
        fits = [int(has[name] / need[name] + 1e-9) for name in has if need[name]]
        return min(fits, default=1)


def need(remote: Mapping[str, Any]) -> dict[str, float]:
    """What a worker takes: ``CPU`` and ``GPU``; empty where it takes a whole node.

    Raises:
        ConfigError: Something is no number.
    """
    given = {name: remote.get(f"num_{name.lower()}s", AUTO) for name in ("CPU", "GPU")}
    for name, value in given.items():
        if value != AUTO and value is not None:
            _check_number(f"hydra.launcher.ray.remote.num_{name.lower()}s", value)
    if all(value == AUTO for value in given.values()):
        return {}
    needed = {"CPU": 1.0, "GPU": 0.0}
    for name, value in given.items():
        if value not in (AUTO, None):
            needed[name] = float(value)
    return needed


def _check_number(key: str, value: Any) -> None:
    """Refuse what is no number of cores or GPUs that Ray can give."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or value < 0:
        raise ConfigError(
            key,
            f"expected auto or a number from 0, got {value!r}",
            f"{key}=1",
        )
    if value > 1 and value != int(value):
        raise ConfigError(
            key,
            f"above 1 it is a whole number, got {value!r}",
            f"{key}={int(value)}",
        )


def nodes() -> list[Node]:
    """The nodes that are alive and compute, in a fixed order."""
    import ray

    found = []
    for each in ray.nodes():
        resources = each["Resources"]
        if each["Alive"] and resources.get("CPU", 0.0) >= 1:
            found.append(
                Node(
                    each["NodeID"],
                    resources["CPU"],
                    resources.get("GPU", 0.0),
                )
            )
    return sorted(found, key=lambda node: node.id)


@dataclass(frozen=True)
class _Running:
    """A job that runs.

    Args:
        index: Which.
        node: Where, if that is fixed.
    """

    index: int
    node: str | None


@dataclass(frozen=True)
class _Return:
    """What Hydra learns of a job; they are returned by `place`."""

    place: int
    done: JobReturn


class _Jobs:
    """The jobs of one launch.

    An elastic launch has one job, which runs as often at a time as it fits on the cluster.

    Args:
        launcher: Submits them.
        overrides: Of each.
        first: The number of the first.
    """

    def __init__(
        self,
        launcher: RayLauncher,
        overrides: list[list[str]],
        first: int,
    ) -> None:
        self.launcher = launcher
        self.overrides = overrides
        self.first = first
        self.elastic = launcher.elastic and len(overrides) == 1
        self.need = need(launcher.remote)
        self.waiting = [] if self.elastic else list(range(len(overrides)))
        self.running: dict[Any, _Running] = {}  # by Ray's reference
        self.returns: list[_Return] = []
        self.refused: set[str | None] = set()  # nodes whose worker could not serve
        self.refusals = 0
        self.restarts = 0
        self.over = False
        self._has_warned = False
        self._looked_at = 0.0

    def run(self) -> list[JobReturn]:
        """Run all of them; returns when they have ended."""
        import ray

        while True:
            self._look_at_nodes()
            if self.running:
                ready, _ = ray.wait(
                    list(self.running),
                    num_returns=1,
                    timeout=LOOK_SECONDS / 2,
                )
                for reference in ready:
                    self._end(reference)
            elif self._nothing_left_to_do():
                in_order = sorted(self.returns, key=lambda each: each.place)
                return [each.done for each in in_order]
            else:
                self._wait_for_node()

    def _nothing_left_to_do(self) -> bool:
        may_start_more = self.elastic and not self.refusals
        return self.over or not (self.waiting or may_start_more)

    def _wait_for_node(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn("waiting for a node of the Ray cluster that holds a worker")
        time.sleep(LOOK_SECONDS / 4)

    def _look_at_nodes(self) -> None:
        """Every few seconds, submit the jobs that fit on the cluster now."""
        if self.over or time.monotonic() <= self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        if self.need and not self.elastic:
            self._submit_all()
        elif self.need:
            self._submit_while_they_fit()
        else:
            self._submit_to_free_nodes()

    def _submit_all(self) -> None:
        """A number of jobs was asked for: Ray keeps those that do not fit yet."""
        while self.waiting:
            self._submit(self.waiting.pop(0), None)

    def _submit_while_they_fit(self) -> None:
        capacity = sum(node.holds(self.need) for node in nodes()) - self.refusals
        for _ in range(capacity - len(self.running)):
            self._submit(0, None)

    def _submit_to_free_nodes(self) -> None:
        taken = {each.node for each in self.running.values()} | self.refused
        for node in nodes():
            if node.id in taken:
                continue
            if self.waiting:
                self._submit(self.waiting.pop(0), node)
            elif self.elastic:
                self._submit(0, node)

    def _submit(self, index: int, node: Node | None) -> None:
        begun = len(self.returns) + len(self.running) + self.restarts
        number = self.first + (begun if self.elastic else index)
        reference = self.launcher.submit(self.overrides[index], number, node)
        self.running[reference] = _Running(index, None if node is None else node.id)

    def _end(self, reference: Any) -> None:
        ended = self.running.pop(reference)
        index = ended.index
        done, code = self._result_of(reference, index)
        is_lost = code is None or (self.elastic and code == INTERRUPTED)
        if is_lost and not self.over and self.restarts < MAX_RESTARTS:
            logger.info(
                "job %d was lost and starts again",
                index,
                extra={"job": index},
            )
            self.restarts += 1
            if not self.elastic:
                self.waiting.append(index)
            return
        if self.elastic and code == DONE:
            # a worker leaves when nothing is left to do: a further one finds nothing either
            self.over = True
        elif self.elastic:
            self.refused.add(ended.node)
            self.refusals += 1
        place = len(self.returns) if self.elastic else index
        self.returns.append(_Return(place, done))

    def _result_of(self, reference: Any, index: int) -> tuple[JobReturn, int | None]:
        """What Hydra learns of a job that has ended, and its exit code; None where it was lost."""
        import ray

        code: int | None = FAILED
        try:
            done = ray.get(reference)
            if done.status is JobStatus.COMPLETED:
                code = done.return_value
        except ray.exceptions.RayTaskError as error:
            # before the job's own code began: nothing is installed, say
            done = JobReturn(overrides=self.overrides[index], status=JobStatus.FAILED)
            done.return_value = error.cause if isinstance(error.cause, Exception) else error
        except ray.exceptions.RayError as error:
            code = None
            line = (str(error).splitlines() or [type(error).__name__])[0]
            done = JobReturn(overrides=self.overrides[index], status=JobStatus.FAILED)
            done.return_value = RuntimeError(line)
        return done, code


def _job(
    hydra_context: HydraContext,
    sweep: DictConfig,
    task_function: TaskFunction,
    state: dict[Any, Any],
) -> JobReturn:
    """A job, in a process of Ray's."""
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(sweep)
    done = run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=sweep,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    answer = JobReturn(overrides=list(done.overrides or []), status=done.status)
    answer.return_value = done.return_value  # raises what the job raised
    return answer
