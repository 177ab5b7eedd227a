"""A search costs what its training costs: the wall time of one piece of work under several tools, side by side.

    python benchmarks/search_overhead.py [--repeats 3] [--only limit,dlsearch] [--small] [--out FILE]

The work: 16 LeNet-5 trials of 2 epochs on MNIST, 12,800 training and 2,000 validation images, a fixed list of
configurations (learning rate, dropout, weight decay, batch size), AdamW. Logged: the training loss every 50 steps,
validation each epoch, the parameters, the best checkpoint, one MLflow run a trial in SQLite. All contenders train on
the same images (the split is drawn once, before any clock runs).

    limit        a raw PyTorch loop over tensors in memory in two 1-thread processes; nothing is logged
    dlsearch     `dlsearch -m …`, two workers, tracking on, from an empty store (decoding MNIST is part of its time, and
                 so are the study's own run, its storage and its report)
    optuna-2     Optuna, Lightning, DataLoader with torchvision's transforms, MLFlowLogger, ModelCheckpoint; two
                 processes of one thread on one SQLite, eight trials each
    common       the same in one process with torch's own number of threads

hydra-optuna-sweeper is not here: it needs Optuna 2, and dlsearch Optuna 5, so they cannot share an environment.

DataLoaders have no worker processes unless asked (`--loader-workers`). Every contender is a fresh process; the clock
runs from its start to its exit. They take turns, in an order that is rotated in every round. torch imports its compiler
when a process makes its first optimizer: in the raw loop that is part of each process's first trial.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

#: learning rate, dropout, weight decay, batch size
CONFIGS: list[tuple[float, float, float, int]] = [
    (0.001, 0.0, 0.01, 64), (0.002, 0.1, 0.01, 32), (0.0005, 0.0, 0.001, 32), (0.004, 0.2, 0.0001, 128),
    (0.001, 0.3, 0.01, 32), (0.003, 0.0, 0.1, 64), (0.0008, 0.1, 0.0001, 128), (0.005, 0.25, 0.01, 128),
    (0.0015, 0.05, 0.001, 64), (0.0006, 0.15, 0.05, 32), (0.0025, 0.4, 0.001, 64), (0.001, 0.0, 0.0001, 128),
    (0.0035, 0.1, 0.02, 128), (0.0012, 0.2, 0.005, 32), (0.0007, 0.0, 0.01, 64), (0.002, 0.3, 0.0005, 128),
]  # fmt: skip
KEYS = ("optimizer.lr", "model.dropout", "optimizer.weight_decay", "data.batch_size")
MEAN, STD = 0.1307, 0.3081
EPOCHS, EVAL_BATCH, LOG_EVERY = 2, 512, 50
CONTENDERS = ("limit", "dlsearch", "optuna-2", "common")
NAMES = {
    "limit": "the limit: raw PyTorch loop, tensors in memory, two 1-thread processes, nothing logged",
    "dlsearch": "**dlsearch**, two workers",
    "optuna-2": "Optuna, Lightning, DataLoader, MLFlowLogger, ModelCheckpoint: two processes on one SQLite",
    "common": "common practice: the same in one process",
}


class Book:
    """When each trial ran and what it scored: a file that processes append lines to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trials.jsonl"

    def add(self, number: int, started: float, score: float) -> None:
        """A trial has ended now."""
        line = json.dumps({"number": number, "started": started, "ended": time.time(), "score": score})
        with self.path.open("a") as file:
            file.write(line + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All of them."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]


# -- the limit -------------------------------------------------------------------------------------------------------
def read_idx(path: Path) -> Any:
    """One of MNIST's files: a header of big-endian integers, then bytes."""
    import numpy as np

    raw = path.read_bytes()
    dims = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dims).reshape(shape)


