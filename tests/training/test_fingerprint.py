"""Digests of weights and metrics: equal exactly where the content is."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

from dlsearch.training.fingerprint import metrics_digest, state_digest


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_memory_format_views_and_order_of_names_change_nothing():
    plain = net().state_dict()
    digest = state_digest(plain)
    assert state_digest(net().to(memory_format=torch.channels_last).state_dict()) == digest
    assert state_digest(dict(reversed(plain.items()))) == digest
    big = {name: torch.stack([value, value])[1] for name, value in plain.items()}
    assert state_digest(big) == digest


def test_it_is_sha256_of_what_the_docstring_says():
    value = torch.tensor([[1.0, 2.0]])
    expected = hashlib.sha256(b"w\0torch.float32\0[1, 2]\0" + value.numpy().tobytes()).hexdigest()
    assert state_digest({"w": value}) == expected


@pytest.mark.parametrize("change", [
    lambda s: s | {"0.bias": torch.nextafter(s["0.bias"], torch.full((4,), 9.0))},
    lambda s: s | {"0.bias": s["0.bias"].double()},
    lambda s: s | {"0.bias": s["0.bias"].reshape(2, 2)},
    lambda s: {("x" if k == "0.bias" else k): v for k, v in s.items()},
    lambda s: {k: v for k, v in s.items() if k != "0.bias"},
    lambda s: s | {"extra": {"a": 1}},
])  # fmt: skip
def test_every_change_shows(change):
    plain = dict(net().state_dict())
    assert state_digest(change(dict(plain))) != state_digest(plain)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.bool, torch.int64]
)
def test_every_type_of_number(dtype):
    value = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert state_digest({"w": value}) == state_digest({"w": value.t().contiguous().t()})
    assert state_digest({"w": value}) != state_digest(
        {"w": 1 - value if dtype is not torch.bool else ~value}
    )
    assert state_digest({"w": value[0, 0]}) != state_digest({"w": value[:0, 0]})


def test_conjugated_and_sparse_tensors_count_as_what_they_mean():
    value = torch.tensor([1 + 2j, 3 - 1j])
    assert state_digest({"w": value.conj()}) == state_digest({"w": value.conj().resolve_conj()})
    dense = torch.eye(3)
    assert state_digest({"w": dense.to_sparse()}) == state_digest({"w": dense})


ROWS = [
    (0, 10, {"val/loss": 0.5, "time/epoch_s": 1.0}),
    (1, 20, {"val/loss": 0.25, "time/epoch_s": 2.0}),
]


def test_metrics_are_chained_and_times_left_out():
    assert metrics_digest(ROWS[1:], metrics_digest(ROWS[:1])) == metrics_digest(ROWS)
    assert metrics_digest(
        [(e, s, {"val/loss": m["val/loss"]}) for e, s, m in ROWS]
    ) == metrics_digest(ROWS)
    assert metrics_digest([]) == ""


@pytest.mark.parametrize("rows", [
    ROWS[:1],
    ROWS[::-1],
    [ROWS[0], (1, 20, {"val/loss": 0.25 + 2**-54})],
    [ROWS[0], (1, 21, {"val/loss": 0.25})],
    [ROWS[0], (1, 20, {"val/loss": float("nan")})],
    [ROWS[0], (1, 20, {"val/losses": 0.25})],
])  # fmt: skip
def test_every_change_of_the_metrics_shows(rows):
    assert metrics_digest(rows) != metrics_digest(ROWS)
