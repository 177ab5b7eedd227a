"""The learning-rate range test (Smith, "Cyclical learning rates for training neural networks", 2015, section 3.3).

One training whose learning rate grows by a constant factor from step to step: the loss falls once
the rate is large enough to learn, and rises once it is too large. Training data alone are read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint

from dlsearch.core.errors import ConfigError
from dlsearch.training.fit import build_data, build_task, build_trainer, seed_everything
from dlsearch.training.run import Run

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from dlsearch.tracking.journal import Journal

#: Weight of the past in the smoothed loss, and how often its least value it may become before the
#: test ends.
SMOOTHING = 0.9
DIVERGED = 4.0
#: The share of the least loss's fall at which the loss is said to have begun to fall.
BEGUN = 0.1


class RangeTest(Checkpoint):
    """Raises the learning rates and notes the losses; all parameter groups keep their ratios.

    A subclass of Lightning's ``Checkpoint``, so that Lightning writes none of its own.

    Args:
        low: Learning rate of the first step.
        high: Of the last.
        steps: How many.
    """

    def __init__(
        self,
        low: float,
        high: float,
        steps: int,
    ) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.steps = steps
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smooth: list[float] = []
        self._ratios: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the groups' ratios."""
        first = [float(group["lr"]) for group in trainer.optimizers[0].param_groups]
        largest = max(first)
        self._ratios = [rate / largest if largest > 0 else 1.0 for rate in first]

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Set this step's learning rate, whatever a schedule has set."""
        rate = self.low * (self.high / self.low) ** (len(self.rates) / (self.steps - 1))
        for group, ratio in zip(trainer.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = rate * ratio
        self.rates.append(rate)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note this step's loss; end where it has diverged."""
        loss = float(outputs["loss"])
        n = len(self.losses)
        past = self.smooth[-1] * (1 - SMOOTHING**n) if n else 0.0
        smooth = (SMOOTHING * past + (1 - SMOOTHING) * loss) / (1 - SMOOTHING ** (n + 1))
        if not math.isfinite(smooth):
            self.rates.pop()
            trainer.should_stop = True
            return
        self.losses.append(loss)
        self.smooth.append(smooth)
        if n >= self.steps // 10 and smooth > DIVERGED * min(self.smooth):
            trainer.should_stop = True


def range_test(
    cfg: DictConfig,
    folder: Path,
    journal: Journal,
    *,
    low: float,
    high: float,
    steps: int,
) -> dict[str, Any]:
    """Run the test.

    Args:
        cfg: What to train.
        folder: Lightning's, for what it writes.
        journal: Gets ``lr_range/loss``, ``lr_range/smooth`` and ``lr_range/lr`` by step.
        low: First learning rate.
        high: Last.
        steps: Of the training.

    Returns:
        ``rates``, ``losses`` and ``smooth`` by step, whether it ``diverged``, and what
        :func:`suggest` makes of them.
    """
    seed_everything(cfg.seed)
    data = build_data(cfg)
    task = build_task(cfg)
    test = RangeTest(low, high, steps)
    cfg = OmegaConf.merge(cfg, {"trainer": {"max_epochs": steps, "limit_val_batches": 0.0}})  # type: ignore[assignment]
    trainer = build_trainer(cfg, Run(folder, journal, ["train/loss"], ["minimize"]), [test])
    trainer.fit_loop.epoch_loop.max_steps = steps
    trainer.fit(task, datamodule=data)
    if len(test.losses) < 10:
        raise ConfigError(
            "--low",
            f"the loss is not finite after {len(test.losses)} steps",
            "begin with a lower rate",
        )
    for step, (rate, loss, smooth) in enumerate(
        zip(test.rates, test.losses, test.smooth, strict=True)
    ):
        journal.metrics(
            {"lr_range/lr": rate, "lr_range/loss": loss, "lr_range/smooth": smooth}, step
        )
    return {
        "low": low,
        "high": high,
        "steps": steps,
        "rates": [float(f"{v:.6g}") for v in test.rates],
        "losses": [float(f"{v:.6g}") for v in test.losses],
        "smooth": [float(f"{v:.6g}") for v in test.smooth],
        "diverged": len(test.losses) < steps,
        **suggest(test.rates, test.smooth),
    }


def suggest(rates: list[float], smooth: list[float]) -> dict[str, Any]:
    """Learning rates that the curve speaks for.

    Args:
        rates: Growing by a constant factor.
        smooth: The smoothed losses.

    Returns:
        ``begins`` (where a tenth of the fall to the least loss is done), ``least`` (where the loss
        is least), and ``suggestion``, where it falls most steeply by the logarithm of the rate; all
        None where it never falls.
    """
    losses = np.asarray(smooth)
    logs = np.log(rates)
    at = int(losses.argmin())
    first = float(losses[: max(1, len(losses) // 20)].mean())
    fall = first - float(losses[at])
    if at < 3 or fall <= 0.01 * abs(first):
        return {"begins": None, "least": None, "suggestion": None}
    begins = int(np.argmax(losses[: at + 1] <= first - BEGUN * fall))
    slope = np.gradient(losses[: at + 1], logs[: at + 1])
    steepest = begins + int(slope[begins:].argmin()) if begins < at else at
    return {
        key: float(f"{rates[i]:.3g}")
        for key, i in (("begins", begins), ("least", at), ("suggestion", steepest))
    }
