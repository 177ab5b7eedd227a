"""Launchers that others wrote (Hydra's basic, joblib, submitit), as a search sees them.

They have Hydra's interface and no more. Where their jobs run is known of the few that are listed
here, by the names of their modules; the jobs of any other are taken to run elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.launch.base import JobPlace, SearchLauncher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher

#: The beginning of a launcher's module, its class (any, where None), and where its jobs run.
_KNOWN: tuple[tuple[str, str | None, JobPlace], ...] = (
    ("hydra._internal.core_plugins.basic_launcher", None, JobPlace.HERE),
    ("hydra_plugins.hydra_joblib_launcher", None, JobPlace.HERE),
    ("hydra_plugins.hydra_submitit", "LocalLauncher", JobPlace.DETACHED),
)


class HydraLauncher(SearchLauncher):
    """Another launcher of Hydra's.

    Args:
        launcher: It, set up.
    """

    def __init__(self, launcher: Launcher) -> None:
        """Nothing is launched yet."""
        self._launcher = launcher
        self._place = _place_of(type(launcher))

    @property
    def job_place(self) -> JobPlace:
        """Where the launcher's jobs run."""
        return self._place

    def launch_workers(
        self,
        overrides: Sequence[str],
        jobs: int,
        *,
        fork_guard: AbstractContextManager[Any],  # it forks nothing from this process
    ) -> Sequence[JobReturn]:
        """Run `jobs` workers; returns when all have ended."""
        return self._launcher.launch([list(overrides)] * jobs, initial_job_idx=0)


def search_launcher(launcher: Launcher) -> SearchLauncher:
    """`launcher` as a search sees it: itself where it is one of ours, else in an adapter."""
    return launcher if isinstance(launcher, SearchLauncher) else HydraLauncher(launcher)


def _place_of(kind: type[Launcher]) -> JobPlace:
    for module, name, place in _KNOWN:
        if kind.__module__.startswith(module) and name in (None, kind.__name__):
            return place
    return JobPlace.ELSEWHERE
