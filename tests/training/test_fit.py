"""``fit``: the same numbers whatever happens in between, and an end that says what it was."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config
from dlsearch.core.errors import ConfigError
from dlsearch.systems.shared.data_module import SealedTestSet
from dlsearch.tracking.journal import Journal, rows
from dlsearch.training.building import build_data
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.fit import fit
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import checkpoints
from dlsearch.training.state.rng import restore_rng, rng_state
from dlsearch.training.test_guard import TestSetSealed

# Dropout draws from torch's generator, augmentation from (seed, epoch, sample): both must come out
# the same.
RANDOM = ["model=mlp", "model.width=32", "model.depth=1", "model.dropout=0.3", "data.augment.translate=0.1",
          "data.augment.rotate=10", "scheduler=cosine"]  # fmt: skip


@functools.cache
def composed(store, *overrides):
    return compose_config([
        f"paths.store={store}", f"paths.data={store}", "data.train_size=200", "data.val_size=100", "data.batch_size=32",
        "trainer.accelerator=cpu", *overrides,
    ])  # fmt: skip


@pytest.fixture
def config(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "fit-store"
    return lambda *overrides: composed(str(store), *overrides).copy()


def run_in(folder: Path, **changes) -> Run:
    fields = {"objectives": ["val/accuracy"], "directions": ["maximize"], **changes}
    return Run(folder=folder, journal=Journal(folder / "journal.jsonl"), **fields)


def weights(folder: Path, name: str = "last") -> str:
    state = torch.load(folder / f"ckpt/{name}.ckpt", weights_only=True)["state_dict"]
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def curves(folder: Path) -> dict:
    """Every metric by name and step, times left out; the last row of a step counts."""
    found = {}
    for row in rows(folder / "journal.jsonl"):
        if row["row"] == "metrics":
            found |= {
                (k, row["step"]): v
                for k, v in row["values"].items()
                if not k.startswith(("time/", "system/"))
            }
    return found


def after(epochs: int):
    """A `stop` that says so within the epoch that follows `epochs` whole ones."""
    state = {"epochs": 0}

    def report(*_):
        state["epochs"] += 1
        return False

    return {"report": report, "stop": lambda: state["epochs"] >= epochs}


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, config):
    cfg = config(*RANDOM, "trainer.max_epochs=5", "seed=3")
    whole = fit(cfg, run_in(tmp_path / "whole"))
    # interrupted in the third epoch, and in the fourth: the second is reported again
    for _ in range(2):
        with pytest.raises(Interrupted):
            fit(cfg, run_in(tmp_path / "parts", **after(2)))
        assert (tmp_path / "parts/ckpt/last.ckpt").is_file()
        torch.rand(100)  # somebody else draws
    parts = fit(cfg, run_in(tmp_path / "parts"))
    assert (whole.state, whole.resumed_epoch, parts.resumed_epoch) == ("complete", None, 3)
    digests = ("state_sha256", "metrics_sha256", "split_sha256")
    for field in (
        "state",
        "values",
        "best_epoch",
        "best_step",
        "epochs",
        "n_params",
        "summary",
        *digests,
    ):
        assert getattr(parts, field) == getattr(whole, field), field
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert weights(tmp_path / "parts", "best") == weights(tmp_path / "whole", "best")
    assert curves(tmp_path / "parts") == curves(tmp_path / "whole")


def test_a_kill_between_the_last_checkpoint_and_the_best_one_costs_neither(
    tmp_path, config, monkeypatch
):
    cfg = config(*RANDOM, "trainer.max_epochs=3", "optimizer.lr=0.01")
    whole = fit(cfg, run_in(tmp_path / "whole"))
    assert whole.best_epoch == 2
    put = checkpoints._move_link

    def die(link, target):
        if target.name == "best.ckpt" and checkpoints.read(link)["epoch"] == 2:
            raise Interrupted
        put(link, target)

    monkeypatch.setattr(checkpoints, "_move_link", die)
    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts"))
    monkeypatch.undo()
    assert fit(cfg, run_in(tmp_path / "parts")).state_sha256 == whole.state_sha256


@pytest.mark.parametrize("epochs", [2, 5])
def test_a_kill_between_a_checkpoint_and_its_report_costs_no_report_and_no_verdict(
    tmp_path, config, epochs
):
    cfg = config(*RANDOM, f"trainer.max_epochs={epochs}")
    told = []

    def die(*_):
        if len(told) == 1:
            raise Interrupted
        told.append(0)

    def report(epoch, step, metrics):
        told.append((epoch, step, sorted(metrics)))
        return epoch == 1

    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path, report=die))
    told.clear()
    result = fit(cfg, run_in(tmp_path, report=report))
    assert [epoch for epoch, *_ in told] == [1]
    assert told[0][1] == 14
    assert "val/accuracy" in told[0][2]
    # what has its whole length is complete, whatever the pruner says
    state = "complete" if epochs == 2 else "pruned"
    assert (result.state, result.epochs, result.resumed_epoch) == (state, 2, 2)


@pytest.mark.parametrize("words", [
    ["trainer.max_epochs=3", "optimizer.lr=0.01"],
    ["trainer.max_epochs=30", "optimizer.lr=1e-9", "callbacks.early_stopping.patience=2"],
])  # fmt: skip
def test_a_kill_after_the_last_epoch_trains_no_further_one(tmp_path, config, words):
    """Neither where the epochs are all done nor where early stopping said so."""
    cfg = config(*RANDOM, *words)
    whole = fit(cfg, run_in(tmp_path / "whole"))

    def die(epoch, *_):
        if epoch == whole.epochs - 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts", report=die))
    parts = fit(cfg, run_in(tmp_path / "parts"))
    for field in (
        "state",
        "values",
        "best_epoch",
        "epochs",
        "summary",
        "state_sha256",
        "metrics_sha256",
    ):
        assert getattr(parts, field) == getattr(whole, field), field
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_the_digests_of_a_run_are_those_of_what_it_kept(tmp_path, config):
    result = fit(config(*RANDOM, "trainer.max_epochs=3", "optimizer.lr=0.05"), run_in(tmp_path))
    kept = torch.load(tmp_path / "ckpt/best.ckpt", weights_only=True)["state_dict"]
    assert result.state_sha256 == state_digest(kept)
    assert set(result.split_sha256) == {"train", "val", "test"}
    pruned = run_in(tmp_path / "pruned", report=lambda epoch, *_: epoch == 1)
    result = fit(config(*RANDOM, "trainer.max_epochs=3", "optimizer.lr=0.05"), pruned)
    kept = torch.load(tmp_path / "pruned/ckpt/last.ckpt", weights_only=True)["state_dict"]
    assert result.state_sha256 == state_digest(kept)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path, config):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        fit(config(*RANDOM, "trainer.max_epochs=2", f"seed={seed}"), run_in(tmp_path / str(number)))
        found.append(
            (weights(tmp_path / str(number)), tuple(sorted(curves(tmp_path / str(number)).items())))
        )
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]


def test_the_best_checkpoint_is_of_the_best_epoch_and_needs_no_pickle(tmp_path, config):
    seen = {}

    def report(epoch, step, metrics):
        seen[epoch] = (metrics["val/accuracy"], step, weights(tmp_path))
        return False

    result = fit(
        config(*RANDOM, "trainer.max_epochs=6", "optimizer.lr=0.05"),
        run_in(tmp_path, report=report),
    )
    best = max(seen, key=lambda epoch: (seen[epoch][0], -epoch))
    assert (result.best_epoch, result.values, result.best_step) == (
        best,
        [seen[best][0]],
        seen[best][1],
    )
    assert weights(tmp_path, "best") == seen[best][2]
    assert weights(tmp_path, "last") == seen[5][2]
    assert not list(tmp_path.rglob("*.part*"))
    names = {name for name, _ in curves(tmp_path)}
    assert {
        "objective",
        "best/val/accuracy",
        "final/val/accuracy",
        "best/epoch",
        "model/n_params",
    } <= names
    assert not any(name.startswith("test/") for name in names)


def test_early_stopping_watches_the_objective(tmp_path, config):
    cfg = config("model=linear", "optimizer=sgd", "optimizer.lr=1e-12", "trainer.max_epochs=50",
                 "callbacks.early_stopping.patience=3")  # fmt: skip
    result = fit(cfg, run_in(tmp_path))
    assert (result.state, result.best_epoch, result.epochs) == ("complete", 0, 4)


def test_a_minimised_objective(tmp_path, config):
    seen = []
    cfg = config(*RANDOM, "trainer.max_epochs=4", "optimizer.lr=0.1")

    def report(epoch, step, metrics):
        seen.append(metrics["val/loss"])
        return False

    result = fit(
        cfg, run_in(tmp_path, objectives=["val/loss"], directions=["minimize"], report=report)
    )
    assert result.values == [min(seen)]
    assert result.best_epoch == seen.index(min(seen))


def test_several_objectives_are_those_of_the_first_ones_best_epoch(tmp_path, config):
    seen = []
    objectives = ["val/accuracy", "val/loss", "model/n_params"]

    def report(epoch, step, metrics):
        seen.append((metrics["val/accuracy"], metrics["val/loss"]))
        return False

    run = run_in(
        tmp_path,
        objectives=objectives,
        directions=["maximize", "minimize", "minimize"],
        report=report,
    )
    result = fit(config(*RANDOM, "trainer.max_epochs=4"), run)
    assert result.values == [*seen[result.best_epoch], float(result.n_params)]
    assert result.n_params == 64 * 32 + 32 + 32 * 10 + 10
    assert seen[result.best_epoch][0] == max(value for value, _ in seen)


def test_an_objective_that_is_not_logged(tmp_path, config):
    both = ["val/accuracy", "val/beauty"]
    run = run_in(tmp_path, objectives=both, directions=["maximize"] * 2)
    with pytest.raises(ConfigError, match=r"^study\.objective: 'val/beauty' is not logged"):
        fit(config("model=linear", "trainer.max_epochs=1"), run)
    for name, callbacks in (("b", "default"), ("c", "none")):
        run = run_in(tmp_path / name, objectives=["val/beauty"])
        with pytest.raises(
            ConfigError, match=r"^study\.objective: 'val/beauty' is not logged .*val/accuracy"
        ):
            fit(config("model=linear", "trainer.max_epochs=1", f"callbacks={callbacks}"), run)
    cfg = config(
        "model=linear", "trainer.max_epochs=1", "+callbacks.early_stopping.monitor=val/beauty"
    )
    with pytest.raises(RuntimeError, match="val/beauty"):
        fit(cfg, run_in(tmp_path / "d"))


@pytest.mark.parametrize(("overrides", "reason"), [
    (["model=mlp", "model.width=32", "optimizer.lr=1e30"], "nan"),
    (["model=linear", "optimizer.lr=1e37", "optimizer.weight_decay=0"], "inf"),
])  # fmt: skip
def test_a_run_that_diverges_ends_with_the_epoch_and_has_no_value(
    tmp_path, config, overrides, reason
):
    result = fit(config(*overrides, "optimizer=sgd", "trainer.max_epochs=20"), run_in(tmp_path))
    assert (result.state, result.reason, result.values) == ("failed", reason, None)
    assert result.epochs <= 2
    assert result.error.startswith(f"{reason} after epoch")


def test_a_pruned_run_is_pruned_and_keeps_its_checkpoint(tmp_path, config):
    result = fit(
        config("model=linear", "trainer.max_epochs=20"),
        run_in(tmp_path, report=lambda epoch, *_: epoch == 1),
    )
    assert (result.state, result.reason, result.values, result.epochs) == ("pruned", None, None, 2)
    assert (tmp_path / "ckpt/last.ckpt").is_file()


def test_the_test_set_is_sealed_until_the_end(tmp_path, config):
    cfg = config("model=linear", "trainer.max_epochs=1")
    data = build_data(cfg)
    with pytest.raises(SealedTestSet):
        data.setup("test")
    with pytest.raises(SealedTestSet):
        data.test_dataloader()

    opened = []

    def unseal():
        opened.append((tmp_path / "a/ckpt/best.ckpt").is_file())

    assert fit(cfg, run_in(tmp_path / "b", unseal=unseal)).test is None
    assert opened == [], "nobody asked for the test"
    result = fit(cfg, run_in(tmp_path / "a", test=True, unseal=unseal))
    assert opened == [True], "once, after training"
    assert {"test/accuracy", "test/loss", "test/f1"} <= set(result.test["metrics"])
    assert sum(map(sum, result.test["confusion"])) == result.test["n"] == 360
    assert json.loads(json.dumps(result.to_json())) == result.to_json()
    for error in result.test["errors"]:
        assert error["label"] != error["prediction"]
        assert error["image"]["shape"] == [8, 8, 1]


def test_a_training_that_reads_the_test_set_fails(tmp_path, config, monkeypatch):
    from dlsearch.systems.shared.supervised import Classification

    def peek(self):
        self.trainer.datamodule.test_dataloader()

    monkeypatch.setattr(Classification, "on_train_start", peek)
    with pytest.raises(TestSetSealed):
        fit(config("model=linear", "trainer.max_epochs=1"), run_in(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("CUDA error: out of memory"),  # of a context for which there is no room
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_every_way_of_running_out_of_memory_is_oom(tmp_path, config, monkeypatch, error):
    from dlsearch.systems.shared.supervised import Classification

    def fail(self):
        raise error

    monkeypatch.setattr(Classification, "on_train_start", fail)
    result = fit(config("model=linear", "trainer.max_epochs=1"), run_in(tmp_path))
    assert (result.state, result.reason, result.peak_memory_mib) == ("failed", "oom", None)
    assert result.error == str(error)


def test_what_cannot_be_built_is_named(tmp_path, config):
    cfg = config("model=linear", "trainer.max_epochs=1")
    cfg.data.val_size = -5
    with pytest.raises(ConfigError, match=r"^data\.?.*val_size"):
        fit(cfg, run_in(tmp_path))
    assert not (tmp_path / "ckpt").exists()


def test_every_generator_comes_back():
    import random

    import numpy as np

    def draws():
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.rand(),  # noqa: NPY002
            np.random.randn(),  # noqa: NPY002
            torch.rand(3).tolist(),
        )

    draws()
    state = rng_state()
    first = draws()
    assert draws() != first
    restore_rng(state)
    assert draws() == first


@pytest.mark.parametrize("value", ["maybe", 2, "true"])
def test_deterministic_is_true_warn_or_false(tmp_path, config, value):
    from dlsearch.training.building import build_trainer

    cfg = config("model=linear")
    cfg.trainer.deterministic = value
    with pytest.raises(ConfigError, match=r"^trainer\.deterministic: expected true, warn or false"):
        build_trainer(cfg, run_in(tmp_path), [])


@pytest.mark.filterwarnings("ignore:.* is not deterministic")
@pytest.mark.parametrize(("value", "met"), [("warn", ["put_"]), (False, [])])
def test_operations_that_refuse_to_be_deterministic_are_noted(
    tmp_path, config, monkeypatch, value, met
):
    """``put_`` has no deterministic implementation on any device."""

    def draw(self):
        torch.zeros(4).put_(torch.tensor([1]), torch.tensor([1.0]))

    monkeypatch.setattr("dlsearch.systems.shared.supervised.Classification.on_train_start", draw)
    cfg = config("model=linear", "trainer.max_epochs=1", f"trainer.deterministic={value}")
    try:
        assert fit(cfg, run_in(tmp_path)).nondeterministic == met
        cfg.trainer.deterministic = True
        with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
            fit(cfg, run_in(tmp_path / "b"))
    finally:
        torch.use_deterministic_algorithms(False)


def test_fused_optimizers_are_clipped_under_bf16(tmp_path, config):
    """Lightning refuses it as if gradients were scaled, which bfloat16's are not."""
    cfg = config(
        "model=linear", "optimizer=adamw", "optimizer.fused=true", "trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val=1e-3", "trainer.max_epochs=1",
    )  # fmt: skip
    assert fit(cfg, run_in(tmp_path)).epochs == 1


def test_settings_of_the_trainer_reach_it(tmp_path, config):
    from dlsearch.training.building import build_callbacks, build_trainer

    cfg = config(
        "trainer.max_epochs=3", "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=2"
    )
    run = run_in(tmp_path)
    trainer = build_trainer(cfg, run, build_callbacks(cfg, run))
    assert (trainer.max_epochs, trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (
        3,
        0.5,
        2,
    )
    bad = OmegaConf.merge(cfg, {"trainer": {"precision": "17-imaginary"}})
    with pytest.raises(ConfigError, match=r"^trainer: .*17-imaginary"):
        build_trainer(bad, run, [])
