"""Samples a second of ResNet-18 on CIFAR-10 in bf16: dlsearch's loader and Trainer against a raw loop on the device.

    python benchmarks/gpu_step.py [--rounds 5] [--batch-size 256] [--steps 100] [--compile default,reduce-overhead]
    python benchmarks/gpu_step.py --device cpu --small        a rehearsal

All hold the images as bytes on the device, train torchvision's ResNet-18 with a 3×3 stem,
channels-last, under bf16 autocast, with the same SGD, from the same seed, and take whole batches
alone. A round trains each for two epochs, in turn, and counts the second, from its first step to
its last with the device synchronised at both ends.

    raw loop                  permutation, index_select, to float, standardise, forward, backward, step
    raw loop, compiled        the same, `torch.compile` of the net; reduce-overhead replays CUDA graphs
    dlsearch                  its loader, task and Trainer with the callbacks and the journal of a trial
    dlsearch, compiled        the same, the task's net compiled in place
    dlsearch, augmented       with a random crop and flip on the device
    dlsearch, deterministic   with `trainer.deterministic=true`, its default

The time to the end of the first step is shown beside: with torch.compile, that is its cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

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

SEED = 0
#: samples a second of the second epoch; seconds to the end of the first step
Found = tuple[float, float]


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def plain_mode() -> None:
    """What a Trainer of an earlier contender may have switched."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True


class Clock(pl.Callback):
    """Reads the clock at the ends of epochs and of the first step, with the device synchronised there alone."""

    def __init__(self, device: str) -> None:
        self.device, self.first, self.epoch_s = device, 0.0, 0.0
        self.made = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self.first:
            synchronize(self.device)
            self.first = time.perf_counter() - self.made

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self.epoch_s = time.perf_counter() - self.started


def images(cfg: DictConfig, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 32, 32, 3) uint8 and (N,) int64 on the device: the split's training images."""
    data = build_data(cfg)
    data.prepare_data()
    loader = data.train_dataloader()
    x, y = (
        each.index_select(0, loader.index).to(device) for each in (loader.inputs, loader.targets)
    )
    return x.permute(0, 2, 3, 1).contiguous(), y


