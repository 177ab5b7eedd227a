"""The limit: a raw PyTorch loop over tensors in memory, in two 1-thread processes.

    python benchmarks/contenders/limit.py FOLDER [--log nothing|rows] [--step plain|ours]

`--step plain` is the loop as people write it: torch's default optimizer, tensors in torch's default
format. `--step ours` has all that a step of dlsearch has: the optimizer is fused, images and the
net's weights are channels-last.
`--log rows` writes parameters and metrics to one MLflow run a trial in SQLite, by `log_batch`, once
an epoch.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import work

#: (epoch, losses as (step, value), validation loss, validation accuracy)
Tell = Callable[[int, list[tuple[int, float]], float, float], None]


def tensors(spec: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Training and validation images, (N, 1, 28, 28) float32, standardised, with their labels."""
    import numpy as np
    import torch

    raw = Path(spec["data"]) / "MNIST" / "raw"
    images, labels = (
        work.read_idx(raw / "train-images-idx3-ubyte"),
        work.read_idx(raw / "train-labels-idx1-ubyte"),
    )
    sets = []
    for split in ("train", "val"):
        index = np.load(Path(spec["split"]) / f"{split}_index.npy")
        x = (
            torch.from_numpy(images[index])
            .float()
            .div_(255)
            .sub_(work.MEAN)
            .div_(work.STD)
            .unsqueeze_(1)
        )
        sets.append((x, torch.from_numpy(labels[index].astype(np.int64))))
    return sets


def train_raw(
    config: Sequence[Any], seed: int, train: Any, val: Any, tell: Tell | None, *, ours: bool
) -> float:
    """The validation accuracy at the better epoch."""
    import torch
    import torch.nn.functional as F

    lr, dropout, weight_decay, batch_size = config
    torch.manual_seed(seed)
    net = work.lenet(dropout)
    if ours:
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=lr, weight_decay=weight_decay, fused=True if ours else None
    )
    (x, y), (x_val, y_val) = train, val
    best, step = 0.0, 0
    for epoch in range(work.EPOCHS):
        net.train()
        losses: list[tuple[int, float]] = []
        for index in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[index]), y[index])
            loss.backward()
            optimizer.step()
            step += 1
            if tell is not None and step % work.LOG_EVERY == 0:
                losses.append((step, loss.item()))
        net.eval()
        with torch.no_grad():
            batches = zip(x_val.split(work.EVAL_BATCH), y_val.split(work.EVAL_BATCH), strict=True)
            if tell is None:
                right = sum(int((net(a).argmax(1) == b).sum()) for a, b in batches)
            else:
                logits = torch.cat([net(a) for a, _ in batches])
                right = int((logits.argmax(1) == y_val).sum())
                tell(epoch, losses, float(F.cross_entropy(logits, y_val)), right / len(x_val))
        best = max(best, right / len(x_val))
    return best


class Rows:
    """One MLflow run a trial, its rows written once an epoch."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        # two processes that make MLflow's tables at once collide
        with (folder / "mlflow.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
            found = self.client.get_experiment_by_name("benchmark")
            self.experiment = (
                found.experiment_id if found else self.client.create_experiment("benchmark")
            )

    def open(self, number: int, config: Sequence[Any]) -> Tell:
        """A trial begins; returns what takes its epochs."""
        from mlflow.entities import Metric, Param

        run = self.client.create_run(self.experiment, run_name=f"trial-{number}").info.run_id
        self.run = run
        params = [
            Param(k, str(v))
            for k, v in zip(("lr", "dropout", "weight_decay", "batch_size"), config, strict=True)
        ]

        def tell(
            epoch: int, losses: list[tuple[int, float]], val_loss: float, val_accuracy: float
        ) -> None:
            now = int(1e3 * time.time())
            last = losses[-1][0] if losses else 0
            rows = [Metric("train_loss", value, now, step) for step, value in losses]
            rows += [
                Metric("val_loss", val_loss, now, last),
                Metric("val_accuracy", val_accuracy, now, last),
            ]
            self.client.log_batch(run, rows, params if epoch == 0 else [])

        return tell

    def close(self) -> None:
        """The trial has ended."""
        self.client.set_terminated(self.run)


def main() -> None:
    given, spec, folder = work.arguments(__doc__, log=("nothing", "rows"), step=("plain", "ours"))
    import torch

    if given.log == "rows":
        import mlflow.entities
        import mlflow.tracking  # noqa: F401  # once, before the fork
    torch.set_num_threads(1)
    sets = tensors(spec)
    ours = given.step == "ours"
    if ours:
        sets = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in sets]
    context = multiprocessing.get_context("fork")
    counter = context.Value("i", 0)

    def serve() -> None:
        rows = Rows(folder) if given.log == "rows" else None
        while True:
            with counter.get_lock():
                number = counter.value
                counter.value += 1
            if number >= len(spec["configs"]):
                return
            config, started = spec["configs"][number], time.time()
            tell = rows.open(number, config) if rows else None
            score = train_raw(config, number, *sets, tell, ours=ours)
            if rows:
                rows.close()
            work.Book(folder).add(number, started, score)

    processes = [context.Process(target=serve) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process of the limit failed")


if __name__ == "__main__":
    main()
