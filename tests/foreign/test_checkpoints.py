"""Modules that keep odd things in their checkpoints, or make their nets in hooks: resumed, scored, or refused in time."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest
import torch

from dlsearch.config.compose import compose_config
from dlsearch.core.files.checksum import seal
from dlsearch.execution.scoring import Trained, score
from dlsearch.tracking.journal import Journal
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.fit import fit
from dlsearch.training.run import Interrupted, Run
from dlsearch.training.state import checkpoints, weights_file
from dlsearch.training.state.loading import WeightsMismatchError
from dlsearch.training.state.restoring import of_result
from dlsearch.training.state.resume_record import ResumeRecord
from tests.kinds import quick_if

pytestmark = pytest.mark.filterwarnings("ignore:Attribute 'layer' is an instance")

KEY = "1" * 64
SAME = (
    "state",
    "values",
    "best_epoch",
    "epochs",
    "n_params",
    "summary",
    "state_sha256",
    "metrics_sha256",
)


@functools.cache
def composed(store):
    return compose_config([
        f"paths.store={store}", f"paths.data={store}", "trainer.accelerator=cpu", "trainer.max_epochs=3",
        "callbacks=none", "allow_targets=[tests]", "seed=5",
    ])  # fmt: skip


@pytest.fixture
def config(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "foreign-store"

    def make(module, *, odd=True, callback=None):
        cfg = composed(str(store)).copy()
        cfg.task = {"_target_": f"tests.foreign.checkpoints.{module}"}
        cfg.data = {"_target_": "tests.foreign.checkpoints.Digits", "odd": odd}
        if callback is not None:
            cfg.callbacks = {"one": callback}
        return cfg

    return make


def run_in(folder: Path, **changes) -> Run:
    fields = {
        "objectives": ["val_acc"],
        "directions": ["maximize"],
        "resume_key": KEY,
        **changes,
    }
    return Run(folder=folder, journal=Journal(folder / "journal.jsonl"), **fields)


def after(epochs: int):
    """A `stop` that says so within the epoch that follows `epochs` whole ones."""
    seen = []

    def report(*_):
        seen.append(None)
        return False

    return {"report": report, "stop": lambda: len(seen) >= epochs}


MODULES = [
    "Hyperparameters", "KeepsVocabulary", "PlainExtraState", "OwnExtraState", "Tied", "Shared", "Lazy", "InDouble",
    "CompiledInSetup", "ResizedInSetup", "Parametrized", "InConfigureModel", "LeavesFrozenOut", "Renames", "Ema",
]  # fmt: skip
#: Those of make test.
QUICK = ("Hyperparameters", "KeepsVocabulary", "OwnExtraState", "Tied", "Lazy", "LeavesFrozenOut")
CALLBACKS = {
    "KeepsVocabulary": {"_target_": "tests.foreign.checkpoints.History"},
    "Tied": {"_target_": "pytorch_lightning.callbacks.EMAWeightAveraging", "decay": 0.9},
}


@pytest.mark.parametrize("module", quick_if(MODULES, lambda module: module in QUICK))
def test_it_resumes_and_is_scored_as_it_was_trained(tmp_path, config, module):
    cfg = config(module, callback=CALLBACKS.get(module))
    whole = fit(cfg, run_in(tmp_path / "whole"))
    assert (whole.state, whole.error) == ("complete", None)
    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts", **after(2)))
    parts = fit(cfg, run_in(tmp_path / "parts"))
    assert parts.resumption == {"from": "last.ckpt", "damaged": []}
    for field in SAME:
        assert getattr(parts, field) == getattr(whole, field), field
    opened = []
    run = run_in(tmp_path / "test", unseal=lambda: opened.append(True))
    trained = Trained(cfg, tmp_path / "parts", expected=of_result("val_acc", parts))
    assert trained.checkpoint.name == "best.safetensors"
    found = score([trained], 0, run)
    assert opened == [True]
    assert found["metrics"]["test_acc"] > 0.3, "an untrained net has 0.1"
    assert state_digest(weights_file.read(trained.checkpoint).state) == whole.state_sha256


@pytest.mark.parametrize(
    ("module", "reason"),
    quick_if(
        [
            ("Forgets", "net.0.bias"),
            ("Swaps", "when they were trained"),
            ("HiddenState", "when they were trained"),
        ],
        lambda case: case[0] == "HiddenState",
    ),
)
def test_what_is_not_what_was_trained_opens_nothing(tmp_path, config, module, reason):
    cfg = config(module)
    result = fit(cfg, run_in(tmp_path))
    trained = Trained(cfg, tmp_path, expected=of_result("val_acc", result))
    with pytest.raises(WeightsMismatchError, match=reason):
        score([trained], 0, run_in(tmp_path / "test", unseal=lambda: pytest.fail("opened")))


class Trap:
    """What somebody puts into a checkpoint that is not theirs: it would make a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def set_trap(path: Path, trap: Path) -> None:
    """Put a pickle into a checkpoint that runs something, and a digest that fits."""
    saved = torch.load(path, weights_only=False)
    path.unlink()  # another name of the same file stays
    torch.save({**saved, "trap": Trap(trap)}, path)
    seal(path)