def lenet(dropout: float) -> Any:
    """LeNet-5 with ReLU and max pooling, 61,706 parameters: the net of `model=lenet`."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(120, 84), nn.ReLU(), nn.Dropout(dropout), nn.Linear(84, 10),
    )  # fmt: skip


def run_limit(spec: dict[str, Any], folder: Path) -> None:
    """Train all configurations with nothing around the training."""
    import multiprocessing

    import numpy as np
    import torch

    torch.set_num_threads(1)
    raw = Path(spec["data"]) / "MNIST" / "raw"
    images, labels = read_idx(raw / "train-images-idx3-ubyte"), read_idx(raw / "train-labels-idx1-ubyte")
    sets = []
    for split in ("train", "val"):
        index = np.load(Path(spec["split"]) / f"{split}_index.npy")
        x = torch.from_numpy(images[index]).float().div_(255).sub_(MEAN).div_(STD).unsqueeze_(1)
        sets.append((x, torch.from_numpy(labels[index].astype(np.int64))))
    context = multiprocessing.get_context("fork")
    counter = context.Value("i", 0)

    def work() -> None:
        while True:
            with counter.get_lock():
                number = counter.value
                counter.value += 1
            if number >= len(spec["configs"]):
                return
            started = time.time()
            Book(folder).add(number, started, train_raw(spec["configs"][number], number, *sets))

    processes = [context.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a process of the limit failed")


def train_raw(config: Sequence[Any], seed: int, train: Any, val: Any) -> float:
    """The validation accuracy at the better epoch."""
    import torch
    import torch.nn.functional as F

    lr, dropout, weight_decay, batch_size = config
    torch.manual_seed(seed)
    net = lenet(dropout)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    (x, y), (x_val, y_val) = train, val
    best = 0.0
    for _ in range(EPOCHS):
        net.train()
        for index in torch.randperm(len(x)).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            batches = zip(x_val.split(EVAL_BATCH), y_val.split(EVAL_BATCH), strict=True)
            right = sum(int((net(a).argmax(1) == b).sum()) for a, b in batches)
        best = max(best, right / len(x_val))
    return best


# -- Lightning as its users write it -----------------------------------------------------------------------------------
def make_training(spec: dict[str, Any], folder: Path) -> Any:
    """Import Lightning and friends; a function that trains one configuration and returns its best accuracy."""
    import numpy as np
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import MLFlowLogger
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    class LitLeNet(pl.LightningModule):
        def __init__(self, lr: float, dropout: float, weight_decay: float, batch_size: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = lenet(dropout)

        def training_step(self, batch: Any, _: int) -> Any:
            x, y = batch
            loss = F.cross_entropy(self.net(x), y)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            x, y = batch
            logits = self.net(x)
            self.log("val_loss", F.cross_entropy(logits, y))
            self.log("val_accuracy", (logits.argmax(1) == y).float().mean())

        def configure_optimizers(self) -> Any:
            hp = self.hparams
            return torch.optim.AdamW(self.parameters(), lr=hp["lr"], weight_decay=hp["weight_decay"])

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    mnist = datasets.MNIST(spec["data"], train=True, transform=transform)
    split = {name: Subset(mnist, np.load(Path(spec["split"]) / f"{name}_index.npy")) for name in ("train", "val")}
    workers = int(spec["loader_workers"])
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with (folder / "mlflow.lock").open("w") as lock:  # two processes that make MLflow's tables at once collide
        fcntl.flock(lock, fcntl.LOCK_EX)
        MLFlowLogger("benchmark", tracking_uri=uri).experiment.search_experiments()

    def train(number: int) -> float:
        started = time.time()
        lr, dropout, weight_decay, batch_size = spec["configs"][number]
        pl.seed_everything(number)
        best = ModelCheckpoint(folder / f"trial-{number}", monitor="val_accuracy", mode="max")
        trainer = pl.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            log_every_n_steps=LOG_EVERY,
            logger=MLFlowLogger("benchmark", run_name=f"trial-{number}", tracking_uri=uri),
            callbacks=[best],
            default_root_dir=folder,
        )
        trainer.fit(
            LitLeNet(lr, dropout, weight_decay, batch_size),
            DataLoader(split["train"], batch_size=batch_size, shuffle=True, num_workers=workers),
            DataLoader(split["val"], batch_size=EVAL_BATCH, num_workers=workers),
        )
        score = float(best.best_model_score)
        Book(folder).add(number, started, score)
        return score

    return train


def run_optuna(spec: dict[str, Any], folder: Path, count: int) -> None:
    """One process: `count` trials of the study in the folder's SQLite."""
    import optuna

    train = make_training(spec, folder)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        trial.suggest_float("dropout", 0.0, 0.6)
        trial.suggest_float("weight_decay", 1e-6, 1.0, log=True)
        trial.suggest_categorical("batch_size", [32, 64, 128])
        return train(trial.number)

    study = optuna.load_study(study_name="benchmark", storage=f"sqlite:///{folder / 'optuna.db'}")
    study.optimize(objective, n_trials=count)


