"""Which metrics were logged anew: Lightning keeps those of earlier epochs for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytorch_lightning as pl


class FreshMetrics:
    """Tells the metrics that were logged in this epoch, or in this validation, from older ones.

    ``trainer.callback_metrics`` is one dictionary for the whole training. What is logged puts a new
    tensor into it, and nothing takes one out. So a value is old if the tensor is the one that was
    there at the beginning. Lightning also replaces what was logged in an epoch once more after all
    callbacks have seen it: by the same numbers at the same place in memory.
    """

    def __init__(self) -> None:
        """Everything is fresh."""
        self._old: dict[str, Any] = {}
        self._last_seen: dict[str, Any] = {}

    def read(self, trainer: pl.Trainer) -> dict[str, float]:
        """The values that were logged since the last beginning, by name."""
        found: dict[str, float] = {}
        self._last_seen = dict(trainer.callback_metrics)
        for name, value in self._last_seen.items():
            if value is not self._old.get(name):
                found[name] = float(value)
        return found

    def begin_epoch(self, trainer: pl.Trainer) -> None:
        """From now on what was there when it was read last is old.

        What callbacks have put there since is fresh: they may have been called before this one.
        """
        current = trainer.callback_metrics
        self._old = {}
        for name, value in current.items():
            if name in self._last_seen and is_same_place(value, self._last_seen[name]):
                self._old[name] = value

    def begin_validation(self) -> None:
        """From now on what was read last is old."""
        self._old = self._last_seen

    def is_logged_anew(self, trainer: pl.Trainer, name: str) -> bool:
        """Whether `name` was logged since the last reading, within an epoch.

        There Lightning makes a new tensor of the last step's value whenever it is asked, so that
        its place in memory decides.
        """
        current = trainer.callback_metrics
        if name not in current:
            return False
        return not is_same_place(current[name], self._last_seen.get(name))


def is_same_place(one: Any, other: Any) -> bool:
    """Whether two values are one, or two tensors over the same memory."""
    if one is other:
        return True
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    return one.data_ptr() == other.data_ptr() != 0


def explain_missing_objective(
    name: str,
    seen: Mapping[str, float],
    trainer: pl.Trainer,
) -> tuple[str, str]:
    """What is wrong with an objective that never had a value, and what to do.

    Args:
        name: The objective.
        seen: What was logged by epochs or validations.
        trainer: It has ended.
    """
    known = ", ".join(sorted(seen)) or "nothing"
    by_loader = sorted(each for each in seen if each.startswith(f"{name}/dataloader_idx_"))
    if by_loader:
        hint = f"study.objective={by_loader[0]}"
        return f"{name!r} has a name for each loader: {', '.join(by_loader)}", hint
    if name in trainer.logged_metrics or f"{name}_step" in trainer.logged_metrics:
        hint = f"self.log({name!r}, …, on_epoch=True); the module logs {known}"
        return f"{name!r} is logged for steps alone, not for epochs", hint
    if not trainer.enable_validation:
        return f"{name!r} is not logged, and nothing is validated", f"the module logs {known}"
    return f"{name!r} is not logged", f"the module logs {known}"
