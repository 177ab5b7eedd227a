"""Two studies at once in one process: each has its own session, store, view and log."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from dlsearch.app.search import search
from dlsearch.app.serve import serve
from dlsearch.app.session import SearchOutcome, Session, SessionTask
from dlsearch.app.study_log import StudyEvent
from dlsearch.app.study_log import logger as study_logger
from dlsearch.app.view import TerminalView
from dlsearch.config.compose import CONFIG_NAME, config_dir, hydra_groups
from dlsearch.config.register import register
from dlsearch.launch.local import LocalLauncher
from tests.e2e.running import TINY

TRIALS = 3


class Worker(SessionTask):
    """What the jobs of a study do: they serve it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __call__(self, cfg: DictConfig) -> int:
        return serve(cfg, foreground=False, session=self.session)


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(vars(record))


@pytest.fixture
def records() -> Any:
    handler = Records()
    study_logger.addHandler(handler)
    yield handler.kept
    study_logger.removeHandler(handler)


def set_up(
    name: str, store: Path, session: Session
) -> tuple[Callable[..., Any], LocalLauncher, list[str]]:
    """A composer, a launcher and the overrides of one study, as the sweeper gets them from Hydra."""
    from hydra import initialize_config_dir

    register()
    words = [*TINY, f"study.n_trials={TRIALS}", f"study.name={name}", f"paths.store={store}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        loader = hydra.config_loader
        master = loader.load_configuration(CONFIG_NAME, overrides=[], run_mode=RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
    launcher = LocalLauncher(1)
    launcher.setup(hydra_context=context, task_function=Worker(session), config=master)

    def compose(overrides: Any) -> DictConfig:
        return loader.load_sweep_config(master, list(overrides))

    return compose, launcher, words


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_studies_run_at_once_in_one_process(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    lock = threading.Lock()
    both = threading.Barrier(2, timeout=120)
    outs = {name: io.StringIO() for name in ("first", "second")}
    sessions = {
        name: Session(argv=("-m", f"study.name={name}"), view=TerminalView(out), fork_lock=lock)
        for name, out in outs.items()
    }
    ready = {name: set_up(name, tmp_path / name, sessions[name]) for name in outs}
    groups = hydra_groups()

    def run(name: str) -> SearchOutcome:
        compose, launcher, words = ready[name]
        both.wait()
        return search(compose, launcher, words, params={}, groups=groups, session=sessions[name])

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(run, outs))
    for name, outcome in zip(outs, outcomes, strict=True):
        assert sessions[name].outcome == outcome
        assert sessions[name].warm_server is None
        assert (outcome.name, outcome.store) == (name, tmp_path / name)
        assert not outcome.interrupted
        assert not outcome.failed
        assert outcome.report is not None
        assert outcome.report.is_relative_to(tmp_path / name)
        record = json.loads((outcome.report / "report.json").read_text())
        assert record["study"]["command"] == f"dlsearch -m study.name={name}"
        said = outs[name].getvalue().splitlines()
        other = next(each for each in outs if each != name)
        assert not any(other in line for line in said)
        assert sum(line.startswith("trial ") for line in said) == TRIALS
        assert said[0].startswith(f"study {name}: {TRIALS} trials, 1 slot, seal: ")
        ends = [
            record
            for record in records
            if record["study"] == name and record["event"] is StudyEvent.TRIAL_ENDED
        ]
        assert sorted(record["trial"] for record in ends) == list(range(TRIALS))
        assert all(record["attempt"] == 1 and record["worker"] for record in ends)
    assert len({record["study_uuid"] for record in records}) == 2
    first, second = ([r["created"] for r in records if r["study"] == name] for name in outs)
    assert first[0] < second[-1], "neither waited for the other's end"
    assert second[0] < first[-1], "neither waited for the other's end"
