"""Scoring the winner's trainings: one opening of the test set, and what is not there is made again."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.execution.scoring import Trained, score
from dlsearch.systems.shared.data_module import SplitData
from dlsearch.systems.shared.supervised import Classification
from dlsearch.systems.vision.data.image import Digits
from dlsearch.tracking.journal import Journal
from dlsearch.training.building import build_data
from dlsearch.training.fit import fit
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import restoring as module


@functools.cache
def composed(store, *overrides):
    return compose_config([
        f"paths.store={store}", f"paths.data={store}", "data.train_size=200", "data.val_size=100", "data.batch_size=32",
        "trainer.accelerator=cpu", "model=mlp", "model.width=16", "model.depth=1", "model.dropout=0.3",
        "trainer.max_epochs=3", *overrides,
    ])  # fmt: skip


@pytest.fixture
def config(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "score-store"
    return lambda *overrides: composed(str(store), *overrides).copy()


def run_in(folder: Path, **changes) -> Run:
    fields = {"objectives": ["val/accuracy"], "directions": ["maximize"], **changes}
    return Run(folder=folder, journal=Journal(folder / "journal.jsonl"), **fields)


def train(cfg, folder, **changes):
    result = fit(cfg, run_in(folder, **changes))
    assert result.state == "complete"
    return Trained(cfg, folder, changes.get("refit_epochs"))


def test_the_test_set_is_opened_once_and_after_everything_else(tmp_path, config, monkeypatch):
    trained = [train(config(f"seed={n}"), tmp_path / str(n)) for n in range(3)]
    events = []
    monkeypatch.setattr(
        SplitData, "unseal", lambda self: (events.append("unseal"), setattr(self, "_sealed", False))
    )
    run = run_in(tmp_path / "test", unseal=lambda: events.append("row"))
    monkeypatch.setattr(
        module,
        "build_task",
        lambda cfg, real=module.build_task: (events.append("task"), real(cfg))[1],
    )
    report = score(trained, 1, run)
    assert events == ["task", "task", "task", "row", "unseal"]
    assert len(report["each"]) == 3
    assert report["metrics"] == report["each"][1]
    assert report["n"] == 360
    assert sum(map(sum, report["confusion"])) == 360
    alone = [score([each], 0, run_in(tmp_path / "test"))["metrics"] for each in trained]
    assert report["each"] == alone
    assert len({tuple(sorted(each.items())) for each in alone}) > 1


def test_a_checkpoint_that_is_not_here_is_made_again(tmp_path, config):
    trained = [train(config("seed=5"), tmp_path / "a"), train(config("seed=6"), tmp_path / "b")]
    before = score(trained, 0, run_in(tmp_path / "test"))
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b/ckpt/best.ckpt").unlink()  # half of a training
    after = score(trained, 0, run_in(tmp_path / "test"))
    assert len(before["inside"].pop("curves")["val"]) > 1  # its journal went with the folder
    assert after["inside"].pop("curves") is None
    assert after == before
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(Interrupted):
        score(trained, 0, run_in(tmp_path / "test", stop=lambda: True))


class Untested(Classification):
    """A task without a test."""

    test_step = pl.LightningModule.test_step


class NoTestData(Digits):
    """Data without a test set."""

    test_dataloader = pl.LightningDataModule.test_dataloader


@pytest.mark.parametrize(("group", "name"), [("task", "Untested"), ("data", "NoTestData")])
def test_without_a_test_nothing_is_opened(tmp_path, config, group, name):
    cfg = config(f"{group}._target_=tests.execution.test_scoring.{name}", "allow_targets=[tests]")
    trained, opened = train(cfg, tmp_path / "a"), []
    with pytest.raises(ConfigError, match=f"{group}: has no test"):
        score([trained], 0, run_in(tmp_path / "test", unseal=lambda: opened.append(1)))
    assert opened == []


def test_a_refit_trains_on_both_splits_and_stops_when_told(tmp_path, config):
    cfg = config("trainer.max_epochs=6", "callbacks.early_stopping.patience=1")
    reports = []
    refit = run_in(tmp_path / "refit", refit_epochs=4, report=lambda *a: reports.append(a))
    result = fit(cfg, refit)
    assert (result.state, result.epochs, result.best_epoch, result.values) == (
        "complete",
        4,
        3,
        None,
    )
    assert reports == []
    assert not any("val/" in name for name in result.summary)
    assert result.best_step == 4 * -(-300 // 32), "train and validation: 300 samples"
    data = build_data(cfg)
    data.setup("fit")
    split, val = set(data.index("train")), set(data.index("val"))
    data.include_validation()
    assert set(data.index("train")) == split | val
    assert set(data.index("val")) == val
    trained = [train(cfg, tmp_path / "plain"), Trained(cfg, tmp_path / "refit", 4)]
    found = score(trained, 0, run_in(tmp_path / "test"))["each"]
    shutil.rmtree(tmp_path / "refit")
    assert score(trained, 0, run_in(tmp_path / "test"))["each"] == found, (
        "made again as what it was"
    )


def test_an_interrupted_refit_equals_an_uninterrupted_one(tmp_path, config):
    def weights(folder):
        return torch.load(folder / "ckpt/best.ckpt", weights_only=True)["state_dict"]

    cfg, count = config("trainer.max_epochs=6"), [0]
    fit(cfg, run_in(tmp_path / "whole", refit_epochs=3))

    def stop():
        count[0] += 1
        return count[0] == 15  # in the second epoch of ten batches

    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts", refit_epochs=3, stop=stop))
    assert fit(cfg, run_in(tmp_path / "parts", refit_epochs=3)).resumed_epoch == 1
    # killed between its last epoch and its result
    again = fit(cfg, run_in(tmp_path / "parts", refit_epochs=3))
    assert (again.state, again.epochs, again.resumed_epoch) == ("complete", 3, 3)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