@pytest.fixture
def interrupted(tmp_path, config):
    """A training that stopped after two epochs, with objects in its checkpoints."""
    with pytest.raises(Interrupted):
        fit(config("Hyperparameters"), run_in(tmp_path / "run", **after(2)))
    return tmp_path / "run"


def test_a_changed_checkpoint_is_not_unpickled(tmp_path, config, interrupted, capsys):
    """The one before is taken, and then none; each is said."""
    cfg = config("Hyperparameters")
    whole = fit(cfg, run_in(tmp_path / "whole"))
    for name in ("last.ckpt", "previous.ckpt"):
        set_trap(interrupted / "ckpt" / name, tmp_path / "ran")
        copy = tmp_path / f"without {name}"
        shutil.copytree(interrupted, copy)
        result = fit(cfg, run_in(copy))
        assert not (tmp_path / "ran").exists()
        damaged = result.resumption["damaged"]
        assert damaged[0] == "last.ckpt"
        assert f"{name} was changed" in capsys.readouterr().err
        assert (result.values, result.state_sha256) == (whole.values, whole.state_sha256)
    assert result.resumption == {"from": "the start", "damaged": ["last.ckpt", "previous.ckpt"]}


@pytest.mark.parametrize("key", ["2" * 64, ""])
def test_of_another_user_only_plain_values_are_read(tmp_path, config, interrupted, key):
    path = interrupted / "ckpt/last.ckpt"
    set_trap(path, tmp_path / "ran")
    with pytest.raises(checkpoints.Damaged, match="was changed"):
        checkpoints.is_own(path, ResumeRecord(path.parent, key))
    (path.parent / "resume.json").unlink()  # somebody's own record would not help, either
    assert checkpoints.resume(path.parent, ResumeRecord(path.parent, key)).path is None
    assert not (tmp_path / "ran").exists()


def test_a_training_of_an_earlier_version_goes_on(config, tmp_path):
    """It had neither a record nor a file of weights; its best checkpoint may stay the best."""
    cfg = config("Plain", odd=False)
    whole = fit(cfg, run_in(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts", **after(2)))
    folder = tmp_path / "parts/ckpt"
    for name in ("resume.json", "best.safetensors"):
        (folder / name).unlink()
    best = folder / "best.ckpt"
    parts = fit(cfg, run_in(tmp_path / "parts"))
    assert (parts.state_sha256, parts.resumption["from"]) == (whole.state_sha256, "last.ckpt")
    assert checkpoints.is_whole(checkpoints.find_weights(folder), ResumeRecord(folder, KEY))
    best.write_bytes(best.read_bytes()[:-1])
    assert not checkpoints.is_whole(checkpoints.find_weights(folder), ResumeRecord(folder, KEY))


def test_a_kill_before_the_weights_have_their_name(config, tmp_path):
    """The best checkpoint is the last one: its weights are written again from it."""
    cfg = config("KeepsVocabulary")
    whole = fit(cfg, run_in(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts", **after(1)))
    (tmp_path / "parts/ckpt/best.safetensors").unlink()
    (tmp_path / "parts/ckpt/best.ckpt").unlink()
    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path / "parts", stop=lambda: True))
    stored = weights_file.read(tmp_path / "parts/ckpt/best.safetensors")
    assert stored.about["epoch"] == 0
    parts = fit(cfg, run_in(tmp_path / "parts"))
    assert parts.state_sha256 == whole.state_sha256


def test_weights_of_another_epoch_are_passed_over(config, tmp_path):
    """Those that the last checkpoint speaks of are needed at the end."""
    cfg = config("Plain", odd=False)
    with pytest.raises(Interrupted):
        fit(cfg, run_in(tmp_path, **after(2)))
    path = tmp_path / "ckpt/best.safetensors"
    stored = weights_file.read(path)
    weights_file.write(path, stored.state, {**stored.about, "epoch": 7})
    record = ResumeRecord(path.parent, KEY)
    entry = record.find(checkpoints.sealed_digest(path.with_name("last.ckpt")))
    found = checkpoints.resume(path.parent, record)
    if entry.best == entry.place:
        assert found.path is not None, "they are written again"
    else:
        assert "last.ckpt" in found.damaged


def test_a_module_that_only_a_training_reads_back_is_named(config, tmp_path):
    from dlsearch.training.building import build_task
    from dlsearch.training.state.loading import load_made

    cfg = config("OwnExtraState")
    fit(cfg, run_in(tmp_path))
    state = checkpoints.weights(tmp_path / "ckpt/best.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"Vocabulary, which is no plain data"):
        load_made(build_task(cfg), state)


@pytest.mark.parametrize(
    "module", ["Tied", "Shared", "Lazy", "PlainExtraState", "CompiledInSetup", "InConfigureModel"]
)
def test_others_load_the_weights_without_a_training(config, tmp_path, module):
    from dlsearch.training.building import build_task
    from dlsearch.training.state.loading import load_made

    cfg = config(module)
    cfg.trainer.max_epochs = 1
    result = fit(cfg, run_in(tmp_path))
    task = build_task(cfg)
    load_made(task, checkpoints.weights(tmp_path / "ckpt/best.safetensors"))
    names = {name.replace("_orig_mod.", "") for name in task.state_dict()}
    assert "net.0.weight" in names or module == "PlainExtraState"
    if module != "CompiledInSetup":
        assert state_digest(task.state_dict()) == result.state_sha256
