"""Tasks, trained on scikit-learn's digits and diabetes through Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers.logger import DummyLogger
from sklearn.metrics import confusion_matrix, f1_score, r2_score

from dlsearch.config.build import build
from dlsearch.core.errors import ConfigError
from dlsearch.systems.shared.data_module import SealedTestSet
from dlsearch.training.evaluation.base import TestObserver
from dlsearch.training.evaluation.table import evaluation_of
from tests.kinds import quick_if
from tests.systems.heavy import is_light

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytorch_lightning as pl
    from omegaconf import DictConfig

    Compose = Callable[..., DictConfig]
    MakeTrainer = Callable[..., pl.Trainer]

CONF = Path(__file__).parents[3] / "conf"
# pytorch-lightning on torch 2.15
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def both(cfg: DictConfig) -> tuple[Any, Any]:
    return build(cfg.data, "data"), build(cfg.task, "task")


class Rows(DummyLogger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


@pytest.mark.parametrize("model", quick_if(options("model"), is_light))
def test_every_model_trains_by_its_defaults(
    compose: Compose, trainer: MakeTrainer, model: str
) -> None:
    data, task = both(compose({"data.train_size": 256}, model=model))
    fit = trainer(max_epochs=2)
    fit.fit(task, datamodule=data)
    assert set(fit.callback_metrics) == {
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "val/f1",
    }
    assert fit.callback_metrics["val/loss"] < 2.35


OPTIMIZERS = options("optimizer")
SCHEDULERS = options("scheduler")
PAIRS = [(optimizer, scheduler) for optimizer in OPTIMIZERS for scheduler in SCHEDULERS]


def _is_on_the_diagonal(pair: tuple[str, str]) -> bool:
    """Of such pairs there is one of each optimizer, and of each scheduler if these are no more."""
    row = OPTIMIZERS.index(pair[0])
    return SCHEDULERS.index(pair[1]) == row % len(SCHEDULERS)


@pytest.mark.parametrize(("optimizer", "scheduler"), quick_if(PAIRS, _is_on_the_diagonal))
def test_every_optimizer_under_every_schedule(
    compose: Compose, trainer: MakeTrainer, optimizer: str, scheduler: str
) -> None:
    cfg = compose(
        {"data.train_size": 128, "scheduler.warmup": 0.25}, optimizer=optimizer, scheduler=scheduler
    )
    assert 1e-4 <= cfg.optimizer.lr <= 1e-1
    assert 1e-6 <= cfg.optimizer.weight_decay <= 1e-2
    data, task = both(cfg)
    before = task.net.linear.weight.detach().clone()
    trainer(max_epochs=2).fit(task, datamodule=data)
    assert not torch.equal(before, task.net.linear.weight)
    assert torch.isfinite(task.net.linear.weight).all()


@pytest.mark.parametrize("data", options("data"))
def test_every_data_yaml_has_the_keys_that_others_read(compose: Compose, data: str) -> None:
    cfg = compose(data=data)
    assert {
        "batch_size",
        "shape",
        "num_classes",
        "train_size",
        "val_size",
        "split_seed",
        "seed",
    } <= set(cfg.data)
    assert cfg.data.batch_size in (32, 64, 128, 256)


def test_a_convnet_reads_digits(compose: Compose, trainer: MakeTrainer) -> None:
    torch.set_num_threads(1)
    data, task = both(compose(model="convnet", scheduler="cosine"))
    fit = trainer(max_epochs=8)
    fit.fit(task, datamodule=data)
    assert fit.callback_metrics["val/accuracy"] >= 0.97


def test_metrics_are_those_of_the_whole_split(compose: Compose, trainer: MakeTrainer) -> None:
    cfg = compose({"task.top_k": 3, "data.eval_batch_size": 100, "task.label_smoothing": 0.1})
    data, task = both(cfg)
    fit = trainer(max_epochs=1)
    fit.fit(task, datamodule=data)
    x, y = (torch.cat(part) for part in zip(*data.val_dataloader(), strict=True))
    with torch.no_grad():
        logits = task.net(x)
    seen = {name: value.item() for name, value in fit.callback_metrics.items()}
    assert seen["val/loss"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert seen["val/accuracy"] == pytest.approx(
        (logits.argmax(1) == y).float().mean().item(), rel=1e-6
    )
    assert seen["val/f1"] == pytest.approx(f1_score(y, logits.argmax(1), average="macro"), rel=1e-5)
    top = (logits.topk(3).indices == y[:, None]).any(1).float().mean().item()
    assert seen["val/top3"] == pytest.approx(top, rel=1e-6)


def test_training_figures_are_means_over_samples(compose: Compose, trainer: MakeTrainer) -> None:
    """With a rate of 0 every batch sees the same net, and the last batch is smaller."""
    data, task = both(compose({"optimizer.lr": 0.0, "optimizer.weight_decay": 0.0}))
    fit = trainer(max_epochs=1)
    fit.fit(task, datamodule=data)
    x, y = (torch.cat(part) for part in zip(*data.train_dataloader(), strict=True))
    with torch.no_grad():
        logits = task.net(x)
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(
        F.cross_entropy(logits, y).item(), rel=1e-4
    )
    right = (logits.argmax(1) == y).float().mean().item()
    assert fit.callback_metrics["train/accuracy"].item() == pytest.approx(right, rel=1e-5)


def test_penalties_shrink_weights_and_stay_out_of_the_logged_loss(
    compose: Compose, trainer: MakeTrainer
) -> None:
    sizes = {}
    for l1 in (0.0, 0.05):
        data, task = both(compose({"task.l1": l1}))
        fit = trainer(max_epochs=3)
        fit.fit(task, datamodule=data)
        sizes[l1] = task.net.linear.weight.abs().sum().item()
        assert ("train/penalty" in fit.callback_metrics) == bool(l1)
        assert fit.callback_metrics["train/loss"] < 2.5
    assert sizes[0.05] < 0.8 * sizes[0.0]


def test_the_hinge_loss_trains(compose: Compose, trainer: MakeTrainer) -> None:
    data, task = both(compose({"task.loss": "hinge", "optimizer.lr": 0.01}))
    fit = trainer(max_epochs=3)
    fit.fit(task, datamodule=data)
    assert fit.callback_metrics["val/accuracy"] > 0.9


def test_rows_within_an_epoch_are_few(compose: Compose, trainer: MakeTrainer) -> None:
    data, task = both(compose({"scheduler.warmup": 0.5}, scheduler="cosine"))
    logger = Rows()
    trainer(max_epochs=2, logger=logger, log_every_n_steps=10).fit(task, datamodule=data)
    steps = [(step, row) for step, row in logger.rows if "train/loss_step" in row]
    assert [step for step, _ in steps] == [0, 10, 20, 30]  # 17 steps an epoch
    assert all(set(row) == {"train/loss_step", "lr/0"} for _, row in steps)
    assert steps[0][1]["lr/0"] == pytest.approx(1e-3 / 17)
    epochs = [row for _, row in logger.rows if "val/accuracy" in row]
    assert len(epochs) == 2


def test_the_test_report(compose: Compose, trainer: MakeTrainer) -> None:
    data, task = both(compose())
    evaluation = evaluation_of(task)
    fit = trainer(max_epochs=1, callbacks=[TestObserver(evaluation)])
    fit.fit(task, datamodule=data)
    with pytest.raises(SealedTestSet):
        fit.test(task, datamodule=data, verbose=False)
    data.unseal()
    (metrics,) = fit.test(task, datamodule=data, verbose=False)
    report = evaluation.facts()
    x, y = (torch.cat(part) for part in zip(*data.test_dataloader(), strict=True))
    with torch.no_grad():
        confidence, prediction = task.net(x).softmax(1).max(1)
    assert set(report) == {"n", "confusion", "errors"}
    assert report["n"] == 360
    assert set(metrics) == {"test/loss", "test/accuracy", "test/f1"}
    assert report["confusion"] == confusion_matrix(y, prediction).tolist()
    wrong = (y != prediction).nonzero().flatten()
    assert 0 < len(report["errors"]) <= 16
    assert len(report["errors"]) == min(16, len(wrong))
    for error in report["errors"]:
        index = error["index"]
        assert (error["label"], error["prediction"]) == (y[index].item(), prediction[index].item())
        assert error["confidence"] == pytest.approx(confidence[index].item(), rel=1e-5)
    confidences = [error["confidence"] for error in report["errors"]]
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[0] == pytest.approx(confidence[wrong].max().item(), rel=1e-5)


def test_regression(compose: Compose, trainer: MakeTrainer) -> None:
    cfg = compose(
        {"optimizer.lr": 0.01},
        data="diabetes",
        task="regression",
        model="mlp",
        scheduler="one_cycle",
    )
    data, task = both(cfg)
    evaluation = evaluation_of(task)
    fit = trainer(max_epochs=10, callbacks=[TestObserver(evaluation)])
    fit.fit(task, datamodule=data)
    assert set(fit.callback_metrics) == {"train/loss", "val/loss", "val/mae", "val/rmse", "val/r2"}
    x, y = next(iter(data.val_dataloader()))
    with torch.no_grad():
        found = task.eval()(x)
    assert fit.callback_metrics["val/r2"].item() == pytest.approx(r2_score(y, found), abs=1e-4)
    assert fit.callback_metrics["val/rmse"].item() == pytest.approx(
        F.mse_loss(found, y).sqrt().item(), rel=1e-4
    )
    assert fit.callback_metrics["val/loss"] < 0.75  # 1 is the mean's
    data.unseal()
    (metrics,) = fit.test(task, datamodule=data, verbose=False)
    assert set(metrics) == {"test/loss", "test/mae", "test/rmse", "test/r2"}
    assert evaluation.facts() == {"n": 88}


def test_a_regression_takes_flat_targets(compose: Compose) -> None:
    task = build(compose(data="diabetes", task="regression").task, "task")
    x, y = task._shaped((torch.zeros(4, 10), torch.arange(4)))
    assert (y.shape, y.dtype) == ((4, 1), x.dtype)


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_a_checkpoint_loads_with_weights_only(
    compose: Compose, trainer: MakeTrainer, scheduler: str, tmp_path: Path
) -> None:
    data, task = both(
        compose(
            {"data.train_size": 128, "scheduler.warmup": 2}, model="convnet", scheduler=scheduler
        )
    )
    fit = trainer(max_epochs=1)
    fit.fit(task, datamodule=data)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == {f"net.{name}" for name in task.net.state_dict()}


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_resumed_equals_uninterrupted(
    compose: Compose, trainer: MakeTrainer, scheduler: str, tmp_path: Path
) -> None:
    changes = {"data.train_size": 200, "data.augment.crop": 1, "scheduler.warmup": 0.3}

    def parts() -> tuple[Any, Any]:
        return both(compose(changes, optimizer="momentum", scheduler=scheduler))

    data, whole = parts()
    trainer(max_epochs=4).fit(whole, datamodule=data)

    class Stop(Checkpoint):  # those run after the module has logged its epoch
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    data, task = parts()
    trainer(max_epochs=4, enable_checkpointing=True, callbacks=[Stop()]).fit(task, datamodule=data)
    data, task = parts()
    trainer(max_epochs=4).fit(
        task, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert torch.equal(task.net.linear.weight, whole.net.linear.weight)


def test_overfitting_sees_the_same_batches(compose: Compose, trainer: MakeTrainer) -> None:
    data, task = both(compose({"optimizer.lr": 0.0, "optimizer.weight_decay": 0.0}))
    logger = Rows()
    trainer(max_epochs=2, overfit_batches=1, logger=logger).fit(task, datamodule=data)
    first, second = (row["train/loss"] for _, row in logger.rows if "train/loss" in row)
    assert first == second


@pytest.mark.parametrize("task", options("task"))
def test_a_task_is_built_on_the_meta_device(compose: Compose, task: str) -> None:
    groups = {"data": "diabetes"} if task == "regression" else {}
    if task == "perceptron":
        groups["optimizer"] = "sgd"  # its rule takes no other
    cfg = compose(task=task, **groups)
    with torch.device("meta"):
        built = build(cfg.task, "task")
    assert {p.device.type for p in built.parameters()} == {"meta"}
    assert list(built.example_input_array.shape) == [1, *cfg.data.shape]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task.loss": "mse"}, "loss: expected cross_entropy or hinge, got 'mse'"),
        ({"task.top_k": 10}, "top_k: expected between 1 and 10, both excluded, got 10"),
        ({"task.num_classes": 1}, "num_classes: expected 2 or more, got 1 (hint: task=regression)"),
        ({"task.l2": -1}, "l2: expected 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_named(compose: Compose, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(compose(changes).task, "task")
    assert message in str(error.value)
