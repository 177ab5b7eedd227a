"""Progress in steps and episodes: where reports come, what is kept, and a resumption that repeats none."""

from __future__ import annotations

import functools

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from dlsearch.config.compose import compose_config
from dlsearch.config.progress import ProgressUnit, training_length
from dlsearch.core.errors import ConfigError
from dlsearch.tracking.journal import Journal
from dlsearch.training import fit as fit_module
from dlsearch.training.fit import fit
from dlsearch.training.progress import check_length, unit_of
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import checkpoints


class Line(pl.LightningModule):
    """A line through (x, 2x), with its own loaders: 10 batches an epoch."""

    progress_unit = "step"

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def loss(self, batch):
        (x,) = batch
        return torch.nn.functional.mse_loss(self.net(x), 2 * x)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)

    def loader(self):
        return DataLoader(TensorDataset(torch.linspace(-1, 1, 40).reshape(-1, 1)), 4)

    train_dataloader = val_dataloader = test_dataloader = loader


class Player(Line):
    """Counts in episodes, each of two steps, logs its return, and validates nothing."""

    progress_unit = "episode"
    validation_step = pl.LightningModule.validation_step
    val_dataloader = pl.LightningModule.val_dataloader

    def __init__(self) -> None:
        super().__init__()
        self.episodes = 0

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.episodes += batch_idx % 2
        self.log("return", -loss)
        return loss


@pytest.fixture
def config(tmp_path_factory):
    store = str(tmp_path_factory.getbasetemp() / "progress-store")
    return lambda *overrides: composed(store, *overrides).copy()


@functools.cache
def composed(store, *overrides):
    cfg = compose_config([
        f"paths.store={store}", f"paths.data={store}", "callbacks=none", "trainer.accelerator=cpu",
        "trainer.max_epochs=null", "trainer.max_steps=24", "trainer.check_val_every_n_epoch=null",
        "trainer.val_check_interval=4", *overrides,
    ])  # fmt: skip
    return OmegaConf.merge(cfg, {"data": None})


@pytest.fixture(autouse=True)
def built(monkeypatch):
    """What stands for the task that a config names."""
    monkeypatch.setattr(fit_module, "build_task", lambda cfg: Line())


def run_in(folder, **changes):
    fields = {"objectives": ["val/loss"], "directions": ["minimize"], **changes}
    return Run(folder=folder, journal=Journal(folder / "journal.jsonl"), **fields)


def keeping(reports, *, stop_after=None, prune_after=None):
    """A run's ``report`` and ``stop`` that note positions."""

    def report(position, step, metrics):
        reports.append((position, step))
        return len(reports) == prune_after

    return {"report": report, "stop": lambda: stop_after is not None and len(reports) >= stop_after}


def test_reports_come_by_steps_across_epochs(tmp_path, config):
    reports = []
    result = fit(config(), run_in(tmp_path, **keeping(reports)))
    assert result.state == "complete"
    assert reports == [(position, position + 1) for position in (3, 7, 11, 15, 19, 23)]
    assert [position for position, _ in result.history] == [3, 7, 11, 15, 19, 23]
    assert (result.epochs, result.best_epoch, result.best_step) == (24, 23, 24)
    assert result.progress_unit == "step"
    assert checkpoints.read(tmp_path / "ckpt/best.ckpt")["global_step"] == 24


def test_a_pruned_training_ends_within_the_epoch(tmp_path, config):
    result = fit(config(), run_in(tmp_path, **keeping([], prune_after=1)))
    assert (result.state, result.epochs) == ("pruned", 4)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")
def test_a_resumed_training_goes_on_from_its_last_report(tmp_path, config):
    reports = []
    with pytest.raises(Interrupted):
        fit(config(), run_in(tmp_path, **keeping(reports, stop_after=2)))
    assert [position for position, _ in reports] == [3, 7]
    reports.clear()
    result = fit(config(), run_in(tmp_path, **keeping(reports)))
    assert (result.state, result.resumed_epoch, result.epochs) == ("complete", 8, 24)
    assert [position for position, _ in reports] == [7, 11, 15, 19, 23]
    assert [position for position, _ in result.history] == [3, 7, 11, 15, 19, 23]


