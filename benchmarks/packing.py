"""Several trials on one GPU: trials an hour with 1, 2, 4, 8 slots a card, and with as many as its memory says.

    python benchmarks/packing.py [--only lenet] [--slots 1,2,4,8,auto] [--trials 16] [--out FILE]
    python benchmarks/packing.py --device cpu --small        a rehearsal: slots are on cores

Each row is a study, as `dlsearch -m … worker.slots_per_gpu=N` runs it on one card. Trials an hour
count from the first trial's start to the last one's end, complete trials alone; `auto` starts with
one trial, whose peak decides. The load is the driver's (share of the time in which some kernel
ran), its mean over the trials' time, sampled each half second; memory is the most that was in use
on the card. On the CPU they are the load of all cores, and the memory of the command's processes
(shared pages counted once).

    lenet      LeNet-5, MNIST, batch 128, 3 epochs
    mlp        two hidden layers of 1,024, MNIST, batch 128, 3 epochs
    convnet    `model=convnet`, CIFAR-10, batch 128, bf16, 3 epochs
    resnet18   ResNet-18 with a 3×3 stem, CIFAR-10, batch 256, bf16, 2 epochs: alone it keeps a card busy
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import machine
import psutil
import studies

NETS = {
    "lenet": ["model=lenet", "data=mnist", "data.batch_size=128", "trainer.max_epochs=3"],
    "mlp": ["model=mlp", "model.width=1024", "data=mnist", "data.batch_size=128", "trainer.max_epochs=3"],
    "convnet": ["model=convnet", "data=cifar10", "data.batch_size=128", "trainer.max_epochs=3"],
    "resnet18": [
        "model=linear", "model._target_=small_nets.resnet18", "allow_targets=[small_nets]", "data=cifar10",
        "data.batch_size=256",
        "trainer.max_epochs=2",
    ],
}  # fmt: skip
BF16 = ("convnet", "resnet18")


class Meter:
    """Load and memory while a study runs: samples of (time, percent, MiB)."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.samples: list[tuple[float, float, float]] = []

    @contextlib.contextmanager
    def watch(self, pid: int) -> Iterator[None]:
        """Sample until the block ends."""
        stop = threading.Event()

        def follow() -> None:
            psutil.cpu_percent(None)  # the first answer has nothing to compare with
            while not stop.wait(0.5):
                self.samples.append(
                    (time.time(), *(card() if self.device == "cuda" else processes(pid)))
                )

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def during(self, study: studies.Study) -> tuple[float, float]:
        """Mean load in percent, and most memory in GiB, while trials ran."""
        first, last = min(t.started for t in study.trials), max(t.ended for t in study.trials)
        rows = [(load, memory) for at, load, memory in self.samples if first <= at <= last] or [
            (0.0, 0.0)
        ]
        return statistics.mean(load for load, _ in rows), max(memory for _, memory in rows) / 1024


def card() -> tuple[float, float]:
    """Utilisation in percent and memory in use in MiB, of the first visible GPU."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    query = [
        "nvidia-smi",
        f"--id={index}",
        "--query-gpu=utilization.gpu,memory.used",
        "--format=csv,noheader,nounits",
    ]
    load, memory = (
        subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    )
    return float(load), float(memory)


def processes(pid: int) -> tuple[float, float]:
    """Load of all cores in percent, and the memory of a process with its children, in MiB."""
    total = 0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                memory = each.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
    return psutil.cpu_percent(None), total / 2**20


def words(net: str, slots: str, device: str, trials: int, *, small: bool) -> list[str]:
    """The command of one row."""
    sizes = [
        "data.train_size=256",
        "data.val_size=100",
        "trainer.max_epochs=1",
        "data.batch_size=32",
    ]
    cpu = ["trainer.accelerator=cpu", f"hydra.launcher.workers={slots}", "worker.threads=1"]
    gpu = [
        "trainer.accelerator=gpu",
        f"worker.slots_per_gpu={slots}",
        "trainer.deterministic=false",
    ]
    precision = ["trainer.precision=bf16-mixed"] if net in BF16 else []
    return [
        *NETS[net], *(cpu if device == "cpu" else gpu), *precision, *(sizes if small else []), "space=none",
        "sampler=random", "optimizer.lr=tag(log, interval(1e-4, 1e-2))", f"study.n_trials={trials}",
    ]  # fmt: skip


def measure(net: str, slots: list[str], given: argparse.Namespace) -> list[list[str]]:
    """The rows of one net."""
    found: dict[str, list[tuple[studies.Study, tuple[float, float]]]] = {each: [] for each in slots}
    trials = 3 if given.small else given.trials
    for turn in range(given.repeats):
        shift = turn % len(slots)
        for each in slots[shift:] + slots[:shift]:
            meter = Meter(given.device)
            command = words(net, each, given.device, trials, small=given.small)
            study = studies.run(command, data=given.data, watch=meter.watch)
            found[each].append((study, meter.during(study)))
    limit = statistics.median(study.per_hour for study, _ in found[slots[0]])
    rows = []
    for each, runs in found.items():
        # crowded out of a shared card, a trial is given back, and runs again
        oom = sum(t.reason in ("oom", "interrupted") for study, _ in runs for t in study.trials)
        peaks = [t.peak_mib for study, _ in runs for t in study.trials if t.peak_mib is not None]
        rows.append([
            net, each, machine.spread([study.per_hour for study, _ in runs], 0),
            f"{statistics.median(study.per_hour for study, _ in runs) / limit:.2f}",
            machine.spread([study.seconds for study, _ in runs], 1), f"{statistics.mean(m[0] for _, m in runs):.0f}",
            f"{max(m[1] for _, m in runs):.1f}", f"{max(peaks) / 1024:.1f}" if peaks else "–", str(oom),
        ])  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument(
        "--slots", default="1,2,4,8,auto", help="the first is what the others are compared with"
    )
    parser.add_argument("--only", help=f"of {','.join(NETS)}")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="3 trials of 256 images: a rehearsal, no measurement"
    )
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    name = machine.gpu()
    if given.device == "cuda" and name is None:
        parser.exit(
            2,
            "packing.py needs a CUDA device: there is none here (--device cpu --small rehearses it)\n",
        )
    nets = given.only.split(",") if given.only else list(NETS)
    if unknown := set(nets) - set(NETS):
        parser.error(
            f"--only: expected some of {', '.join(NETS)}, got {', '.join(sorted(unknown))}"
        )
    rows = [row for net in nets for row in measure(net, given.slots.split(","), given)]
    headings = ["net", "slots", "trials an hour", "× first", "a trial, s", "load, %", "memory, GiB"]
    text = machine.table([*headings, "a trial's peak, GiB", "out of memory"], rows)
    n = f"{3 if given.small else given.trials} trials a row, median (least–most) of {given.repeats}"
    n += f" · {name}" if given.device == "cuda" else " · slots on cores"
    caption = machine.caption(n, ("dlsearch", "torch", "pytorch-lightning", "torchvision"))
    machine.publish(f"{text}\n\n{caption}", given.out)


if __name__ == "__main__":
    main()
