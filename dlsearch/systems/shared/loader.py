"""Batches cut out of tensors on the training device: no workers, no per-sample Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

#: Numbers that are cut out and transformed at a time: small batches share the price of the calls to
#: torch, which is above that of their arithmetic. As float32 they take 1.5 MB; with 4 MB, which
#: leave a core's own cache and are given back to the system and fetched again, CIFAR-10 comes
#: slower (benchmarks/loader.py).
CHUNK = 380_000

#: (inputs, the samples' own numbers, epoch) -> what the net sees
Transform = Callable[[Tensor, Tensor, int], Tensor]


class Shuffled:
    """An order by f(seed, epoch).

    Lightning tells the epoch to what is called ``sampler`` and has ``set_epoch``.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch, also the first after a resumption."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """(size,) on the CPU, whatever device trains: the same order everywhere."""
        seed = (self.seed * 1_000_003 + self.epoch) % 2**63
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(self.size, generator=generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.size


class InOrder(SequentialSampler):
    """The samples as they are.

    Lightning recognises its parent: ``overfit_batches`` asks for it.
    """

    def __init__(self, size: int) -> None:
        super().__init__(range(size))
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Augmentation differs from epoch to epoch even where the order does not."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """(size,)."""
        return torch.arange(self.size)


class TensorLoader:
    """An iterable of (x, y) batches that lie on one device.

    Args:
        inputs: (N, ...) what is stored; may be a memory map, which is read batch by batch.
        targets: (N, ...).
        batch_size: Samples a batch.
        index: (n,) the samples to use, all by default. A sample's number here is its number for
            `transform` too.
        shuffle: A new order in each epoch, by f(seed, epoch).
        seed: Of the order.
        drop_last: Leave out a last batch that is smaller than the others.
        transform: From stored to seen, by the batch.
        rank: Of this process, of `world` ones that share each epoch.
        world: Number of processes.
    """

    #: Lightning looks here before it looks at `sampler`
    batch_sampler = None

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        batch_size: int,
        index: Tensor | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.batch_size = batch_size
        self.index = torch.arange(len(inputs)) if index is None else index
        self.numbers = self.index
        self.drop_last = drop_last
        self.transform = transform
        self.rank = rank
        self.world = world
        self.sampler: Shuffled | InOrder
        if shuffle:
            self.sampler = Shuffled(len(self.index), seed)
        else:
            self.sampler = InOrder(len(self.index))

    def to(self, device: torch.device | str) -> TensorLoader:
        """Hold the samples on `device` from now on; on the CPU they stay where they are."""
        device = torch.device(device)
        if device != self.inputs.device:
            used_inputs = self.inputs[self.index.to(self.inputs.device)]
            used_targets = self.targets[self.index.to(self.targets.device)]
            self.inputs = used_inputs.to(device)
            self.targets = used_targets.to(device)
            self.numbers = self.numbers.to(device)
            self.index = torch.arange(len(self.inputs), device=device)
        return self

    @property
    def n_samples(self) -> int:
        """Samples an epoch, in this process.

        Processes that train together must take equally many steps.
        """
        size = len(self.index)
        if self.world == 1:
            return size
        if isinstance(self.sampler, Shuffled):
            return size // self.world
        return len(range(self.rank, size, self.world))

    def __len__(self) -> int:
        return count_batches(
            self.n_samples,
            self.batch_size,
            drop_last=self.drop_last,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.sampler.epoch
        transform = self.transform
        order = self.sampler.order()
        if self.world > 1:
            order = order[self.rank :: self.world][: self.n_samples]
        order = order[: len(self) * self.batch_size].to(self.index.device)
        rows = self.index.index_select(0, order)
        is_own = self.numbers is self.index
        numbers = rows if is_own else self.numbers.index_select(0, order)
        size = self.batch_size
        of_batch = max(1, size * self.inputs[0].numel())
        several = size * max(1, CHUNK // of_batch)
        chunks = zip(rows.split(several), numbers.split(several), strict=True)
        for at, number in chunks:
            if several > size:
                x = self.inputs.index_select(0, at)
                y = self.targets.index_select(0, at)
                if transform is not None:
                    x = transform(x, number, epoch)
                yield from zip(x.split(size), y.split(size), strict=True)
            # No name holds what was stored: its memory is taken for the next batch, while a core's
            # cache has it.
            elif transform is None:
                yield self.inputs.index_select(0, at), self.targets.index_select(0, at)
            else:
                yield (
                    transform(self.inputs.index_select(0, at), number, epoch),
                    self.targets.index_select(0, at),
                )


def count_batches(samples: int, batch_size: int, *, drop_last: bool) -> int:
    """How many batches there are; the last of several may be left out where it is smaller."""
    whole, left = divmod(samples, batch_size)
    is_dropped = drop_last and whole > 0
    if left and not is_dropped:
        return whole + 1
    return whole
