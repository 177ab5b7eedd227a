"""Lean steps: the same weights, rows and checkpoints as Lightning's own, and Lightning's own wherever more is asked."""

from __future__ import annotations

import functools

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils.data import DataLoader, TensorDataset

from dlsearch.config.compose import compose_config
from dlsearch.tracking.journal import Journal, rows
from dlsearch.training.building import (
    build_callbacks,
    build_data,
    build_task,
    build_trainer,
    seed_everything,
)
from dlsearch.training.callbacks import RunCallback
from dlsearch.training.lean_loop import make_lean
from dlsearch.training.run import Run
from dlsearch.training.steps import LeanEpochLoop, _Step


@pytest.fixture
def config(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "steps-store"
    return functools.partial(compose, store)


def compose(store, *overrides):
    return compose_config([
        f"paths.store={store}", f"paths.data={store}", "data.train_size=200", "data.val_size=100", "data.batch_size=32",
        "model=mlp", "model.width=16", "model.depth=1", "model.dropout=0.3", "trainer.accelerator=cpu",
        "trainer.max_epochs=3", "trainer.log_every_n_steps=2", *overrides,
    ])  # fmt: skip


def train(cfg, folder, *, lean, monkeypatch):
    """A whole training; its trainer, and the rows of its journal without times."""
    with monkeypatch.context() as patch:
        if not lean:
            patch.setattr("dlsearch.training.building.make_lean", lambda trainer: None)
        run = Run(folder, Journal(folder / "journal.jsonl"), ["val/accuracy"], ["maximize"])
        seed_everything(cfg.seed)
        trainer = build_trainer(cfg, run, [*build_callbacks(cfg, run), RunCallback(run)])
        trainer.fit(build_task(cfg), datamodule=build_data(cfg))
        run.journal.close()
    written = [
        (row["step"], {k: v for k, v in row["values"].items() if not k.startswith("time/")})
        for row in rows(folder / "journal.jsonl")
        if row["row"] == "metrics"
    ]
    return trainer, written


@pytest.mark.parametrize(
    "overrides",
    [
        ["scheduler=one_cycle"],
        ["optimizer=momentum", "trainer.gradient_clip_val=0.1", "scheduler=cosine"],
        ["trainer.precision=bf16-mixed", "task.l2=0.01"],
        ["+trainer.val_check_interval=3"],
        ["+trainer.max_steps=11"],
    ],
    ids=[
        "schedule by the step",
        "clipped",
        "autocast and penalty",
        "validated within the epoch",
        "stopped within",
    ],
)
def test_lean_steps_equal_lightnings(config, tmp_path, monkeypatch, overrides):
    cfg = config(*overrides)
    counted = []
    monkeypatch.setattr(_Step, "_take_step", _counting(_Step._take_step, counted))
    plain, plain_rows = train(cfg, tmp_path / "plain", lean=False, monkeypatch=monkeypatch)
    assert not counted
    lean, lean_rows = train(cfg, tmp_path / "lean", lean=True, monkeypatch=monkeypatch)
    assert len(counted) == lean.global_step == plain.global_step > 0
    assert lean_rows == plain_rows
    ours, theirs = (
        torch.load(tmp_path / name / "ckpt/last.ckpt", weights_only=True)
        for name in ("lean", "plain")
    )
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    assert ours["loops"] == theirs["loops"]
    assert ours["global_step"] == theirs["global_step"]
    assert str(ours["lr_schedulers"]) == str(theirs["lr_schedulers"])


def _counting(method, counted):
    def wrapper(self, *args, **keywords):
        counted.append(1)
        return method(self, *args, **keywords)

    return wrapper


class Noisy(pl.LightningModule):
    """Logs within the step, skips a batch, and returns what Lightning allows."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = torch.nn.Linear(4, 1), []

    def training_step(self, batch, batch_idx):
        (x,) = batch
        loss = self.net(x).square().mean()
        self.log("loss", loss, prog_bar=True)
        self.log("both", loss, on_step=True, on_epoch=True)
        return (
            None if batch_idx == 3 else {"loss": loss, "extra": x.sum()} if batch_idx % 2 else loss
        )

    def on_train_batch_start(self, batch, batch_idx):
        return -1 if batch_idx == 5 else None

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append((batch_idx, sorted(outputs), float(outputs["loss"]) if outputs else None))
        self.log("at_end", float(batch_idx), on_step=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class Listener(pl.Callback):
    """Logs from a callback's hooks too."""

    def __init__(self):
        self.calls = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.calls.append(("start", batch_idx, trainer.global_step))
        pl_module.log("from_callback", float(batch_idx), on_step=True)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.calls.append(("end", batch_idx, trainer.global_step))


def noisy_fit(tmp_path, lean, module=None, callbacks=(), **settings):
    torch.manual_seed(0)
    module, listener = module or Noisy(), Listener()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[listener, *callbacks], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **settings,
    )  # fmt: skip
    if lean:
        make_lean(trainer)
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(28, 4)), batch_size=4))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return module, listener, metrics, trainer


