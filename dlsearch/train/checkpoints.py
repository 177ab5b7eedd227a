"""A training's checkpoints: the last, the one before it, and the best; written whole, and verified before use.

``last.ckpt`` is what a training goes on from; ``previous.ckpt`` takes its place where it turns out to be damaged.
``best.ckpt`` is one of all those, by a hard link. Each carries its digest (:mod:`dlsearch.tracking.checksum`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlsearch.config.errors import ConfigError
from dlsearch.tracking.checksum import Damaged, check, seal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytorch_lightning as pl

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


@dataclass
class Resumption:
    """What a training goes on from.

    Args:
        path: The checkpoint; None where it begins anew.
        damaged: Names of the checkpoints that were damaged, or that no longer had their best one.
    """

    path: Path | None = None
    damaged: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any] | None:
        """For the attempt's record: ``from`` and ``damaged``; None where there was nothing to go on from."""
        if self.path is None and not self.damaged:
            return None
        return {"from": self.path.name if self.path else "the start", "damaged": self.damaged}


def save(trainer: pl.Trainer, folder: Path, *, best: bool) -> None:
    """Write the last checkpoint; it stays whole, or what it was, whatever happens in between.

    Args:
        trainer: At the end of an epoch.
        folder: Where.
        best: Whether this is the best epoch so far.

    Raises:
        OSError: The disk is full, or the like; nothing was changed.
    """
    part = folder / f"last.part{os.getpid()}"  # a lost attempt may be at it too
    with _discarding(part):
        trainer.save_checkpoint(part)
        seal(part)
        if (folder / LAST).exists():
            _link(folder / LAST, folder / PREVIOUS)
        own = _linked(part) if best else None  # not `last.ckpt`, which may be a lost attempt's by then
        part.replace(folder / LAST)
        if own is not None:
            _put(own, folder / BEST)


def keep_best(path: Path) -> None:
    """Make the checkpoint that a training goes on from its best one, too."""
    if path.name != BEST:
        _link(path, path.with_name(BEST))


def resume(folder: Path) -> Resumption:
    """What a training in `folder` goes on from: the last checkpoint, else the one before, else the start.

    A checkpoint is passed over that is damaged, or whose best checkpoint is damaged or gone: the training would end
    without the weights that it is about.
    """
    found = Resumption()
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = read(path, mmap=True)
            best = _best_epoch(state)
            if best is not None and best != state["epoch"]:
                there = read(folder / BEST, mmap=True)["epoch"]
                if there != best:
                    raise Damaged(f"{folder / BEST} is of epoch {there}, where {path} needs that of epoch {best}")
        except (Damaged, FileNotFoundError, KeyError) as error:
            sys.stderr.write(f"not gone on from: {error}\n")
            found.damaged.append(name)
        else:
            found.path = path
            return found
    return found


def read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint, verified, on the CPU; nothing is unpickled that could run.

    Raises:
        Damaged: It is not what was written.
        FileNotFoundError: There is none.
    """
    check(path)
    try:
        return dict(torch.load(path, weights_only=True, map_location="cpu", mmap=mmap))
    except (RuntimeError, EOFError, ValueError, TypeError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{path} cannot be read as a checkpoint: {line}") from error


def is_whole(path: Path) -> bool:
    """Whether there is a checkpoint at `path` that can be used; where one is damaged, says so on standard error."""
    try:
        check(path)
    except FileNotFoundError:
        return False
    except Damaged as error:
        sys.stderr.write(f"{error}\n")
        return False
    return True


def weights(path: Path) -> dict[str, Any]:
    """The weights in a checkpoint that somebody asked for.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return dict(read(path)["state_dict"])
    except Damaged as error:
        raise ConfigError("checkpoint", str(error), "train it again: dlsearch verify NAME/NUMBER") from error


def _best_epoch(state: dict[str, Any]) -> int | None:
    """The best epoch, as our callback noted it."""
    mine = [s for s in state.get("callbacks", {}).values() if isinstance(s, dict) and "metrics_sha256" in s]
    best = mine[0].get("best") if mine else None
    return None if best is None else int(best["epoch"])


def _linked(path: Path) -> Path:
    other = path.with_name(f"{path.name}.link")
    other.unlink(missing_ok=True)
    os.link(path, other)
    return other


def _put(link: Path, target: Path) -> None:
    link.replace(target)
    link.unlink(missing_ok=True)  # a rename between two links to one file removes neither


def _link(path: Path, target: Path) -> None:
    """Give `path` the name `target` as well."""
    part = target.with_name(f"{target.stem}.part{os.getpid()}")
    part.unlink(missing_ok=True)
    os.link(path, part)
    _put(part, target)


@contextlib.contextmanager
def _discarding(part: Path) -> Iterator[None]:
    """Leave nothing behind of what did not succeed: where a disk is full, its room is needed."""
    try:
        yield
    except BaseException:
        for path in (part, part.with_name(f"{part.name}.link")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise
