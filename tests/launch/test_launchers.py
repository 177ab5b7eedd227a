"""Every launcher keeps the contract of :mod:`tests.launch.contract`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from dlsearch.launch.base import JobPlace, SearchLauncher
from dlsearch.launch.local import LocalLauncher
from dlsearch.launch.others import HydraLauncher, search_launcher
from dlsearch.launch.ray import RayLauncher
from dlsearch.launch.remote import RemoteLauncher
from tests.launch.contract import LauncherContract, LaunchingContract


class TestLocal(LaunchingContract):
    place = JobPlace.HERE

    @pytest.fixture
    def launcher(self) -> SearchLauncher:
        return LocalLauncher(1)


class TestRay(LaunchingContract):
    place = JobPlace.ELSEWHERE

    @pytest.fixture
    def launcher(self) -> SearchLauncher:
        init = {"address": "local", "num_cpus": 2}
        return RayLauncher({"init": init, "remote": {"num_cpus": 1, "num_gpus": 0}})

    @pytest.mark.storm
    @pytest.mark.timeout(300)
    def test_workers_get_their_overrides_and_return_their_exit_codes(self, launcher, tmp_path):
        super().test_workers_get_their_overrides_and_return_their_exit_codes(launcher, tmp_path)


class TestRemote(LauncherContract):
    """What a launcher with machines of its own has of the base class alone."""

    place = JobPlace.ELSEWHERE

    @pytest.fixture
    def launcher(self) -> SearchLauncher:
        class Recorded(RemoteLauncher):
            def launch_workers(self, overrides, jobs, *, fork_guard):
                raise NotImplementedError

        return Recorded()


class TestBasic(LaunchingContract):
    place = JobPlace.HERE

    @pytest.fixture
    def launcher(self) -> SearchLauncher:
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher

        return settable(BasicLauncher())


class TestJoblib(LaunchingContract):
    place = JobPlace.HERE

    @pytest.fixture
    def launcher(self) -> Iterator[SearchLauncher]:
        from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
        from joblib.externals.loky import get_reusable_executor

        yield settable(JoblibLauncher(n_jobs=2, backend="loky"))
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


class TestSubmititLocal(LaunchingContract):
    place = JobPlace.DETACHED

    @pytest.fixture
    def launcher(self, tmp_path) -> SearchLauncher:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
            LocalLauncher as SubmititLauncher,
        )

        return settable(SubmititLauncher(submitit_folder=str(tmp_path / "jobs"), timeout_min=5))


class TestSubmititSlurm(LauncherContract):
    """Its jobs run in tests/e2e/test_slurm.py."""

    place = JobPlace.ELSEWHERE

    @pytest.fixture
    def launcher(self, tmp_path) -> SearchLauncher:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

        return settable(SlurmLauncher(submitit_folder=str(tmp_path / "jobs")))


def settable(launcher: Launcher) -> HydraLauncher:
    """The adapter of a launcher, which can be set up as the launcher itself."""

    class Settable(HydraLauncher):
        def setup(self, **context) -> None:
            self._launcher.setup(**context)

    return Settable(launcher)


def test_ours_are_used_as_they_are_and_others_through_the_adapter():
    ours = LocalLauncher(2)
    assert search_launcher(ours) is ours
    unknown = type("Unknown", (Launcher,), {"setup": None, "launch": None})()
    adapted = search_launcher(unknown)
    assert isinstance(adapted, HydraLauncher)
    assert adapted.job_place is JobPlace.ELSEWHERE


def test_every_launcher_that_is_installed_can_be_adapted():
    found = Plugins.instance().discover(Launcher)
    places = {}
    for kind in found:
        if kind.__name__ == "BaseSubmititLauncher":  # the base of two that are listed
            continue
        launcher = kind.__new__(kind)  # its place is known of its class
        places[f"{kind.__module__}.{kind.__name__}"] = search_launcher(launcher).job_place
    assert places == {
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher": JobPlace.HERE,
        "hydra_plugins.dlsearch_plugins.LocalLauncher": JobPlace.HERE,
        "hydra_plugins.dlsearch_plugins.RayLauncher": JobPlace.ELSEWHERE,
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": JobPlace.HERE,
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher": JobPlace.DETACHED,
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": JobPlace.ELSEWHERE,
    }
