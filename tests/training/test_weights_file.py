"""Files of weights: what goes in comes out, and what was changed is noticed."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from dlsearch.core.files.checksum import Damaged, check
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.state import weights_file
from dlsearch.training.state.loading import OpaqueState


class Own:
    """A class of somebody's own."""


SHARED = torch.randn(6)
STATE = {
    "a": SHARED, "tied": SHARED, "part": SHARED[1:4], "turned": torch.randn(2, 3).t(), "empty": torch.zeros(0),
    "scalar": torch.tensor(3), "complex": torch.randn(3, dtype=torch.complex128), "sparse": torch.eye(3).to_sparse(),
    "half": torch.ones(2, dtype=torch.bfloat16), "flag": torch.tensor([True, False]),
    "conjugate": torch.randn(2, dtype=torch.complex64).conj(), "lazy": nn.LazyLinear(3).weight,
    "nothing": None, "own": Own(), "extra": {
        "n": 1, "$": float("nan"), 3: (1, {2}, frozenset()), "tensor": torch.ones(2), "array": np.arange(4.0),
        "number": np.float32(0.5), "ordered": OrderedDict(a=1), "bytes": b"x", "texts": np.array(["a", "bb"]),
        "dtype": torch.float16, "device": torch.device("cpu"), "size": torch.Size([1, 2]), "complex": 1j,
    },
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "best.safetensors"
    weights_file.write(path, STATE, {"epoch": 3})
    return path


def test_all_that_a_state_may_hold_comes_back(path):
    found = weights_file.read(path)
    assert found.about == {"epoch": 3}
    assert found.state.keys() == STATE.keys()
    for name, value in STATE.items():
        if isinstance(value, torch.Tensor) and name != "lazy":
            assert found.state[name].dtype == value.dtype, name
            assert torch.equal(found.state[name].to_dense(), value.to_dense()), name
    assert found.state["own"] == OpaqueState(f"{Own.__module__}.Own")
    assert nn.parameter.is_lazy(found.state["lazy"])
    assert found.state["sparse"].layout is torch.sparse_coo
    extra, wanted = found.state["extra"], dict(STATE["extra"])
    assert np.isnan(extra.pop("$"))
    assert np.isnan(wanted.pop("$"))
    for name in ("tensor", "array", "texts"):
        theirs, mine = extra.pop(name), wanted.pop(name)
        assert type(theirs) is type(mine)
        assert theirs.dtype == mine.dtype
        assert (theirs == mine).all()
    assert extra == wanted
    assert {key: type(value) for key, value in extra.items()} == {
        key: type(value) for key, value in wanted.items()
    }


def test_what_is_shared_is_stored_once(tmp_path):
    large = torch.zeros(100_000)
    path = tmp_path / "best.safetensors"
    weights_file.write(path, {"a": large, "b": large}, {})
    assert path.stat().st_size < 500_000
    state = weights_file.read(path).state
    assert state["a"] is state["b"]
    assert state_digest(state) == state_digest({"a": large, "b": large})


def test_a_part_of_a_storage_takes_its_own_bytes(tmp_path):
    path = tmp_path / "best.safetensors"
    weights_file.write(path, {"a": torch.zeros(1_000_000)[:5]}, {})
    assert path.stat().st_size < 2_000


def test_every_changed_byte_is_noticed(path):
    data = path.read_bytes()
    check(path)
    places = [*range(0, len(data), 11), len(data) - 1]
    for at in places:
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(Damaged):
            check(path)
    for content in (data[:-1], data[:20], b"", data + b"x"):
        path.write_bytes(content)
        with pytest.raises(Damaged):
            check(path)


@pytest.mark.parametrize("content", [
    b"", b"PK\x05\x06", b"\xff" * 16, (2).to_bytes(8, "little") + b"[]", (6).to_bytes(8, "little") + b'{"a":1',
])  # fmt: skip
def test_another_file_is_none_of_weights(tmp_path, content):
    path = tmp_path / "best.safetensors"
    path.write_bytes(content)
    with pytest.raises(Damaged, match="is damaged"):
        check(path)
    with pytest.raises(Damaged, match="cannot be read as a file of weights"):
        weights_file.read(path)


def test_a_file_of_another_program_has_tensors_alone(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "theirs.safetensors"
    save_file({"w": torch.ones(2)}, path)
    assert weights_file.read(path).state.keys() == {"w"}


def test_a_full_disk_is_an_error_of_the_system():
    from pathlib import Path

    with pytest.raises(OSError, match="No space left"):
        weights_file.write(Path("/dev/full"), {"a": torch.ones(2)}, {})
