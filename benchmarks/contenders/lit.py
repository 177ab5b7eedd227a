"""One trial as users of Lightning write it: DataLoader, torchvision's transforms, MLFlowLogger, ModelCheckpoint.

    python benchmarks/contenders/lit.py FOLDER

trains all configurations one after the other, without any search around them. The other contenders
import :func:`make_training`.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import work


def make_training(spec: dict[str, Any], folder: Path) -> Callable[[int], float]:
    """Import Lightning and friends; a function that trains one configuration and returns its best accuracy."""
    import numpy as np
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
    from pytorch_lightning.loggers import MLFlowLogger
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    class LitLeNet(pl.LightningModule):
        def __init__(self, lr: float, dropout: float, weight_decay: float, batch_size: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = work.lenet(dropout)

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
            return torch.optim.AdamW(
                self.parameters(), lr=hp["lr"], weight_decay=hp["weight_decay"]
            )

    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((work.MEAN,), (work.STD,))]
    )
    mnist = datasets.MNIST(spec["data"], train=True, transform=transform)
    split = {
        name: Subset(mnist, np.load(Path(spec["split"]) / f"{name}_index.npy"))
        for name in ("train", "val")
    }
    workers = int(spec["loader_workers"])
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    # two processes that make MLflow's tables at once collide
    with (folder / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        MLFlowLogger("benchmark", tracking_uri=uri).experiment.search_experiments()

    def train(number: int) -> float:
        started = time.time()
        lr, dropout, weight_decay, batch_size = spec["configs"][number]
        pl.seed_everything(number)
        best = ModelCheckpoint(folder / f"trial-{number}", monitor="val_accuracy", mode="max")
        trainer = pl.Trainer(
            max_epochs=work.EPOCHS,
            accelerator="cpu",
            log_every_n_steps=work.LOG_EVERY,
            logger=MLFlowLogger("benchmark", run_name=f"trial-{number}", tracking_uri=uri),
            # Lightning's default, unless some package brings rich along
            callbacks=[best, TQDMProgressBar()],
            default_root_dir=folder,
        )
        trainer.fit(
            LitLeNet(lr, dropout, weight_decay, batch_size),
            DataLoader(split["train"], batch_size=batch_size, shuffle=True, num_workers=workers),
            DataLoader(split["val"], batch_size=work.EVAL_BATCH, num_workers=workers),
        )
        score = float(best.best_model_score)
        work.Book(folder).add(number, started, score)
        return score

    return train


def main() -> None:
    _, spec, folder = work.arguments(__doc__)
    train = make_training(spec, folder)
    for number in range(len(spec["configs"])):
        train(number)


if __name__ == "__main__":
    main()
