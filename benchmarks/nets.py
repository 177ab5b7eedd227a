"""What each net costs: parameters, multiply-adds, memory and time of a training step.

    python benchmarks/nets.py [--batch-size 32] [--steps 5] [--threads 1] [--precision 32,bf16]
    [--only vgg,stn] [--documented] [--out FILE]

A step is forward, cross-entropy, backward and SGD with momentum on random images of 3×32×32 and ten
classes; with `--documented` of the paper's input size and 1,000 classes, which wants a GPU. Each
net runs in a process of its own. Memory is the largest that the process held beyond what it held
before the net was made (on CUDA: the largest that was allocated); time is the median (least–most)
of the steps after the first two. `bf16` is torch.autocast around the forward pass, as
`trainer.precision=bf16-mixed` does it; each precision is measured in a process of its own too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import machine
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from dlsearch.config.build import build
from dlsearch.config.compose import config_dir
from dlsearch.inspection.describe import summary

SMALL = ([3, 32, 32], 10)
#: side of the documented input, and changes from the YAML, for the nets of ImageNet
DOCUMENTED: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (227, {}),
    "zfnet": (224, {}),
    "vgg": (224, {}),
    "googlenet": (224, {"auxiliary": True}),
    "googlenet_bn": (224, {"auxiliary": True}),
    "resnet": (224, {"depth": 50}),
    "senet": (224, {"depth": 50}),
}


def resident() -> int:
    """The largest that this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def make(name: str, shape: list[int], classes: int, changes: dict[str, Any]) -> torch.nn.Module:
    cfg = OmegaConf.create({"data": {"shape": shape, "num_classes": classes}})
    cfg["model"] = OmegaConf.merge(OmegaConf.load(config_dir() / "model" / f"{name}.yaml"), changes)
    return build(cfg["model"], "model")


def warm_up(device: torch.device) -> None:
    """What torch loads at its first step belongs to no net."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ).to(device)
    summary(net, [3, 8, 8])
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    F.cross_entropy(
        net(torch.randn(2, 3, 8, 8, device=device)), torch.arange(2, device=device)
    ).backward()
    optimizer.step()


def measure(name: str, precision: str, given: argparse.Namespace, answer: Connection) -> None:
    """In a process of its own: (parameters, multiply-adds, bytes, seconds of each step)."""
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    side, changes = DOCUMENTED.get(name, (32, {})) if given.documented else (32, {})
    shape, classes = ([3, side, side], 1000) if given.documented else SMALL
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    warm_up(device)
    before = resident()
    net = make(name, shape, classes, changes)
    facts = summary(net, shape)
    net.to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    x = torch.randn(given.batch_size, *shape, device=device)
    y = torch.arange(given.batch_size, device=device) % classes
    seconds = []
    for _ in range(given.steps + 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(x), y)
            loss = loss + 0.3 * sum(
                F.cross_entropy(each, y) for each in getattr(net, "auxiliary_logits", [])
            )
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    held = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident() - before
    answer.send((facts["n_params"], facts["macs"], held, seconds[2:]))


def alone(name: str, precision: str, given: argparse.Namespace) -> Any:
    """Measure in a process of its own; None where it ended without an answer."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(name, precision, given, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.join()


def main() -> None:
    names = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="32,bf16", help="32, bf16, or both with a comma")
    parser.add_argument("--only", default="", help="some of " + ", ".join(names))
    parser.add_argument(
        "--documented", action="store_true", help="the paper's input size, of nets that have one"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    chosen = (
        given.only.split(",") if given.only else sorted(DOCUMENTED) if given.documented else names
    )
    precisions = given.precision.split(",")
    strange = [f"--precision {p}" for p in precisions if p not in ("32", "bf16")]
    strange += [f"--only {name}" for name in chosen if name not in names]
    if strange:
        parser.error(f"there is no {strange[0]}")
    rows = []
    for name in chosen:
        row = [f"`{name}`", "", ""]
        for precision in precisions:
            found = alone(name, precision, given)
            if found is None:
                row += ["", "ended without an answer (out of memory?)"]
                continue
            params, macs, held, seconds = found
            row[1:3] = [f"{params:,}", f"{macs / 1e6:,.1f}"]
            row += [f"{held / 2**20:,.0f}", machine.spread([1e3 * s for s in seconds], 1)]
        rows.append(row)
        print(*row, file=sys.stderr, flush=True)
    columns = [
        f"{what}{' in bf16' if p == 'bf16' else ''}"
        for p in precisions
        for what in ("MiB", "ms a step")
    ]
    text = machine.table(["model", "parameters", "multiply-adds, M", *columns], rows)
    size = (
        "the documented input sizes, 1,000 classes" if given.documented else "3×32×32, 10 classes"
    )
    where = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{given.threads} thread(s)"
    )
    n = f"batch {given.batch_size}, {size}, {where}, median (least–most) of {given.steps} steps"
    machine.publish(
        f"{text}\n\n{machine.caption(n, ('dlsearch', 'torch', 'torchvision'))}", given.out
    )


if __name__ == "__main__":
    main()
