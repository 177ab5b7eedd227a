"""The perceptron's learning rule, and tasks for nets with auxiliary classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from dlsearch.config.build import build
from dlsearch.core.errors import ConfigError
from dlsearch.systems.basic.tasks.perceptron import errors, wrong_units

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytorch_lightning as pl
    from omegaconf import DictConfig

    Compose = Callable[..., DictConfig]
    MakeTrainer = Callable[..., pl.Trainer]

RULE = {"optimizer.lr": 0.5, "optimizer.weight_decay": 0.0, "data.batch_size": 1}
GROUPS = {"model": "perceptron", "task": "perceptron", "optimizer": "sgd"}


def both(cfg: DictConfig) -> tuple[Any, Any]:
    return build(cfg.data, "data"), build(cfg.task, "task")


def test_the_rule_by_hand(compose: Compose, trainer: MakeTrainer) -> None:
    """Sample by sample in the loader's own order: w ← w + lr · (t − y) · x, with 1 as the last input."""
    data, task = both(compose({**RULE, "data.function": "xor"}, data="truth_table", **GROUPS))
    weight = task.net.units.weight.detach()[0].clone()
    for x, y in data.train_dataloader():
        inputs = torch.cat([x[0], torch.ones(1)])
        output = float(weight @ inputs > 0)
        weight = weight + 0.5 * (y.item() - output) * inputs
    fit = trainer(max_epochs=1)
    fit.fit(task, datamodule=data)
    torch.testing.assert_close(task.net.units.weight[0].detach(), weight)
    assert fit.global_step == 128


@pytest.mark.parametrize("function", ["and", "or"])
def test_and_and_or_are_learned_exactly(
    compose: Compose, trainer: MakeTrainer, function: str
) -> None:
    data, task = both(compose({**RULE, "data.function": function}, data="truth_table", **GROUPS))
    fit = trainer(max_epochs=2)
    fit.fit(task, datamodule=data)
    assert fit.callback_metrics["val/accuracy"] == 1.0
    assert fit.callback_metrics["val/loss"] == 0.0
    before = task.net.units.weight.detach().clone()
    trainer(max_epochs=1).fit(task, datamodule=data)
    assert torch.equal(task.net.units.weight, before)  # nothing is wrong, so nothing changes


@pytest.mark.parametrize("rate", [0.01, 0.5])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_xor_is_never_learned(
    compose: Compose, trainer: MakeTrainer, rate: float, batch_size: int
) -> None:
    changes = {**RULE, "optimizer.lr": rate, "data.batch_size": batch_size, "data.function": "xor"}
    data, task = both(compose(changes, data="truth_table", **GROUPS))
    fit = trainer(max_epochs=5)
    fit.fit(task, datamodule=data)
    assert fit.callback_metrics["val/accuracy"] <= 0.75
    assert fit.callback_metrics["train/loss"] > 0


def test_ten_units_read_digits(compose: Compose, trainer: MakeTrainer) -> None:
    data, task = both(compose({**RULE, "data.batch_size": 16}, **GROUPS))
    fit = trainer(max_epochs=8)
    fit.fit(task, datamodule=data)
    assert fit.callback_metrics["val/accuracy"] > 0.9
    assert set(fit.callback_metrics) == {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "val/f1",
    }


def test_errors_of_units() -> None:
    sums = torch.tensor([[0.0, 0.3], [0.0, 0.0], [0.0, -1.0]])
    assert errors(sums, torch.tensor([0, 1, 0])).tolist() == [[0, -1], [0, 1], [0, 0]]
    assert wrong_units(sums, torch.tensor([0, 1, 0])).item() == pytest.approx(2 / 3)
    sums = torch.tensor([[1.0, 2.0, -1.0]])
    assert errors(sums, torch.tensor([2])).tolist() == [[-1, -1, 1]]


# -- auxiliary classifiers -------------------------------------------------------------------------------------------
def test_auxiliary_losses_are_added_in_training(compose: Compose, trainer: MakeTrainer) -> None:
    changes = {
        "data.train_size": 32, "data.val_size": 32, "model.auxiliary": True, "model.width": 0.1,
        "model.dropout_auxiliary": 0.0, "model.dropout": 0.0, "optimizer.lr": 0.0, "optimizer.weight_decay": 0.0,
    }  # fmt: skip
    data, task = both(compose(changes, model="googlenet", task="auxiliary"))
    fit = trainer(max_epochs=1)
    fit.fit(task, datamodule=data)
    data.setup("fit")
    x, y = next(iter(data.train_dataloader()))
    logits = task.net.train()(x)
    expected = sum(F.cross_entropy(each, y).item() for each in task.net.auxiliary_logits)
    assert fit.callback_metrics["train/auxiliary"].item() == pytest.approx(expected, rel=1e-4)
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(
        F.cross_entropy(logits, y).item(), rel=1e-4
    )
    task.net.auxiliary_logits.clear()


def test_the_weight_of_auxiliary_losses_reaches_the_gradient(compose: Compose) -> None:
    grads = {}
    for weight in (0.0, 0.3):
        changes = {"model.auxiliary": True, "model.width": 0.1, "task.auxiliary_weight": weight}
        changes |= {"model.dropout_auxiliary": 0.0, "model.dropout": 0.0}
        task = build(compose(changes, model="googlenet", task="auxiliary").task, "task").train()
        task.trainer = type("Trainer", (), {"accumulate_grad_batches": 2, "global_step": 1})()
        task._seen, task._sums, task._log_every = 0, {}, 50
        torch.manual_seed(1)
        task.training_step((torch.randn(8, 1, 8, 8), torch.arange(8)), 1).backward()
        grads[weight] = task.net.heads["4a"].fc2.weight.grad.norm().item()
        assert task.net.auxiliary_logits == []
    assert grads[0.0] == 0
    assert grads[0.3] > 0


def test_a_negative_weight_is_refused(compose: Compose) -> None:
    with pytest.raises(ValueError, match="auxiliary_weight: expected 0 or more, got -1"):
        build(compose({"task.auxiliary_weight": -1}, task="auxiliary").task, "task")


def test_the_rule_takes_no_other_optimizer(compose: Compose) -> None:
    groups = {**GROUPS, "optimizer": "adam"}
    cfg = compose({"data.function": "xor"}, data="truth_table", **groups)
    with pytest.raises(ConfigError, match=r"^task: optimizer: .* got Adam \(hint: optimizer=sgd\)"):
        build(cfg.task, "task")
