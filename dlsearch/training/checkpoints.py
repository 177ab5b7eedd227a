"""A training's checkpoints: the last, the one before it, and the best.

Written whole, and verified before use.

A training resumes from ``last.ckpt``; ``previous.ckpt`` takes its place where it turns out to be
damaged. ``best.ckpt`` is one of all those, by a hard link. Each carries its digest
(:mod:`dlsearch.core.files.checksum`).
"""

from __future__ import annotations

import contextlib
import os
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import Damaged, check, seal
from dlsearch.core.processes import process_tag
from dlsearch.training.loading import StateDict, load_plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytorch_lightning as pl

    from dlsearch.training.run import ResumptionNote

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = "best.ckpt"

#: Lightning's name of a callback: the names and the state of each are its own.
_CallbackStates: TypeAlias = dict[str, Any]


class Checkpoint(TypedDict, total=False):
    """What we read of what Lightning writes.

    Args:
        state_dict: The weights.
        epoch: At which it was written.
        global_step: At which it was written.
        callbacks: The state of each callback, by its name.
    """

    state_dict: StateDict
    epoch: int
    global_step: int
    callbacks: _CallbackStates


@dataclass
class Resumption:
    """The checkpoint that a training resumes from.

    Args:
        path: The checkpoint; None where it starts from the beginning.
        damaged: Names of the checkpoints that were damaged, or that no longer had their best one.
    """

    path: Path | None = None
    damaged: list[str] = field(default_factory=list)

    def to_json(self) -> ResumptionNote | None:
        """For the attempt's record; None where there was nothing to go on from."""
        if self.path is None and not self.damaged:
            return None
        source = "the start" if self.path is None else self.path.name
        return {"from": source, "damaged": self.damaged}


def save(trainer: pl.Trainer, folder: Path, *, best: bool) -> None:
    """Write the last checkpoint; it stays whole, or what it was, whatever happens in between.

    Args:
        trainer: At the end of an epoch.
        folder: Where.
        best: Whether this is the best epoch so far.

    Raises:
        OSError: The disk is full, or the like; nothing was changed.
    """
    part = folder / f"last.part{process_tag()}"  # a lost attempt may be at it too
    with _discard_on_error(part):
        trainer.save_checkpoint(part)
        seal(part)
        if (folder / LAST).exists():
            _add_name(folder / LAST, folder / PREVIOUS)
        # not `last.ckpt`, which may be a lost attempt's by then
        own = _make_link(part) if best else None
        part.replace(folder / LAST)
        if own is not None:
            _move_link(own, folder / BEST)


def keep_best(path: Path) -> None:
    """Make the checkpoint that a training resumes from its best one, too."""
    if path.name != BEST:
        _add_name(path, path.with_name(BEST))


def resume(folder: Path) -> Resumption:
    """The checkpoint that a training in `folder` resumes from.

    It is the last, else the one before, else none.

    A checkpoint is passed over that is damaged, or whose best checkpoint is damaged or gone: the
    training would end without the weights that it is about.
    """
    found = Resumption()
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = read(path, mmap=True)
            _check_best(folder / BEST, path, state)
        except (Damaged, FileNotFoundError, KeyError) as error:
            warn(f"not gone on from: {error}", prefix="")
            found.damaged.append(name)
        else:
            found.path = path
            return found
    return found


def read(path: Path, *, mmap: bool = False) -> Checkpoint:
    """A checkpoint, verified, on the CPU; nothing is unpickled that could run.

    Raises:
        Damaged: It is not what was written.
        FileNotFoundError: There is none.
    """
    check(path)
    try:
        found = dict(load_plain(path, mmap=mmap))
    except (RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise Damaged(f"{path} cannot be read as a checkpoint: {lines[0]}") from error
    return cast("Checkpoint", found)


def is_whole(path: Path) -> bool:
    """Whether there is a checkpoint at `path` that can be used.

    Where one is damaged, says so on standard error.
    """
    try:
        check(path)
    except FileNotFoundError:
        return False
    except Damaged as error:
        warn(str(error), prefix="")
        return False
    return True


def weights(path: Path) -> StateDict:
    """The weights in a checkpoint that a user named.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return dict(read(path)["state_dict"])
    except Damaged as error:
        raise ConfigError(
            "checkpoint",
            str(error),
            "train it again: dlsearch verify NAME/NUMBER",
        ) from error


def _check_best(best: Path, path: Path, state: Checkpoint) -> None:
    """Check that the best checkpoint is the one that the state of another, at `path`, speaks of.

    Raises:
        Damaged: It is damaged, or of another place in the training.
    """
    wanted = _place_of_best(state)
    if wanted is None or wanted == _place_of(state):
        return
    there = _place_of(read(best, mmap=True))
    if there != wanted:
        raise Damaged(f"{best} is of {there}, where {path} needs that of {wanted}")


@dataclass(frozen=True)
class _Place:
    """Where in a training a checkpoint was written."""

    epoch: int
    global_step: int

    def __str__(self) -> str:
        return f"epoch {self.epoch} (step {self.global_step})"


def _place_of(state: Checkpoint) -> _Place:
    """Where a checkpoint was written."""
    return _Place(int(state["epoch"]), int(state["global_step"]))


def _place_of_best(state: Checkpoint) -> _Place | None:
    """Where the best checkpoint was written, as our callback noted it; None before there is one."""
    for callback in state.get("callbacks", {}).values():
        if isinstance(callback, dict) and "metrics_sha256" in callback:
            best = callback.get("best")
            if best is None:
                return None
            return _Place(int(best["epoch"]), int(best["step"]))
    return None


def _make_link(path: Path) -> Path:
    other = path.with_name(f"{path.name}.link")
    other.unlink(missing_ok=True)
    os.link(path, other)
    return other


def _move_link(link: Path, target: Path) -> None:
    link.replace(target)
    link.unlink(missing_ok=True)  # a rename between two links to one file removes neither


def _add_name(path: Path, target: Path) -> None:
    """Give `path` the name `target` as well."""
    part = target.with_name(f"{target.stem}.part{process_tag()}")
    part.unlink(missing_ok=True)
    os.link(path, part)
    _move_link(part, target)


@contextlib.contextmanager
def _discard_on_error(part: Path) -> Iterator[None]:
    """Leave nothing behind of what did not succeed: where a disk is full, the space is needed."""
    try:
        yield
    except BaseException:
        for path in (part, part.with_name(f"{part.name}.link")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise
