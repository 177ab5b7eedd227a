"""Micro-batches: the step of the whole batch, made in parts."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from dlsearch.tracking.journal import rows
from dlsearch.training.failures import is_out_of_memory
from dlsearch.training.fit import fit
from dlsearch.training.micro_batches import length, parts
from dlsearch.training.state.checkpoints import read
from tests.training.test_fit import composed, run_in

PLAIN = ["model=mlp", "model.width=32", "model.depth=2", "model.dropout=0", "trainer.max_epochs=3",
         "optimizer.lr=0.01"]  # fmt: skip


@pytest.fixture
def config(tmp_path_factory):
    store = tmp_path_factory.getbasetemp() / "fit-store"
    return lambda *words: composed(str(store), *PLAIN, *words).copy()


def state(folder):
    return read(folder / "ckpt/last.ckpt")["state_dict"]


def metrics(folder):
    found = {}
    for row in rows(folder / "journal.jsonl"):
        if row["row"] == "metrics":
            for name, value in row["values"].items():
                found.setdefault(name, []).append((row["step"], value))
    return found


@pytest.mark.parametrize("words", [
    ["optimizer=momentum"],
    pytest.param(
        ["scheduler=cosine", "trainer.gradient_clip_val=0.5", "task.l2=0.001"],
        marks=pytest.mark.storm,
    ),
    pytest.param(["trainer.accumulate_grad_batches=2"], marks=pytest.mark.storm),
])  # fmt: skip
def test_parts_of_a_batch_make_its_step(tmp_path, config, words):
    """200 samples in batches of 32, the last of 8; in 2 and in 5 parts, which do not divide it."""
    results = {
        n: fit(config(*words), run_in(tmp_path / str(n), micro_batches=n)) for n in (1, 2, 5)
    }
    whole = state(tmp_path / "1")
    before = metrics(tmp_path / "1")
    for count in (2, 5):
        assert (results[count].state, results[count].micro_batches) == ("complete", count)
        assert results[count].best_step == results[1].best_step
        for name, value in state(tmp_path / str(count)).items():
            torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-5)
        found = metrics(tmp_path / str(count))
        assert [step for step, _ in found["train/loss"]] == [
            step for step, _ in before["train/loss"]
        ]
        for name in ("train/loss", "val/loss"):
            torch.testing.assert_close(
                [v for _, v in found[name]], [v for _, v in before[name]], rtol=1e-3, atol=1e-5
            )
        steps = [step for step, _ in found["train/loss_step"]]
        assert len(set(steps)) == len(steps), "one row a step"


def test_a_resumed_training_may_change_the_number_of_parts(tmp_path, config):
    from dlsearch.training.run import Interrupted
    from tests.training.test_fit import after

    fit(config(), run_in(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(config(), run_in(tmp_path / "parts", **after(1)))
    result = fit(config(), run_in(tmp_path / "parts", micro_batches=4))
    assert (result.resumed_epoch, result.micro_batches) == (1, 4)
    for name, value in state(tmp_path / "parts").items():
        torch.testing.assert_close(value, state(tmp_path / "whole")[name], rtol=1e-3, atol=1e-5)


def test_what_cannot_be_split_trains_whole_batches(tmp_path, config):
    words = ["optimizer=kfac", "trainer.max_epochs=1"]
    whole = fit(config(*words), run_in(tmp_path / "whole"))
    result = fit(config(*words), run_in(tmp_path / "parts", micro_batches=2))
    assert (result.micro_batches, result.state_sha256) == (1, whole.state_sha256)


@pytest.mark.parametrize("words", [
    "CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
])  # fmt: skip
def test_an_allocation_that_failed_is_known(words):
    assert is_out_of_memory(RuntimeError(words))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError(words))


Pair = namedtuple("Pair", "x y")


def test_batches_of_every_shape_are_cut_alike():
    x, y = torch.arange(10.0).reshape(5, 2), torch.arange(5)
    for batch in ((x, y), [x, y], {"x": x, "y": y, "name": "a"}, Pair(x, y), ((x, x), y)):
        assert length(batch) == 5
        found = parts(batch, 2)
        assert [share for _, share in found] == [0.6, 0.4]
        assert type(found[0][0]) is type(batch)
    assert torch.equal(torch.cat([part for part, _ in parts(x, 3)]), x)
    assert parts({"x": x, "name": "a"}, 2)[1][0]["name"] == "a"
    assert [share for _, share in parts(x, 99)] == [0.2] * 5
    for batch in (x[:1], (x, torch.zeros(4)), "abc", torch.tensor(1.0), ()):
        assert parts(batch, 2) == [(batch, 1.0)] or len(parts(batch, 2)) == 1
