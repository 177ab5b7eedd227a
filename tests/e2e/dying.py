"""Callbacks for studies that are to lose a process, or to run out of memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch


class Dies(pl.Callback):
    """Kills the first process that reaches `epoch`, as the out-of-memory killer would.

    Args:
        epoch: From 0; those before it were checkpointed.
        mark: A file that says that it has been done.
    """

    def __init__(self, epoch: int, mark: str) -> None:
        self.epoch, self.mark = epoch, Path(mark)

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        if trainer.current_epoch == self.epoch and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Waits(pl.Callback):
    """Has each process stay in its second epoch until a file is there.

    Args:
        mark: The file.
    """

    def __init__(self, mark: str) -> None:
        self.mark = Path(mark)

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        while trainer.current_epoch == 1 and not self.mark.exists():
            time.sleep(0.05)


class Leaves(pl.Callback):
    """Has the first process that reaches its second epoch call ``sys.exit``.

    Args:
        code: Of the exit.
        mark: A file that says that it has been done.
    """

    def __init__(self, code: int, mark: str) -> None:
        self.code, self.mark = code, Path(mark)

    def on_train_epoch_start(self, trainer: Any, _module: Any) -> None:
        if trainer.current_epoch == 1 and not self.mark.exists():
            self.mark.touch()
            sys.exit(self.code)


class Cramped(pl.Callback):
    """Leaves the process so much memory, and has each step take some for every sample, from torch's own allocator.

    Args:
        room_mib: Address space beside what is in use when the training starts.
        sample_mib: Taken, and given back, by each sample of a step.
    """

    def __init__(self, room_mib: int, sample_mib: int) -> None:
        self.room, self.sample = room_mib << 20, sample_mib << 20

    def on_train_start(self, trainer: Any, module: Any) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(
            resource.RLIMIT_AS, (used + self.room, resource.getrlimit(resource.RLIMIT_AS)[1])
        )
        forward = module.net.forward

        def hungry(x: torch.Tensor) -> torch.Tensor:
            taken = torch.empty(len(x) * self.sample if module.training else 1, dtype=torch.uint8)
            return forward(x) + taken[0].float() * 0

        module.net.forward = hungry
