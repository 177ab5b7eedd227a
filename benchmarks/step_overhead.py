"""What a training step costs around its arithmetic: LeNet-5 on MNIST, batches of 64, one thread.

    python benchmarks/step_overhead.py [--rounds 7] [--steps 200] [--batch-size 64] [--out FILE]

Every round trains each contender for two epochs on the same images, in turn, in an order that is
rotated, and counts the second. All use the same net, AdamW with the same arguments, and one seed.
The clock runs from the first step of an epoch to the last: no set-up, no validation. What is around
the step:

    raw loop                  zero_grad, forward, loss, backward, step over the batches of dlsearch's loader
    Trainer alone             dlsearch's task under Lightning's Trainer and loop, without callbacks and logger
    fit, as in a trial        dlsearch's, with all callbacks of a trial, its journal, the seal on the test set, and the
                              check for messages of the worker
    DataLoader, raw loop      the raw loop over a DataLoader with torchvision's transforms
    DataLoader, Trainer       a plain LightningModule that logs its loss, Trainer with its defaults
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import machine
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from dlsearch.config.compose import CONFIG_NAME, config_dir
from dlsearch.config.register import register
from dlsearch.tracking.journal import Journal
from dlsearch.training.building import (
    build_callbacks,
    build_data,
    build_task,
    build_trainer,
    seed_everything,
)
from dlsearch.training.callbacks import RunCallback
from dlsearch.training.cuda_check import quick_cuda_check
from dlsearch.training.run import Run
from dlsearch.training.test_guard import Seal

SEED = 0


class Clock(pl.Callback):
    """Milliseconds a step of the epoch that just ended. It takes the first clock reading and the last alone."""

    def __init__(self, steps: int) -> None:
        self.steps, self.ms = steps, 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.ms = 1e3 * (time.perf_counter() - self.started) / self.steps


def raw_loop(cfg: DictConfig, batches: Any, steps: int) -> float:
    """Two epochs; milliseconds a step of the second. GPUs are checked for as where Lightning is not imported."""
    with quick_cuda_check():
        return _raw_loop(cfg, batches, steps)


def _raw_loop(cfg: DictConfig, batches: Any, steps: int) -> float:
    seed_everything(SEED)
    task = build_task(cfg)
    net, optimizer = task.net.train(), task._make_optimizer(task.parameters())
    ms = 0.0
    for epoch in range(2):
        if hasattr(batches.sampler, "set_epoch"):
            batches.sampler.set_epoch(epoch)
        started = time.perf_counter()
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        ms = 1e3 * (time.perf_counter() - started) / steps
    return ms


def own_batches(cfg: DictConfig) -> Any:
    data = build_data(cfg)
    data.setup("fit")
    return data.train_dataloader()


def bare_trainer(cfg: DictConfig, folder: Path, steps: int) -> float:
    seed_everything(SEED)
    clock = Clock(steps)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[clock], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, deterministic=True,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(build_task(cfg), datamodule=build_data(cfg))
    return clock.ms


def as_in_trial(cfg: DictConfig, folder: Path, steps: int) -> float:
    """What `dlsearch.training.fit.fit` does, with a clock among the callbacks."""
    ours, theirs = socket.socketpair()
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    with ours, theirs, Journal(folder / "journal.jsonl") as journal:
        run = Run(folder, journal, ["val/accuracy"], ["maximize"], stop=lambda: bool(poll.poll(0)))
        seed_everything(SEED)
        data, task, clock = build_data(cfg), build_task(cfg), Clock(steps)
        trainer = build_trainer(cfg, run, [clock, *build_callbacks(cfg, run), RunCallback(run)])
        with Seal(folder) as seal, quick_cuda_check():
            seal.watch(data)
            trainer.fit(task, datamodule=data)
    return clock.ms


def torchvision_loader(cfg: DictConfig, split: str) -> Any:
    """The same images through torchvision."""
    import numpy as np
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    data = build_data(cfg)
    data.prepare_data()
    index = np.load(data.split_folder() / f"{split}_index.npy")
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(cfg.data.mean, cfg.data.std)]
    )
    images = datasets.MNIST(cfg.data.root, train=True, transform=transform)
    return DataLoader(
        Subset(images, index), batch_size=cfg.data.batch_size, shuffle=split == "train"
    )


class Plain(pl.LightningModule):
    """A LightningModule as its tutorial writes it."""

    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        task = build_task(cfg)
        self.net, self.make = task.net, task._make_optimizer

    def training_step(self, batch: Any, _: int) -> Any:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        self.log("val_accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())


def default_trainer(cfg: DictConfig, folder: Path, steps: int) -> float:
    seed_everything(SEED)
    clock = Clock(steps)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[clock], default_root_dir=folder
    )
    with (folder / "progress.txt").open("w") as said, redirect_stdout(said), redirect_stderr(said):
        trainer.fit(Plain(cfg), torchvision_loader(cfg, "train"), torchvision_loader(cfg, "val"))
    return clock.ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200, help="an epoch")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--override", action="append", default=[], help="of dlsearch's config, for all contenders"
    )
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder that holds MNIST/"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    register()
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, steps = Path(place), given.steps
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = compose(
                CONFIG_NAME,
                [
                    "model=lenet", "data=mnist", f"data.batch_size={given.batch_size}", "data.val_size=1000",
                    f"data.train_size={steps * given.batch_size}", "trainer.max_epochs=2", "trainer.accelerator=cpu",
                    f"paths.data={Path(given.data).resolve()}", f"paths.store={folder}", *given.override,
                ],
            )  # fmt: skip
        contenders: dict[str, Callable[[Path], float]] = {
            "raw loop": lambda _: raw_loop(cfg, own_batches(cfg), steps),
            "Trainer alone": lambda at: bare_trainer(cfg, at, steps),
            "fit, as in a trial": lambda at: as_in_trial(cfg, at, steps),
            "DataLoader, raw loop": lambda _: raw_loop(
                cfg, torchvision_loader(cfg, "train"), steps
            ),
            "DataLoader, Trainer": lambda at: default_trainer(cfg, at, steps),
        }
        names = list(contenders)
        found: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(given.rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                at = folder / f"{turn}-{names.index(name)}"
                at.mkdir()
                found[name].append(contenders[name](at))
    import statistics

    limit = statistics.median(found["raw loop"])
    rows = [
        [name, machine.spread(ms, 3), f"{statistics.median(ms) / limit:.3f}"]
        for name, ms in found.items()
    ]
    text = machine.table(["around the step", "ms a step", "× raw loop"], rows)
    n = f"batch {given.batch_size}, 1 thread, median (least–most) of {given.rounds} rounds of {steps} steps"
    packages = ("dlsearch", "torch", "pytorch-lightning", "torchvision")
    machine.publish(f"{text}\n\n{machine.caption(n, packages)}", given.out)


if __name__ == "__main__":
    main()
