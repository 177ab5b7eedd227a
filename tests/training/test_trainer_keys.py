"""What the Trainer's arguments do to a training that is searched: its length, reports, loggers, callbacks."""

from __future__ import annotations

import functools

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, IterableDataset

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.training import fit as fit_module
from dlsearch.training.building import build_callbacks, build_trainer
from dlsearch.training.fit import fit
from dlsearch.training.progress import unit_of
from tests.training.test_progress import Line, keeping, run_in

pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended")
CALLBACKS = "pytorch_lightning.callbacks"


class Ordinary(Line):
    """Names no unit; 10 batches an epoch."""

    progress_unit = "epoch"


class Endless(IterableDataset):
    """Without a length, and without an end."""

    def __iter__(self):
        while True:
            yield (torch.rand(1),)


class Stream(Ordinary):
    """Trains on what has no length."""

    def train_dataloader(self):
        return DataLoader(Endless(), 4)


@functools.cache
def composed(store, *overrides):
    cfg = compose_config([
        f"paths.store={store}", f"paths.data={store}", "callbacks=none", "trainer.accelerator=cpu", *overrides,
    ])  # fmt: skip
    return OmegaConf.merge(cfg, {"data": None})


@pytest.fixture
def config(tmp_path_factory):
    store = str(tmp_path_factory.getbasetemp() / "trainer-store")
    return lambda *overrides: composed(store, *overrides).copy()


@pytest.fixture
def train(config, tmp_path, monkeypatch):
    """Train a module, in a folder that is gone on with; returns its result and its reports."""

    def train(module, *overrides, **changes):
        monkeypatch.setattr(fit_module, "build_task", lambda cfg: module())
        reports = []
        result = fit(config(*overrides), run_in(tmp_path, **keeping(reports, **changes)))
        return result, reports

    return train


@pytest.mark.parametrize(
    ("words", "reports"),
    [
        # whatever is reached first; the first epoch and the second are validated
        (["trainer.max_steps=25"], [(9, 10), (19, 20)]),
        (["trainer.max_steps=25", "trainer.max_epochs=-1"], [(9, 10), (19, 20)]),
        (["trainer.max_steps=25", "trainer.max_epochs=1"], [(9, 10)]),
        # ends within its first epoch, where Lightning would validate nothing
        (["trainer.max_steps=7"], [(6, 7)]),
        (["trainer.max_steps=12", "trainer.val_check_interval=0.5"], [(4, 5), (9, 10)]),
        (["trainer.max_steps=6", "trainer.accumulate_grad_batches=2"], [(4, 5)]),
    ],
)
def test_with_max_steps_progress_is_counted_in_steps(train, words, reports):
    result, found = train(Ordinary, *words)
    assert (result.state, result.progress_unit, found) == ("complete", "step", reports)


def test_data_without_a_length_train_by_steps(train):
    words = ["trainer.max_epochs=null", "trainer.max_steps=9", "trainer.val_check_interval=4",
             "trainer.check_val_every_n_epoch=null"]  # fmt: skip
    result, reports = train(Stream, *words)
    assert (result.state, reports) == ("complete", [(3, 4), (7, 8)])


def test_data_without_a_length_have_epochs_by_a_limit(train):
    words = ["trainer.max_epochs=2", "trainer.limit_train_batches=3"]
    result, reports = train(Stream, *words)
    assert (result.state, result.progress_unit, reports) == ("complete", "epoch", [(0, 3), (1, 6)])


def test_fast_dev_run_reports_its_one_epoch(train):
    result, reports = train(Ordinary, "trainer.fast_dev_run=2")
    assert (result.state, result.progress_unit, reports) == ("complete", "epoch", [(0, 2)])


def test_time_ends_a_training_after_a_validation(train):
    words = ["trainer.max_epochs=1000000", "trainer.max_time={microseconds: 1}"]
    result, reports = train(Ordinary, *words)
    assert (result.state, len(reports)) == ("complete", 1)


def test_pruning_waits_for_no_min_epochs(train):
    words = ["trainer.max_epochs=4", "trainer.min_epochs=4"]
    result, reports = train(Ordinary, *words, prune_after=1)
    assert (result.state, reports) == ("pruned", [(0, 10)])


