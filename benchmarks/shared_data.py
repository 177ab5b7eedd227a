"""What a data set takes of the memory when several trials train on it at once: one copy a machine, or one a trial.

    python benchmarks/shared_data.py [--workers 8] [--data DIR] [--out FILE]

Each worker is a process that is started afresh, as on a machine where nothing is shared by a fork.
It goes through one epoch of CIFAR-10's 50,000 training images, so that each of them is in memory,
and waits for the others. Then the kernel is asked what the process has of the data: `Pss` (each
page divided by those who map it) and what is the process's own.

    dlsearch       its data module and loader, as in a trial
    torchvision    its data set, which is read into the memory of each process, under a DataLoader

Linux only: the figures come from /proc/PID/smaps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import machine

MIB = 2**20


def hold(contender: str, data: str, cache: str) -> None:
    """Be a worker: read everything once, say what it takes, wait for the end of the input, and say it again."""
    import torch
    from torchvision import datasets

    from dlsearch.systems.vision.data.image import CIFAR10

    torch.set_num_threads(1)
    before = memory()
    if contender == "dlsearch":
        module = CIFAR10(
            root=data, cache=cache, num_classes=10, batch_size=64, train_size=None, val_size=10, shape=[3, 32, 32],
            mean=[0.5] * 3, std=[0.25] * 3,
        )  # fmt: skip
        module.prepare_data()
        held = module.train_dataloader()
        for _ in held:
            pass
    else:
        held = datasets.CIFAR10(data, train=True)
        held.data.sum()
    print("ready", flush=True)
    sys.stdin.readline()
    after = memory()
    print(after[0] - before[0], after[1] - before[1], flush=True)
    sys.stdin.readline()
    del held


def memory() -> tuple[int, int]:
    """Bytes that this process has: its share of all pages, and those that are its own alone."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    found = {
        name: 1024 * int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
    }
    return found["Pss"], found["Private_Clean"] + found["Private_Dirty"]


def measure(contender: str, workers: int, data: str, cache: str) -> list[str]:
    """A row of the table."""
    command = [sys.executable, __file__, "--hold", contender, "--data", data, "--cache", cache]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(workers)]  # type: ignore[call-overload]
    try:
        for process in processes:
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a worker of {contender} failed")
        found = []
        for process in processes:
            print(file=process.stdin, flush=True)
            found.append([int(word) for word in process.stdout.readline().split()])
    finally:
        for process in processes:
            process.stdin.close()
            process.wait()
    share, own = (sum(each) / MIB for each in zip(*found, strict=True))
    name = f"**{contender}**" if contender == "dlsearch" else contender
    return [
        name,
        str(workers),
        f"{share:.0f}",
        f"{own:.0f}",
        f"{share / (50_000 * 3072 / MIB):.1f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    parser.add_argument("--hold", choices=["dlsearch", "torchvision"], help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold:
        hold(given.hold, given.data, given.cache)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        measure("dlsearch", 1, given.data, cache)  # decodes
        rows = [
            measure(name, n, given.data, cache)
            for n in (1, given.workers)
            for name in ("dlsearch", "torchvision")
        ]
    headings = [
        "contender",
        "processes",
        "share of the memory in all, MiB",
        "their own, MiB",
        "× the images' bytes",
    ]
    n = f"CIFAR-10, 50,000 images of 3,072 bytes, {given.workers} processes"
    machine.publish(
        f"{machine.table(headings, rows)}\n\n{machine.caption(n, ('dlsearch', 'torchvision'))}",
        given.out,
    )


if __name__ == "__main__":
    main()
