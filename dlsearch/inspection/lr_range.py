"""The learning-rate range test (Smith, 2015, section 3.3).

"Cyclical learning rates for training neural networks". One training whose learning rate grows by a
constant factor from step to step: the loss falls once the rate is large enough to learn, and rises
once it is too large. Training data alone are read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Checkpoint

from dlsearch.core.errors import ConfigError
from dlsearch.inspection.findings import RangeTestFindings, SuggestedRates, round_to_digits
from dlsearch.training.building import build_data, build_task, build_trainer, seed_everything
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
#: The suggestion is at most this share of the rate of the least loss: that rate is the largest that
#: a short training bore, and a long one diverges there (Smith, 2018, section 4.1).
SAFE = 0.1
#: A fall to less than this share of the first losses is none.
LEAST_FALL = 0.01
#: Fewest steps that say something.
FEWEST_STEPS = 10
#: The share of the steps that the first loss is the mean of, and the share in which the test goes
#: on whatever the loss: one in so many.
STEPS_PER_FIRST = 20
STEPS_PER_EARLY = 10


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

    def on_train_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
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
        done = len(self.rates) / (self.steps - 1)
        rate = self.low * (self.high / self.low) ** done
        groups = trainer.optimizers[0].param_groups
        for group, ratio in zip(groups, self._ratios, strict=True):
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
        smooth = self._smooth_with(loss)
        if not math.isfinite(smooth):
            self.rates.pop()
            trainer.should_stop = True
            return
        is_early = len(self.losses) < self.steps // STEPS_PER_EARLY
        self.losses.append(loss)
        self.smooth.append(smooth)
        if not is_early and smooth > DIVERGED * min(self.smooth):
            trainer.should_stop = True

    def _smooth_with(self, loss: float) -> float:
        """The smoothed loss after one more step; the first losses weigh what they should."""
        n = len(self.losses)
        past = 0.0
        if n:
            past = self.smooth[-1] * (1 - SMOOTHING**n)
        weight = 1 - SMOOTHING ** (n + 1)
        return (SMOOTHING * past + (1 - SMOOTHING) * loss) / weight


def range_test(
    cfg: DictConfig,
    folder: Path,
    journal: Journal,
    *,
    low: float,
    high: float,
    steps: int,
) -> RangeTestFindings:
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

    Raises:
        ConfigError: The loss is not finite after a few steps.
    """
    test = RangeTest(low, high, steps)
    _train_with(test, cfg, folder, journal)
    done = len(test.losses)
    if done < FEWEST_STEPS:
        raise ConfigError(
            "--low",
            f"the loss is not finite after {done} steps",
            "begin with a lower rate",
        )
    _write_steps(test, journal)
    suggested = suggest(test.rates, test.smooth)
    return {
        "low": low,
        "high": high,
        "steps": steps,
        "rates": _six_digits(test.rates),
        "losses": _six_digits(test.losses),
        "smooth": _six_digits(test.smooth),
        "diverged": done < steps,
        **suggested,
    }


def _train_with(
    test: RangeTest,
    cfg: DictConfig,
    folder: Path,
    journal: Journal,
) -> None:
    """Train for the steps of the test, without validation."""
    seed_everything(cfg.seed)
    data = build_data(cfg)
    task = build_task(cfg)
    changes = {"trainer": {"max_epochs": test.steps, "limit_val_batches": 0.0}}
    changed: Any = OmegaConf.merge(cfg, changes)
    run = Run(
        folder,
        journal,
        ["train/loss"],
        ["minimize"],
    )
    trainer = build_trainer(changed, run, [test])
    trainer.fit_loop.epoch_loop.max_steps = test.steps
    trainer.fit(task, datamodule=data)


def _write_steps(test: RangeTest, journal: Journal) -> None:
    """A row for each step."""
    points = zip(test.rates, test.losses, test.smooth, strict=True)
    for step, (rate, loss, smooth) in enumerate(points):
        values = {
            "lr_range/lr": rate,
            "lr_range/loss": loss,
            "lr_range/smooth": smooth,
        }
        journal.metrics(values, step)


def _six_digits(values: list[float]) -> list[float]:
    return [round_to_digits(value, 6) for value in values]


def suggest(rates: list[float], smooth: list[float]) -> SuggestedRates:
    """Learning rates that the curve speaks for.

    Args:
        rates: Growing by a constant factor.
        smooth: The smoothed losses.

    Returns:
        ``begins`` (where a tenth of the fall to the least loss is done), ``least`` (where the loss
        is least), and ``suggestion``, where it falls most steeply by the logarithm of the rate, but
        at most a tenth of ``least`` where the loss falls before that; all None where it never
        falls.
    """
    losses = np.asarray(smooth)
    logs = np.log(rates)
    least = int(losses.argmin())
    n_first = max(1, len(losses) // STEPS_PER_FIRST)
    first = float(losses[:n_first].mean())
    fall = first - float(losses[least])
    if least < 3 or fall <= LEAST_FALL * abs(first):
        return {"begins": None, "least": None, "suggestion": None}
    falling = losses[: least + 1]
    begins = int(np.argmax(falling <= first - BEGUN * fall))
    steepest = least
    if begins < least:
        slope = np.gradient(falling, logs[: least + 1])
        safe = int(np.searchsorted(logs, logs[least] + math.log(SAFE), side="right"))
        stop = max(safe, begins + 1)
        steepest = begins + int(slope[begins:stop].argmin())
    return {
        "begins": round_to_digits(rates[begins], 3),
        "least": round_to_digits(rates[least], 3),
        "suggestion": round_to_digits(rates[steepest], 3),
    }
