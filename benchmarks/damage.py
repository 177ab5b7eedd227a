"""Damage to a checkpoint shows: cuts and flipped bits of a real one, each held against its digest.

    python benchmarks/damage.py [--n 1000] [--seed 0] [--small] [--out FILE]

LeNet-5 with its optimizer's state is saved as a trial saves it. Half of the damages cut it at a
random byte, half flip a random bit; beside our check stands what torch.load itself notices (it
reads the file, and says nothing).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import machine
import torch

from dlsearch.core.files.checksum import Damaged, check, seal
from dlsearch.systems.vision.models.lenet import LeNet5


def checkpoint(path: Path) -> None:
    """A checkpoint of one step of training."""
    torch.manual_seed(0)
    net = LeNet5()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(8, 1, 28, 28)).sum().backward()
    optimizer.step()
    torch.save(
        {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()], "epoch": 0},
        path,
    )
    seal(path)


def is_noticed(path: Path) -> bool:
    """By the digest."""
    try:
        check(path)
    except Damaged:
        return True
    return False


def is_refused(path: Path) -> bool:
    """By torch."""
    try:
        torch.load(path, weights_only=True)
    except Exception:
        return True
    return False


def main() -> None:
    """Damage, count, print."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--n", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--small", action="store_true", help="20 damages, to try the script out")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    n, rng = 20 if options.small else options.n, random.Random(options.seed)
    noticed, refused = {"cut": 0, "flip": 0}, {"cut": 0, "flip": 0}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        whole, damaged = Path(folder, "whole.ckpt"), Path(folder, "damaged.ckpt")
        checkpoint(whole)
        content = whole.read_bytes()
        started = time.perf_counter()
        check(whole)
        took = time.perf_counter() - started
        for i in range(n):
            kind = ("cut", "flip")[i % 2]
            at = rng.randrange(len(content))
            if kind == "cut":
                damaged.write_bytes(content[:at])
            else:
                damaged.write_bytes(
                    content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
                )
            noticed[kind] += is_noticed(damaged)
            refused[kind] += is_refused(damaged)
    each = {"cut": n - n // 2, "flip": n // 2}
    rows = [[kind, *map(str, (each[kind], noticed[kind], refused[kind]))] for kind in each]
    told = machine.table(["damage", "n", "noticed by the digest", "noticed by torch.load"], rows)
    note = f"n = {n}, {len(content) / 1024:.0f} KiB, checked in {1000 * took:.1f} ms"
    machine.publish(f"{told}\n\n{machine.caption(note, ['torch'])}", options.out)


if __name__ == "__main__":
    main()
