from __future__ import annotations

import pytest
import torch

from dlsearch.systems.shared.loader import TensorLoader
from dlsearch.systems.vision.data.augment import Augment, ImageTransform

N = 23
X = torch.randint(
    0, 256, (N, 1, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)
Y = torch.arange(N)


def loader(**settings: object) -> TensorLoader:
    return TensorLoader(X, Y, **{"batch_size": 5, **settings})  # type: ignore[arg-type]


def all_of(batches: TensorLoader) -> tuple[torch.Tensor, torch.Tensor]:
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def test_batches_are_the_plain_tensors() -> None:
    for (x, y), a, b in zip(loader(), X.split(5), Y.split(5), strict=True):
        assert torch.equal(x, a)
        assert torch.equal(y, b)


def test_every_sample_comes_once_in_an_order_by_seed_and_epoch() -> None:
    shuffled = loader(shuffle=True, seed=3)
    first = all_of(shuffled)[1]
    assert torch.equal(first, all_of(shuffled)[1])
    shuffled.sampler.set_epoch(1)
    second = all_of(shuffled)[1]
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(N))
    other = loader(shuffle=True, seed=4)
    assert len({tuple(order.tolist()) for order in (first, second, all_of(other)[1])}) == 3


@pytest.mark.parametrize(
    ("size", "drop_last", "lengths"),
    [(5, False, 5), (5, True, 4), (23, True, 1), (64, True, 1), (1, False, 23)],
)
def test_the_last_batch_is_dropped_only_where_asked_and_not_the_only_one(
    size: int, drop_last: bool, lengths: int
) -> None:
    batches = loader(batch_size=size, drop_last=drop_last)
    assert len(batches) == len(list(batches)) == lengths


def test_a_subset_keeps_its_samples_numbers() -> None:
    seen: list[int] = []

    def note(x: torch.Tensor, index: torch.Tensor, epoch: int) -> torch.Tensor:
        seen.extend(index.tolist())
        return x

    chosen = torch.tensor([20, 3, 11])
    x, y = all_of(loader(index=chosen, transform=note))
    assert y.tolist() == seen == [20, 3, 11]
    assert torch.equal(x, X[chosen])


def test_moving_changes_nothing_but_the_device() -> None:
    transform = ImageTransform([0.1], [0.5], Augment(crop=2))
    there = loader(index=torch.tensor([20, 3, 11]), transform=transform).to("meta")
    assert next(iter(there))[0].device.type == "meta"
    assert len(there.inputs) == 3  # what it does not use stays behind
    same = loader()
    assert same.to("cpu").inputs is X


@pytest.mark.gpu
def test_the_gpu_sees_the_same_images_in_the_same_order() -> None:
    transform = ImageTransform([0.1], [0.5], Augment(crop=2, horizontal_flip=0.5, rotate=10.0))
    settings = {"index": torch.arange(3, 20), "shuffle": True, "transform": transform}
    (x, y), (a, b) = all_of(loader(**settings)), all_of(loader(**settings).to("cuda"))
    assert torch.equal(y, b.cpu())
    torch.testing.assert_close(x, a.cpu(), rtol=1e-4, atol=1e-4)


def test_augmentation_is_of_the_sample_whatever_the_batch() -> None:
    transform = ImageTransform([0.1], [0.5], Augment(crop=2, rotate=10.0), seed=5)
    a, b = (
        loader(transform=transform, batch_size=4),
        loader(transform=transform, batch_size=9, shuffle=True),
    )
    for each in (a, b):
        each.sampler.set_epoch(2)
    x, _ = all_of(a)
    shuffled, y = all_of(b)
    assert torch.equal(shuffled, x[y])


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("augment", [None, Augment(translate=0.2, rotate=20, horizontal_flip=0.5)])
def test_batches_cut_out_together_are_those_cut_out_one_by_one(
    monkeypatch: pytest.MonkeyPatch, augment: Augment | None, drop_last: bool
) -> None:
    def batches(numbers_at_a_time: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        monkeypatch.setattr("dlsearch.systems.shared.loader.CHUNK", numbers_at_a_time)
        transform = ImageTransform([0.5], [0.25], augment, seed=7)
        return list(loader(shuffle=True, transform=transform, drop_last=drop_last))

    alone = batches(1)
    for together in (batches(2 * 5 * 25), batches(1 << 20)):
        assert [len(y) for _, y in together] == [len(y) for _, y in alone]
        for (x, y), (a, b) in zip(together, alone, strict=True):
            assert torch.equal(x, a)
            assert torch.equal(y, b)


def test_processes_share_an_epoch() -> None:
    shares = [loader(shuffle=True, rank=rank, world=2) for rank in range(2)]
    seen = [all_of(share)[1].tolist() for share in shares]
    assert [len(share) for share in shares] == [3, 3]
    # equally many steps: one sample waits for another epoch
    assert len(set(seen[0]) | set(seen[1])) == 22
    evaluated = [all_of(loader(rank=rank, world=2))[1].tolist() for rank in range(2)]
    assert sorted(evaluated[0] + evaluated[1]) == list(range(N))
