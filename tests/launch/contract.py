"""What every launcher of a search promises; each implementation inherits the classes below."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hydra.core.utils import JobReturn, JobStatus

from dlsearch.core.errors import DatabaseAwayError
from dlsearch.launch.base import JobPlace, SearchLauncher
from dlsearch.launch.remote import is_recalled
from tests.study.studies import complete, holder, opened

PATIENCE_SECONDS = 300.0
CONFIG = {
    "tracking": {"enabled": True, "uri": None},
    "worker": {"own_paths": True},
}


def ended(code: int | Exception) -> JobReturn:
    """A job's return: an exit code, or what it raised."""
    if isinstance(code, int):
        return JobReturn(status=JobStatus.COMPLETED, _return_value=code)
    return JobReturn(overrides=[], status=JobStatus.FAILED, _return_value=code)


class LauncherContract:
    """Override `launcher`, and `place`: where its jobs run."""

    place: JobPlace

    @pytest.fixture
    def launcher(self) -> SearchLauncher:
        raise NotImplementedError

    def test_it_says_where_its_jobs_run(self, launcher):
        assert launcher.job_place is self.place
        assert launcher.signals_reach_jobs is (self.place is JobPlace.HERE)
        assert launcher.has_own_machines is (self.place is JobPlace.ELSEWHERE)

    def test_all_slots_are_served_by_one_job_or_by_as_many_as_are_asked_for(self, launcher):
        for workers in (None, 1, 3):
            expected = 1 if launcher.serves_all_slots else workers or 1
            assert launcher.job_count(workers) == expected

    def test_jobs_that_share_this_machine_are_counted_and_others_are_not(self, launcher):
        if launcher.serves_all_slots:
            assert launcher.slots_key != "study.workers"
            assert launcher.slots_here(3) == launcher.slots_here(None)
        elif launcher.has_own_machines:
            assert [launcher.slots_here(workers) for workers in (None, 3)] == [1, 1]
        else:
            assert [launcher.slots_here(workers) for workers in (None, 3)] == [1, 3]

    def test_a_job_takes_what_was_asked_for_or_what_its_engine_gives(self, launcher):
        assert launcher.slots_of_job(2) == 2
        assert launcher.slots_of_job("auto") == ("auto" if launcher.has_own_machines else 1)

    def test_only_of_other_machines_there_is_something_to_know(self, launcher):
        said = launcher.notices("sqlite:////s/dlsearch.db", CONFIG)
        assert len(said) == (2 if launcher.has_own_machines else 0)
        reached = {**CONFIG, "tracking": {"enabled": True, "uri": "http://h:5000"}}
        assert launcher.notices("postgresql+psycopg://h/d", reached) == []

    def test_jobs_are_recalled_by_a_word_where_no_signal_reaches_them(self, launcher, tmp_path):
        word = launcher.new_session_word()
        assert (word is None) is launcher.signals_reach_jobs
        if word is None:
            return
        assert word != launcher.new_session_word()
        study = opened(tmp_path)
        study.finish(study.claim(holder()), complete(0.5))
        launcher.recall(study, word)
        assert is_recalled(study, word)
        assert not is_recalled(study, "another")
        study.storage.close()

    @pytest.mark.parametrize(("codes", "done", "expected"), [
        ([0], False, False),
        ([130, 0], False, False),  # one was preempted, another found nothing left
        ([RuntimeError("its node died"), 0], False, False),
        ([130, 130], False, True),
        ([130], True, False),
        ([2, 130], False, True),
        ([2], True, False),
    ])  # fmt: skip
    def test_a_study_was_interrupted_where_no_job_came_to_its_end(
        self, launcher, codes, done, expected
    ):
        returns = [ended(code) for code in codes]
        assert launcher.was_interrupted(returns, lambda: done, PATIENCE_SECONDS) is expected

    @pytest.mark.parametrize(("codes", "error", "said"), [
        ([2, RuntimeError("no such module")], RuntimeError, "exit codes 1, 2; what they said is above"),
        ([ValueError("as it was")], ValueError, "as it was"),
        ([75, 130], DatabaseAwayError, "away for 300 s"),
        ([DatabaseAwayError(5.0, "gone")], DatabaseAwayError, "away for 300 s"),
    ])  # fmt: skip
    def test_jobs_that_could_not_serve_are_no_end_of_a_study(self, launcher, codes, error, said):
        returns = [ended(code) for code in codes]
        with pytest.raises(error, match=said):
            launcher.was_interrupted(returns, lambda: False, PATIENCE_SECONDS)


class LaunchingContract(LauncherContract):
    """The same of a launcher whose jobs can run in a test."""

    def test_workers_get_their_overrides_and_return_their_exit_codes(self, launcher, tmp_path):
        set_up(launcher, tmp_path)
        try:
            returns = launcher.launch_workers(
                ["+told=130"], launcher.job_count(2), fork_guard=nullcontext()
            )
        finally:
            launcher.close()
        assert [each.return_value for each in returns] == [130] * launcher.job_count(2)


def worker(cfg) -> int:
    """A task function: it returns what its overrides say."""
    return int(cfg.told)


def set_up(launcher: SearchLauncher, folder) -> None:
    """Set the launcher up as Hydra does, for :func:`worker`."""
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext, RunMode

    with initialize_config_dir(str(folder), version_base="1.3"):
        (folder / "config.yaml").write_text("{}\n")
        hydra = GlobalHydra.instance().hydra
        loader = hydra.config_loader
        config = loader.load_configuration(
            "config",
            overrides=[
                f"hydra.sweep.dir={folder / 'sweep'}",
                "hydra/job_logging=none",
                "hydra/hydra_logging=none",
            ],
            run_mode=RunMode.MULTIRUN,
        )
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
    launcher.setup(hydra_context=context, task_function=worker, config=config)
    launcher.connect(elastic=False)
