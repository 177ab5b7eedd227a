"""A training's module made again: late nets, weights that callbacks keep, and figures that cannot be computed again."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from dlsearch.config.compose import compose_config
from dlsearch.execution.scoring import Trained, score
from dlsearch.tracking.journal import Journal
from dlsearch.training.fit import fit
from dlsearch.training.run import Run
from dlsearch.training.state import weights_file
from dlsearch.training.state.loading import WeightsMismatchError, check_names
from dlsearch.training.state.restoring import Expected, of_result, restore
from tests import late
from tests.kinds import quick_if


@functools.cache
def composed(store, *overrides):
    return compose_config([
        f"paths.store={store}", f"paths.data={store}", "data.train_size=600", "data.val_size=100", "data.batch_size=32",
        "trainer.accelerator=cpu", "trainer.max_epochs=4", "callbacks=none", "allow_targets=[tests]", *overrides,
    ])  # fmt: skip


@pytest.fixture
def config(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "restoring-store"

    def make(module, *overrides):
        cfg = composed(str(store), *overrides).copy()
        cfg.task = {"_target_": f"tests.late.{module}", "hidden": 32, "lr": 0.01}
        return cfg

    return make


def run_in(folder: Path, **changes) -> Run:
    fields = {"objectives": ["val_acc"], "directions": ["maximize"], **changes}
    return Run(folder=folder, journal=Journal(folder / "journal.jsonl"), **fields)


def train(cfg, folder, **changes) -> Trained:
    run = run_in(folder, **changes)
    result = fit(cfg, run)
    assert result.state == "complete"
    return Trained(
        cfg, folder, changes.get("refit_epochs"), expected=of_result(run.monitor, result)
    )


MODULES = [
    "InSetup", "InSetupForFit", "InConfigureModel", "InOnFitStart", "FromData", "Wrapped", "Noisy", "TrainedOnly",
    "Annealed",
]  # fmt: skip
#: Those of make test.
QUICK = ("InSetup", "FromData", "Noisy")


@pytest.mark.parametrize("module", quick_if(MODULES, lambda module: module in QUICK))
def test_the_trained_net_is_scored(tmp_path, config, module):
    trained = train(config(module), tmp_path)
    assert score([trained], 0, run_in(tmp_path / "test"))["metrics"]["test_acc"] > 0.6, (
        "an untrained net has 0.1"
    )


def test_a_plain_run_scores_the_trained_net_too(tmp_path, config):
    result = fit(config("InSetup"), run_in(tmp_path, test=True))
    assert result.test["metrics"]["test_acc"] > 0.6


def test_the_figure_is_the_same_to_the_last_bit(tmp_path, config):
    trained = train(config("InSetup"), tmp_path)
    restored = restore(trained.cfg, run_in(tmp_path), trained.checkpoint, trained.expected)
    trainer = restored.trainer()
    restored.evaluate(trainer.validate, datamodule=restored.data)
    assert float(trainer.callback_metrics["val_acc"]) == trained.expected.value


def test_weights_that_a_callback_keeps_are_tested_as_they_were_validated(tmp_path, config):
    trained = train(config("Early", "+callbacks.average._target_=tests.late.Averaging"), tmp_path)
    assert score([trained], 0, run_in(tmp_path / "test"))["metrics"]["test_acc"] > 0.6


def test_a_training_on_both_splits_has_no_figure_and_is_known_by_its_weights(tmp_path, config):
    trained = train(config("InSetup"), tmp_path, refit_epochs=3)
    assert trained.expected.value is None
    assert score([trained], 0, run_in(tmp_path / "test"))["metrics"]["test_acc"] > 0.6
    replace_weights(trained.checkpoint)
    with pytest.raises(WeightsMismatchError, match="holds the weights"):
        score([trained], 0, run_in(tmp_path / "test", unseal=lambda: pytest.fail("opened")))


def replace_weights(checkpoint: Path) -> None:
    """Put other weights into their file, which gets a digest that fits them."""
    stored = weights_file.read(checkpoint)
    zeros = {name: torch.zeros_like(value) for name, value in stored.state.items()}
    checkpoint.unlink()
    weights_file.write(checkpoint, zeros, stored.about)


@pytest.mark.parametrize("known", [True, False])
def test_a_checkpoint_that_was_replaced_opens_nothing(tmp_path, config, known):
    trained = train(config("Early"), tmp_path)
    replace_weights(trained.checkpoint)
    if not known:  # an older dlsearch recorded no digest
        trained.expected = Expected("val_acc", trained.expected.value, trained.expected.best_epoch)
    with pytest.raises(
        WeightsMismatchError, match="holds the weights" if known else "when they were trained"
    ):
        score([trained], 0, run_in(tmp_path / "test", unseal=lambda: pytest.fail("opened")))


def test_names_that_torch_passes_over_are_complained_of():
    module, state = late.InSetup(), late.Early().state_dict()
    assert not any(module.load_state_dict(state)), "torch finds nothing wrong"
    with pytest.raises(
        WeightsMismatchError,
        match=r"it has no net\.1\.bias, net\.1\.weight, net\.4\.bias and 1 more",
    ):
        check_names(module, state)
