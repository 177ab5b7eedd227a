"""A sampler of a user's own, which takes as long as a test lets it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from optuna.samplers import RandomSampler

WAIT_S = 20.0


class Gated(RandomSampler):
    """Says which trial it is asked for, and waits while the test keeps the gate shut.

    Args:
        folder: In it, ``shut-N`` has the proposal for trial N wait until it is gone; ``asked-N``
            says that it does.
        alike: Whether all proposals are the same.
        seed: Of what is proposed.
    """

    def __init__(self, folder: str, alike: bool = False, seed: int | None = None) -> None:
        super().__init__(seed=0 if alike else seed)
        self._folder = Path(folder)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Wait."""
        pass_gate(self._folder, trial.number)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Note that it was told."""
        (self._folder / f"told-{trial.number}").touch()


def gated_space(trial: Any, cfg: Any) -> None:
    """A space that takes as long: its folder is ``model.folder``."""
    pass_gate(Path(cfg["model"]["folder"]), trial.number)
    trial.suggest_float("optimizer.lr", 0.001, 0.1)


def pass_gate(folder: Path, number: int) -> None:
    """Wait until the way is open."""
    (folder / f"asked-{number}").touch()
    deadline = time.monotonic() + WAIT_S
    while (folder / f"shut-{number}").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the gate stayed shut")
        time.sleep(0.01)
