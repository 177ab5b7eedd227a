"""Learning-rate schedules: each a factor on the optimiser's rates, after a linear warm-up."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer


class SchedulerConfig(TypedDict):
    """What Lightning is told of a scheduler.

    Args:
        scheduler: torch's.
        interval: When it steps: at every ``step`` or at every ``epoch``.
        name: Of what is logged.
        monitor: The metric that it watches.
        reduce_on_plateau: Whether it watches one.
    """

    scheduler: LRScheduler | ReduceLROnPlateau
    interval: Literal["step", "epoch"]
    name: str
    monitor: NotRequired[str]
    reduce_on_plateau: NotRequired[bool]


class Schedule:
    """What becomes of the learning rate; it is built before there is an optimiser.

    Args:
        warmup: Steps in which the rate rises linearly to where the schedule starts: below 1 a
            fraction of all steps, else their number.
    """

    def __init__(self, warmup: float = 0.0) -> None:
        if warmup < 0:
            raise ValueError(
                f"warmup: expected a fraction below 1 or a number of steps, got {warmup}"
            )
        self.warmup = warmup

    def warmup_steps(self, total_steps: int) -> int:
        """Of `total_steps`."""
        return round(self.warmup * total_steps) if self.warmup < 1 else int(self.warmup)

    @abstractmethod
    def factor(
        self,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> float:
        """On the rate at `step` of `total_steps`, both counted after the warm-up."""

    def curve(self, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
        """The factor at each step, warm-up included."""
        warmup = self.warmup_steps(total_steps)
        left = max(1, total_steps - warmup)

        def at(step: int) -> float:
            if step < warmup:
                return (
                    (step + 1)
                    / warmup
                    * self.factor(
                        0,
                        left,
                        steps_per_epoch,
                    )
                )
            return self.factor(min(step - warmup, left), left, steps_per_epoch)

        return at

    def configure(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
    ) -> list[SchedulerConfig]:
        """Lightning's scheduler configurations, of which a schedule that changes nothing has none.

        Args:
            optimizer: Whose rates change.
            total_steps: Of the whole training.
            steps_per_epoch: Optimiser steps in an epoch.
        """
        curve = self.curve(total_steps, steps_per_epoch)
        return [{"scheduler": LambdaLR(optimizer, curve), "interval": "step", "name": "lr"}]


class Constant(Schedule):
    """The optimiser's rate, throughout."""

    def factor(
        self,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> float:
        """1."""
        return 1.0

    def configure(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
    ) -> list[SchedulerConfig]:
        """Nothing to do without a warm-up."""
        if not self.warmup:
            return []
        return super().configure(optimizer, total_steps, steps_per_epoch)


class Step(Schedule):
    """Times `gamma` after every `every` epochs.

    Args:
        every: Epochs between.
        gamma: The factor.
        warmup: See :class:`Schedule`.
    """

    def __init__(
        self,
        every: int = 3,
        gamma: float = 0.1,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(warmup)
        if every < 1:
            raise ValueError(f"every: expected 1 epoch or more, got {every}")
        self.every = every
        self.gamma = gamma

    def factor(
        self,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> float:
        """gamma^⌊epoch / every⌋."""
        return self.gamma ** (step // (self.every * max(1, steps_per_epoch)))


class Cosine(Schedule):
    """Half a cosine from the rate down to `final` of it.

    After Loshchilov and Hutter (2017), without restarts.

    Args:
        final: What is left at the end, as a fraction.
        warmup: See :class:`Schedule`.
    """

    def __init__(self, final: float = 0.0, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        if not 0 <= final <= 1:
            raise ValueError(f"final: expected 0 to 1, got {final}")
        self.final = final

    def factor(
        self,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> float:
        """From 1 to `final`."""
        return _cosine(1.0, self.final, step / total_steps)


class OneCycle(Schedule):
    """Up and down once, both on half a cosine (Smith and Topin, 2018).

    Momentum stays as it is, unlike in the paper. The optimiser's rate is the peak. The curve is
    that of ``torch.optim.lr_scheduler.OneCycleLR``.

    Args:
        rise: Fraction of the steps before the peak.
        div: The peak over the first rate.
        final_div: The first rate over the last.
        warmup: See :class:`Schedule`.
    """

    def __init__(
        self,
        rise: float = 0.3,
        div: float = 25.0,
        final_div: float = 1e4,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(warmup)
        if not 0 < rise < 1:
            raise ValueError(f"rise: expected a fraction between 0 and 1, got {rise}")
        if min(div, final_div) < 1:
            raise ValueError(f"div: expected 1 or more, got {div} and {final_div}")
        self.rise = rise
        self.div = div
        self.final_div = final_div

    def factor(
        self,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> float:
        """From 1 / div to 1 to 1 / (div · final_div)."""
        first = 1 / self.div
        last = 1 / (self.div * self.final_div)
        peak = self.rise * total_steps - 1
        end = total_steps - 1
        if step <= peak and peak > 0:
            return _cosine(first, 1.0, step / peak)
        start = max(0.0, peak)
        progress = (step - start) / max(1e-9, end - start)
        return _cosine(1.0, last, min(1.0, progress))


class Plateau(Schedule):
    """Times `gamma` whenever `monitor` has not improved for `patience` validated epochs.

    Args:
        monitor: The metric.
        mode: min or max.
        gamma: The factor.
        patience: Epochs without improvement that are borne.
        min_lr: Where it ends.
        warmup: See :class:`Schedule`.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: str = "min",
        gamma: float = 0.3,
        patience: int = 2,
        min_lr: float = 0.0,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(warmup)
        if mode not in ("min", "max"):
            raise ValueError(f"mode: expected min or max, got {mode!r}")
        if not 0 < gamma < 1:
            raise ValueError(f"gamma: expected a number between 0 and 1, got {gamma}")
        self.mode: Literal["min", "max"] = "min" if mode == "min" else "max"
        self.monitor = monitor
        self.gamma = gamma
        self.patience = patience
        self.min_lr = min_lr

    def factor(
        self,
        step: int,
        total_steps: int,
        steps_per_epoch: int,
    ) -> float:
        """1: nothing is known beforehand."""
        return 1.0

    def configure(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
    ) -> list[SchedulerConfig]:
        """The watcher, and a warm-up that leaves the rate alone once it is over."""
        plateau = ReduceLROnPlateau(
            optimizer,
            mode=self.mode,
            factor=self.gamma,
            patience=self.patience,
            min_lr=self.min_lr,
        )
        watch: SchedulerConfig = {
            "scheduler": plateau,
            "interval": "epoch",
            "monitor": self.monitor,
            "reduce_on_plateau": True,
            "name": "lr",
        }
        steps = self.warmup_steps(total_steps)
        if not steps:
            return [watch]
        warmup: SchedulerConfig = {
            "scheduler": LinearWarmup(optimizer, steps),
            "interval": "step",
            "name": "lr/warmup",
        }
        return [warmup, watch]


class LinearWarmup(LRScheduler):
    """Raise the rates linearly over the first `steps`, then keep off them.

    A factor that another scheduler puts on a rate meanwhile lasts.

    Args:
        optimizer: Whose rates change.
        steps: How many.
    """

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        self.steps = steps
        self._set: list[float] = []
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """The rates of the step that comes."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if self.last_epoch >= self.steps:
            return rates
        for index, was_set in enumerate(self._set):
            if rates[index] != was_set and was_set:
                self.base_lrs[index] *= rates[index] / was_set
        self._set = [float(base) * (self.last_epoch + 1) / self.steps for base in self.base_lrs]
        return list(self._set)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
