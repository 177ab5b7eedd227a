"""How fast batches come: samples a second of dlsearch's in-memory loader, of raw tensors, and of a DataLoader.

    python benchmarks/loader.py [--rounds 7] [--samples 12800] [--batch-size 64] [--threads 1]
    [--out FILE]

One epoch a round and contender, in a random order; the first round is not counted. Nothing is done
with a batch but to take it. Whoever runs just before leaves the caches full of other data, so each
but the DataLoaders, which are too slow for that to matter, takes an epoch that is not counted
before the one that is.

    raw tensor, bytes     for each batch of a random permutation: index_select of uint8 images and labels, to float32,
                          standardised in place (the same arithmetic as dlsearch's, nothing around it)
    raw tensor, floats    index_select alone, of images that were standardised beforehand: four times the memory, and no
                          augmentation is possible before standardisation
    dlsearch              its loader, as a trial uses it
    DataLoader            torchvision's data set and transforms; no worker processes unless --loader-workers says so

For CIFAR-10, `augmented` adds a random crop (padding 4) and a horizontal flip; the raw tensor has
no such row.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import machine
import torch
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from dlsearch.systems.vision.data.augment import Augment
from dlsearch.systems.vision.data.image import CIFAR10, MNIST

STATISTICS: dict[str, tuple[list[float], list[float]]] = {
    "MNIST": ([0.1307], [0.3081]),
    "CIFAR-10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}


def drain(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Samples a second of an epoch."""
    started, seen = time.perf_counter(), 0
    for x, _ in batches:
        seen += len(x)
    return seen / (time.perf_counter() - started)


def raw_bytes(
    x: torch.Tensor, y: torch.Tensor, size: int, mean: list[float], std: list[float]
) -> Iterable[Any]:
    scale = (1 / (torch.tensor(std) * 255))[:, None, None]
    shift = (-torch.tensor(mean) / torch.tensor(std))[:, None, None]
    for index in torch.randperm(len(x)).split(size):
        yield x.index_select(0, index).float().mul_(scale).add_(shift), y.index_select(0, index)


def raw_floats(x: torch.Tensor, y: torch.Tensor, size: int) -> Iterable[Any]:
    for index in torch.randperm(len(x)).split(size):
        yield x.index_select(0, index), y.index_select(0, index)


def measure(given: argparse.Namespace, name: str, cache: Path) -> list[list[str]]:
    """The rows of one data set."""
    mean, std = STATISTICS[name]
    module = {"MNIST": MNIST, "CIFAR-10": CIFAR10}[name]
    options: dict[str, Any] = {
        "root": given.data, "cache": str(cache), "num_classes": 10, "batch_size": given.batch_size,
        "train_size": given.samples, "val_size": 1000, "mean": mean, "std": std, "shape": module.native_shape,
    }  # fmt: skip
    data = module(**options)
    data.prepare_data()
    loader = data.train_dataloader()
    x = loader.inputs.index_select(0, loader.index)
    y = loader.targets.index_select(0, loader.index)
    # what it holds does not matter
    floats = torch.cat([x_part for x_part, _ in raw_bytes(x, y, 1024, mean, std)])
    reader = {"MNIST": datasets.MNIST, "CIFAR-10": datasets.CIFAR10}[name]
    to_tensor = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    index = loader.index.tolist()

    def torchvision(steps: list[Any]) -> Any:
        images = Subset(reader(given.data, train=True, transform=transforms.Compose(steps)), index)
        return DataLoader(
            images, batch_size=given.batch_size, shuffle=True, num_workers=given.loader_workers,
            persistent_workers=given.loader_workers > 0,
        )  # fmt: skip

    plain = torchvision(to_tensor)
    contenders: dict[str, Callable[[], Iterable[Any]]] = {
        "raw tensor, bytes": lambda: raw_bytes(x, y, given.batch_size, mean, std),
        "raw tensor, floats": lambda: raw_floats(floats, y, given.batch_size),
        "dlsearch": lambda: loader,
        "DataLoader": lambda: plain,
    }
    if name == "CIFAR-10":
        augmented = module(
            **options, augment=Augment(horizontal_flip=0.5, crop=4)
        ).train_dataloader()
        slow = torchvision(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *to_tensor]
        )
        contenders |= {
            "dlsearch, augmented": lambda: augmented,
            "DataLoader, augmented": lambda: slow,
        }
    found: dict[str, list[float]] = {each: [] for each in contenders}
    names = list(contenders)
    dice = random.Random(0)
    for turn in range(given.rounds + 1):
        for each in dice.sample(names, len(names)):
            if "DataLoader" not in each:
                drain(contenders[each]())
            rate = drain(contenders[each]())
            if turn:
                found[each].append(rate)
    raw = statistics.median(found["raw tensor, bytes"])
    rows = []
    for each, rates in found.items():
        median = statistics.median(rates)
        slow_one = statistics.median(
            found["DataLoader, augmented" if "augmented" in each else "DataLoader"]
        )
        rates_k = [rate / 1e3 for rate in rates]
        rows.append(
            [
                name,
                each,
                machine.spread(rates_k, 1),
                f"{median / raw:.2f}",
                f"{median / slow_one:.1f}",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=12_800)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loader-workers", type=int, default=0, help="of the DataLoaders")
    parser.add_argument("--only", choices=list(STATISTICS), help="one data set")
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        names = [given.only] if given.only else list(STATISTICS)
        rows = [row for name in names for row in measure(given, name, Path(cache))]
    headings = [
        "data",
        "loader",
        "thousand samples/s",
        "× raw tensor, bytes",
        "× DataLoader of its kind",
    ]
    n = f"{given.samples:,} images, batch {given.batch_size}, {given.threads} thread(s)"
    n = f"{n}, median (least–most) of {given.rounds}"
    packages = ("dlsearch", "torch", "torchvision")
    machine.publish(f"{machine.table(headings, rows)}\n\n{machine.caption(n, packages)}", given.out)


if __name__ == "__main__":
    main()