def test_without_validation_reports_come_by_logged_steps(tmp_path, config, monkeypatch):
    monkeypatch.setattr(fit_module, "build_task", lambda cfg: Player())
    reports = []
    surroundings = run_in(
        tmp_path, **keeping(reports), objectives=["return"], directions=["maximize"]
    )
    result = fit(config("trainer.log_every_n_steps=8"), surroundings)
    assert (result.state, result.progress_unit) == ("complete", "episode")
    assert reports == [(3, 8), (7, 16), (11, 24)]
    best, value = max(result.history, key=lambda point: point[1])
    assert (result.epochs, result.best_epoch, result.values) == (12, best, [value])


def test_a_module_with_its_own_loaders_is_scored_on_its_test_set(tmp_path, config, monkeypatch):
    monkeypatch.setattr("dlsearch.training.state.restoring.build_task", lambda cfg: Line())
    opened = []
    run = run_in(tmp_path, test=True, unseal=lambda: opened.append(True))
    result = fit(config(), run)
    assert opened == [True]
    assert result.test == {"metrics": {"test/loss": pytest.approx(result.values[0], rel=1e-5)}}


def test_a_length_in_steps_is_needed_for_progress_in_steps(config):
    check_length(config(), Line())
    check_length(config("trainer.max_epochs=3"), Line())
    with pytest.raises(ConfigError, match=r"trainer\.max_steps.*Line counts its progress in these"):
        check_length(config("trainer.max_epochs=3", "trainer.max_steps=null"), Line())


def test_episodes_must_be_counted_by_the_task(config):
    player = Player()
    check_length(config(), player)
    del player.episodes
    with pytest.raises(
        ConfigError, match="Player counts in episodes and has no attribute episodes"
    ):
        check_length(config(), player)


@pytest.mark.parametrize(
    ("trainer", "length"),
    [
        ({"max_epochs": 3, "max_steps": 9, "max_time": None}, (9, "step", "trainer.max_steps")),
        ({"max_epochs": 3, "max_steps": -1}, (3, "epoch", "trainer.max_epochs")),
        ({"max_epochs": -1, "max_steps": 9}, (9, "step", "trainer.max_steps")),
        ({"max_epochs": 3, "max_steps": 9, "fast_dev_run": 2}, (1, "epoch", "trainer.max_epochs")),
        # of a study of an earlier version, whose reports are counted in epochs
        ({"max_epochs": 3, "max_steps": 9}, (3, "epoch", "trainer.max_epochs")),
        ({"max_epochs": 3}, (3, "epoch", "trainer.max_epochs")),
        ({"max_epochs": None, "max_steps": 9}, (9, "step", "trainer.max_steps")),
    ],
)
def test_the_length_of_a_training(trainer, length):
    found = training_length(trainer)
    assert (found.amount, found.unit, found.key) == length


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"max_epochs": 0}, r"trainer\.max_epochs: expected at least 1, got 0"),
        ({"max_epochs": None, "max_steps": 0}, r"trainer\.max_steps: expected at least 1, got 0"),
        ({"max_epochs": None, "max_steps": -1}, r"trainer\.max_epochs: expected a number"),
        (
            {"max_epochs": -1, "max_time": "00:01:00:00"},
            r"trainer\.max_epochs: expected a number .*trainer\.max_epochs=1000 beside",
        ),
        ({"max_epochs": None, "max_steps": None}, r"trainer\.max_epochs: expected a number"),
    ],
)
def test_a_length_that_cannot_be_meant_is_refused(trainer, said):
    with pytest.raises(ConfigError, match=said):
        training_length(trainer)


def test_a_word_that_is_no_unit_is_refused():
    module = Line()
    assert unit_of(module) is ProgressUnit.STEP
    module.progress_unit = "steps"
    with pytest.raises(
        ConfigError, match=r"progress_unit: expected one of epoch, step, episode, got 'steps'"
    ):
        unit_of(module)