def test_scoring_may_compute_gradients(config, tmp_path):
    """Within a training Lightning's validation is outside of its inference mode anyway."""
    trainer = build_trainer(config("trainer.inference_mode=false"), run_in(tmp_path), [])
    assert not trainer.test_loop.inference_mode
    assert not trainer.validate_loop.inference_mode


def test_loggers_and_a_profiler_write_into_the_runs_folder(train, tmp_path):
    words = [
        "trainer.max_epochs=1",
        "+logger.csv._target_=pytorch_lightning.loggers.CSVLogger",
        "+trainer.profiler._target_=pytorch_lightning.profilers.SimpleProfiler",
        "+trainer.profiler.filename=times",
    ]
    result, reports = train(Ordinary, *words)
    assert (result.state, len(reports)) == ("complete", 1)
    assert "val/loss" in next(tmp_path.glob("lightning_logs/version_0/metrics.csv")).read_text()
    assert "run_training_epoch" in (tmp_path / "fit-times.txt").read_text()
    assert (tmp_path / "journal.jsonl").stat().st_size


def test_several_callbacks_of_a_kind(config, tmp_path):
    two = [f"+callbacks.{name}._target_={CALLBACKS}.EarlyStopping" for name in ("one", "two")]
    cfg = config(*two, "+callbacks.one.monitor=val/loss", "+callbacks.two.monitor=train/loss")
    run = run_in(tmp_path)
    trainer = build_trainer(cfg, run, build_callbacks(cfg, run))
    assert [each.monitor for each in trainer.early_stopping_callbacks] == ["val/loss", "train/loss"]
    cfg.callbacks.two.monitor = "val/loss"
    with pytest.raises(ConfigError, match=r"^callbacks\.two: .* from callbacks\.one: .*two=null"):
        build_callbacks(cfg, run)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+logger.csv.save_dir=x"], r"^logger\.csv: expected a logger by its _target_"),
        (
            ["+logger.csv={_target_: pytorch_lightning.loggers.CSVLogger, save_dir: /etc}"],
            r"^logger\.csv\.save_dir: '/etc' lies outside",
        ),
        (
            ["+logger.csv={_target_: pytorch_lightning.loggers.CSVLogger, name: ../../x}"],
            r"^logger\.csv\.name: expected a name, not a path",
        ),
        (["+logger.net._target_=torch.nn.Identity"], r"^logger\.net\._target_: .* makes no logger"),
        (
            ["+logger.w._target_=pytorch_lightning.loggers.WandbLogger"],
            r"^logger\.w\._target_: .* is outside the allow-list",
        ),
        (["trainer.profiler={x: 1}"], r"^trainer\.profiler\._target_: expected the dotted path"),
        (
            ["trainer.plugins=[{_target_: pytorch_lightning.plugins.AsyncCheckpointIO}]"],
            r"^trainer\.plugins\[0\]\._target_: .* is of no kind that a config builds",
        ),
        (["trainer.precision=17-imaginary"], r"^trainer: .*17-imaginary"),
    ],
)
def test_what_cannot_be_built_is_named_by_its_key(config, tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        build_trainer(config(*words), run_in(tmp_path), [])


def test_a_precision_plugin_takes_the_place_of_the_usual_precision(config, tmp_path):
    words = ["trainer.plugins=[{_target_: pytorch_lightning.plugins.DoublePrecision}]"]
    trainer = build_trainer(config(*words), run_in(tmp_path), [])
    assert trainer.precision == "64-true"


def test_a_strategy_of_several_devices_is_refused(config, tmp_path, monkeypatch):
    class Shared(pl.strategies.DDPStrategy):
        pass

    monkeypatch.setattr("dlsearch.training.trainer.arguments.build", lambda node, key: Shared())
    cfg = config("trainer.strategy={_target_: mine.Shared}")
    with pytest.raises(ConfigError, match=r"^trainer\.strategy: a trial owns one device, .*Shared"):
        build_trainer(cfg, run_in(tmp_path), [])


def test_a_task_that_names_a_unit_keeps_it():
    in_steps = {"max_epochs": None, "max_steps": 5}
    assert unit_of(Line(), {"max_epochs": 3}) == "step"
    assert (unit_of(Ordinary()), unit_of(Ordinary(), in_steps)) == ("epoch", "step")