@pytest.mark.filterwarnings("ignore")
def test_what_a_module_and_its_callbacks_see_is_the_same(tmp_path):
    (module, listener, metrics, trainer), (plain, theirs, expected, other) = (
        noisy_fit(tmp_path, lean) for lean in (True, False)
    )
    assert isinstance(trainer.fit_loop.epoch_loop, LeanEpochLoop)
    assert type(other.fit_loop.epoch_loop) is _TrainingEpochLoop
    assert module.seen == plain.seen
    assert listener.calls == theirs.calls
    assert metrics == expected
    assert torch.equal(module.net.weight, plain.net.weight)
    assert trainer.fit_loop.state_dict() == other.fit_loop.state_dict()


class Clipper(Noisy):
    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ):
        self.clip_gradients(optimizer, 0.01, "norm")


class ByHand(Noisy):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)


class Looks(pl.Callback):
    def on_after_backward(self, trainer, pl_module):
        trainer.looked = getattr(trainer, "looked", 0) + 1


class Closure(Noisy):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), max_iter=2)

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: {"module": Clipper()},
        lambda: {"module": ByHand()},
        lambda: {"module": Closure()},
        lambda: {"callbacks": [Looks()]},
        lambda: {"accumulate_grad_batches": 2},
        lambda: {"profiler": "simple"},
    ],
    ids=[
        "own clipping",
        "own step",
        "closure",
        "callback after backward",
        "accumulation",
        "profiler",
    ],
)
def test_whoever_asks_for_more_gets_lightnings_step(tmp_path, monkeypatch, make):
    monkeypatch.setattr(_Step, "advance", lambda *_: pytest.fail("a lean step"))
    *_, trainer = noisy_fit(tmp_path, True, **make())
    assert trainer.global_step > 0


@pytest.mark.filterwarnings("ignore")
def test_another_lightning_keeps_its_own_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(pl, "__version__", "2.7.0")
    *_, trainer = noisy_fit(tmp_path, True)
    assert type(trainer.fit_loop.epoch_loop) is _TrainingEpochLoop


@pytest.mark.storm
def test_a_compiled_net_learns_the_same_and_keeps_its_names(config, tmp_path, monkeypatch):
    cfg = config("callbacks=compile", "+callbacks.compile.backend=aot_eager", "model.dropout=0")
    called = []
    monkeypatch.setattr(torch.nn.Module, "compile", _counting(torch.nn.Module.compile, called))
    train(cfg, tmp_path / "compiled", lean=True, monkeypatch=monkeypatch)
    assert called
    train(config("model.dropout=0"), tmp_path / "plain", lean=True, monkeypatch=monkeypatch)
    ours, theirs = (
        torch.load(tmp_path / n / "ckpt/last.ckpt", weights_only=True)
        for n in ("compiled", "plain")
    )
    assert list(ours["state_dict"]) == list(theirs["state_dict"])
    for name, weight in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], weight, rtol=1e-4, atol=1e-5)


def test_new_memory_is_not_filled_while_it_trains(config, tmp_path, monkeypatch):
    seen = []
    step = _Step._take_step

    def optimize(self, batch, index):
        seen.append(
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.utils.deterministic.fill_uninitialized_memory,
            )
        )
        return step(self, batch, index)

    monkeypatch.setattr(_Step, "_take_step", optimize)
    train(config("trainer.max_epochs=1"), tmp_path, lean=True, monkeypatch=monkeypatch)
    assert set(seen) == {(True, False)}
    assert torch.utils.deterministic.fill_uninitialized_memory