def raw(cfg: DictConfig, device: str, compiled: Callable[[Any], None] | None) -> Found:
    """Two epochs by hand."""
    plain_mode()
    made = time.perf_counter()
    seed_everything(SEED)
    task = build_task(cfg).to(device)
    net, optimizer = task.net.train(), task._make_optimizer(task.parameters())
    if compiled is not None:
        compiled(net)
    x, y = images(cfg, device)
    mean, std = (
        torch.tensor(OmegaConf.to_container(v), device=device)
        for v in (cfg.data.mean, cfg.data.std)
    )
    scale, shift = (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]
    size, first, took = cfg.data.batch_size, 0.0, 0.0
    steps = len(x) // size
    for _ in range(2):
        synchronize(device)
        started = time.perf_counter()
        for index in torch.randperm(len(x), device=device)[: steps * size].split(size):
            # channels-last
            batch = x.index_select(0, index).permute(0, 3, 1, 2).float().mul_(scale).add_(shift)
            with torch.autocast(device, torch.bfloat16):
                loss = F.cross_entropy(net(batch), y.index_select(0, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not first:
                synchronize(device)
                first = time.perf_counter() - made
        synchronize(device)
        took = time.perf_counter() - started
    return steps * size / took, first


def own(
    cfg: DictConfig, device: str, folder: Path, compiled: Callable[[Any], None] | None
) -> Found:
    """Two epochs as `dlsearch.training.fit.fit` runs them, with a clock among the callbacks."""
    plain_mode()
    clock = Clock(device)
    with Journal(folder / "journal.jsonl") as journal, quick_cuda_check():
        run = Run(folder, journal, ["val/accuracy"], ["maximize"])
        seed_everything(SEED)
        data, task = build_data(cfg), build_task(cfg)
        if compiled is not None:
            compiled(task.net)
        trainer = build_trainer(cfg, run, [clock, *build_callbacks(cfg, run), RunCallback(run)])
        trainer.fit(task, datamodule=data)
    return len(data.train_dataloader()) * cfg.data.batch_size / clock.epoch_s, clock.first


def config(given: argparse.Namespace, folder: Path, *more: str) -> DictConfig:
    """The training of all contenders."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(
            CONFIG_NAME,
            [
                "model=linear", "model._target_=small_nets.resnet18", "allow_targets=[small_nets]", "data=cifar10",
                "optimizer=momentum", f"optimizer.fused={str(given.device == 'cuda').lower()}",
                f"data.batch_size={given.batch_size}", f"data.train_size={given.steps * given.batch_size}",
                f"data.val_size={given.batch_size}", "data.drop_last=true", "data.augment.horizontal_flip=0",
                "data.augment.crop=0", "trainer.max_epochs=2", f"trainer.accelerator={given.device}",
                "trainer.precision=bf16-mixed", "trainer.deterministic=false",
                f"paths.data={Path(given.data).resolve()}", f"paths.store={folder}", *more,
            ],
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="an epoch")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--compile", default="default,reduce-overhead", help="modes of torch.compile; none for none"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="2 steps of 8 images, nothing compiled to machine code"
    )
    parser.add_argument(
        "--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder of the data sets"
    )
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.exit(
            2,
            "gpu_step.py needs a CUDA device: there is none here (--device cpu --small rehearses it)\n",
        )
    if given.small:
        given.rounds, given.steps, given.batch_size = 1, 2, 8
        given.compile = "none" if given.compile == "none" else "aot_eager"
    warnings.filterwarnings("ignore")
    torch.set_float32_matmul_precision("high")
    register()

    def compiler(mode: str) -> Callable[[Any], None]:
        def compiled(net: Any) -> None:
            torch._dynamo.reset()  # each pays for its own
            net.compile(backend="aot_eager") if mode == "aot_eager" else net.compile(mode=mode)

        return compiled

    modes = (
        {}
        if given.compile == "none"
        else {mode: compiler(mode) for mode in given.compile.split(",")}
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        cfg = config(given, folder)
        augmented = config(given, folder, "data.augment.horizontal_flip=0.5", "data.augment.crop=4")
        exact = config(given, folder, "trainer.deterministic=true")
        contenders: dict[str, Callable[[Path], Found]] = {
            "raw loop": lambda _: raw(cfg, given.device, None),
            "dlsearch": lambda at: own(cfg, given.device, at, None),
            "dlsearch, augmented": lambda at: own(augmented, given.device, at, None),
            "dlsearch, deterministic": lambda at: own(exact, given.device, at, None),
        }
        for mode, compiled in modes.items():
            contenders[f"raw loop, compiled ({mode})"] = lambda _, c=compiled: raw(
                cfg, given.device, c
            )
            contenders[f"dlsearch, compiled ({mode})"] = lambda at, c=compiled: own(
                cfg, given.device, at, c
            )
        names = list(contenders)
        found: dict[str, list[Found]] = {name: [] for name in names}
        for turn in range(given.rounds):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                at = folder / f"{turn}-{names.index(name)}"
                at.mkdir()
                found[name].append(contenders[name](at))
    limit = statistics.median(rate for rate, _ in found["raw loop"])
    rows = [
        [
            name, machine.spread([rate for rate, _ in runs], 0),
            f"{statistics.median(rate for rate, _ in runs) / limit:.3f}", machine.spread([s for _, s in runs], 1),
        ]
        for name, runs in found.items()
    ]  # fmt: skip
    text = machine.table(["", "samples/s", "× raw loop", "first step ends at, s"], rows)
    n = f"batch {given.batch_size}, median (least–most) of {given.rounds} rounds of {given.steps} steps"
    n += f" · {machine.gpu()}" if given.device == "cuda" else " · CPU"
    caption = machine.caption(n, ("dlsearch", "torch", "pytorch-lightning", "torchvision"))
    machine.publish(f"{text}\n\n{caption}", given.out)


if __name__ == "__main__":
    main()