def open_optuna(spec: dict[str, Any], folder: Path) -> None:
    """Make the study, with the configurations waiting in it."""
    import optuna

    study = optuna.create_study(
        study_name="benchmark", storage=f"sqlite:///{folder / 'optuna.db'}", direction="maximize"
    )
    for config in spec["configs"]:
        study.enqueue_trial(dict(zip(("lr", "dropout", "weight_decay", "batch_size"), config, strict=True)))


def run_optuna_pair(spec: dict[str, Any], folder: Path) -> None:
    """Two processes on one study, of one thread each."""
    open_optuna(spec, folder)
    count = len(spec["configs"])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*_self("optuna-worker", folder), "--count", str(share)], env=environment)
        for share in (count - count // 2, count // 2)
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a process of Optuna failed")


def run_common(spec: dict[str, Any], folder: Path) -> None:
    """All in this process."""
    open_optuna(spec, folder)
    run_optuna(spec, folder, len(spec["configs"]))


def dlsearch_command(spec: dict[str, Any], folder: Path) -> list[str]:
    """The command that a user would type."""
    enqueue = folder / "configurations.json"
    enqueue.write_text(json.dumps([dict(zip(KEYS, config, strict=True)) for config in spec["configs"]]))
    return [
        str(Path(sys.executable).with_name("dlsearch")), "-m", "model=lenet", "data=mnist", "study.name=benchmark",
        f"study.enqueue={enqueue}", "study.default_first=false", "study.finalize=false",
        f"study.n_trials={len(spec['configs'])}", f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu",
        f"trainer.log_every_n_steps={LOG_EVERY}", f"data.train_size={spec['train']}", f"data.val_size={spec['val']}",
        f"data.eval_batch_size={EVAL_BATCH}", "optimizer.lr=tag(log, interval(1e-5, 1e-1))",
        "model.dropout=interval(0, 0.6)", "optimizer.weight_decay=tag(log, interval(1e-6, 1))",
        "data.batch_size=choice(32, 64, 128)", "hydra.launcher.workers=2", f"paths.store={folder / 'store'}",
        f"paths.data={spec['data']}", *spec["overrides"],
    ]  # fmt: skip


def read_store(folder: Path) -> list[dict[str, Any]]:
    """The trials of dlsearch's study, from their journals: opened with the claim, closed with the result."""
    found = []
    for number, path in enumerate(sorted((folder / "store" / "studies" / "benchmark").glob("t*/journal.a1.jsonl"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        scores = [r["values"]["val/accuracy"] for r in rows if r["row"] == "metrics" and "val/accuracy" in r["values"]]
        if rows[-1] != {**rows[-1], "row": "status", "status": "FINISHED"}:
            raise SystemExit(f"trial {number} did not finish: {rows[-1]}")
        started, ended = rows[0]["started"] / 1e3, rows[-1]["t"] / 1e3
        found.append({"number": number, "started": started, "ended": ended, "score": max(scores)})
    return found


# -- measuring ---------------------------------------------------------------------------------------------------------
def _self(name: str, folder: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).resolve()), "--run", name, "--folder", str(folder)]


def measure(name: str, spec: dict[str, Any]) -> dict[str, float]:
    """One contender, once: seconds from process start to exit, of the first trial's start, of the first to the last."""
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        (folder / "spec.json").write_text(json.dumps(spec))
        command = dlsearch_command(spec, folder) if name == "dlsearch" else _self(name, folder)
        environment = {k: v for k, v in os.environ.items() if k not in ("DLSEARCH_STORE", "MLFLOW_TRACKING_URI")}
        with (folder / "log.txt").open("wb") as log:
            t0, started = time.time(), time.perf_counter()
            code = subprocess.run(command, cwd=folder, stdout=log, stderr=log, env=environment, check=False).returncode
            whole = time.perf_counter() - started
        if code:
            raise SystemExit(f"{name} ended with exit status {code}:\n{(folder / 'log.txt').read_text()[-4000:]}")
        trials = read_store(folder) if name == "dlsearch" else Book(folder).rows()
        if len(trials) != len(spec["configs"]):
            raise SystemExit(f"{name} ran {len(trials)} of {len(spec['configs'])} trials")
        first, last = min(t["started"] for t in trials), max(t["ended"] for t in trials)
        return {
            "whole": whole,
            "first": first - t0,
            "trials": last - first,
            "score": statistics.mean(t["score"] for t in trials),
        }


def draw_split(spec: dict[str, Any], cache: Path) -> Path:
    """The images that all contenders train and validate on: dlsearch's own split, as index files."""
    from dlsearch.data.image import MNIST

    data = MNIST(
        root=spec["data"], cache=str(cache), shape=(1, 28, 28), num_classes=10,
        train_size=spec["train"], val_size=spec["val"],
    )  # fmt: skip
    data.prepare_data()
    return data.split_folder()


def report(found: dict[str, list[dict[str, float]]], repeats: int, spec: dict[str, Any]) -> str:
    """The table."""

    def median(name: str, key: str) -> float:
        return statistics.median(run[key] for run in found[name])

    def times(name: str, key: str) -> str:
        return f"{median(name, key) / median('limit', key):.2f}" if "limit" in found else ""

    rows = [
        [
            NAMES[name], machine.spread([r["whole"] for r in runs], 1), times(name, "whole"),
            machine.spread([r["first"] for r in runs], 1), machine.spread([r["trials"] for r in runs], 1),
            times(name, "trials"), f"{statistics.mean(r['score'] for r in runs):.4f}",
        ]
        for name, runs in found.items() if runs
    ]  # fmt: skip
    rows.sort(key=lambda row: float(row[1].split()[0]))
    headings = ["contender", "whole, s", "× limit", "first trial starts at, s", "first to last trial, s", "× limit"]
    text = machine.table([*headings, "mean validation accuracy"], rows)
    n = f"{len(spec['configs'])} trials, {spec['train']:,} + {spec['val']:,} images, median (least–most) of {repeats}"
    packages = ("dlsearch", "torch", "pytorch-lightning", "optuna", "mlflow", "torchvision")
    return f"{text}\n\n{machine.caption(n, packages)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=f"of {','.join(CONTENDERS)}")
    parser.add_argument("--small", action="store_true", help="2 trials of 640 images: a rehearsal, no measurement")
    parser.add_argument("--data", default=os.environ.get("DLSEARCH_DATA", "data"), help="folder that holds MNIST/")
    parser.add_argument("--loader-workers", type=int, default=0, help="of the DataLoaders")
    parser.add_argument("--override", action="append", default=[], help="one more word for dlsearch's command")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        spec = json.loads((given.folder / "spec.json").read_text())
        if given.run == "optuna-worker":
            run_optuna(spec, given.folder, given.count)
        else:
            entries = {"limit": run_limit, "optuna-2": run_optuna_pair, "common": run_common}
            entries[given.run](spec, given.folder)
        return
    names = given.only.split(",") if given.only else list(CONTENDERS)
    if unknown := set(names) - set(CONTENDERS):
        parser.error(f"--only: expected some of {', '.join(CONTENDERS)}, got {', '.join(sorted(unknown))}")
    spec: dict[str, Any] = {
        "configs": CONFIGS[:2] if given.small else CONFIGS,
        "train": 640 if given.small else 12_800,
        "val": 500 if given.small else 2_000,
        "data": str(Path(given.data).resolve()),
        "loader_workers": given.loader_workers,
        "overrides": given.override,
    }
    cache = Path(tempfile.mkdtemp(prefix="bench-split-"))
    try:
        spec["split"] = str(draw_split(spec, cache))  # also reads torch and torchvision into the page cache
        warm = "import mlflow, optuna, pytorch_lightning, torchvision"
        subprocess.run([sys.executable, "-c", warm], check=True, stderr=subprocess.DEVNULL)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for turn in range(given.repeats):
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                found[name].append(measure(name, spec))
                told = ", ".join(f"{key} {value:.3f}" for key, value in found[name][-1].items())
                print(f"round {turn + 1}: {name}: {told}", file=sys.stderr, flush=True)
        machine.publish(report(found, given.repeats, spec), given.out)
    finally:
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
