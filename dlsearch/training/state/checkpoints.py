"""A training's checkpoints: the last, the one before it, and the best.

Written whole, and verified before use.

A training resumes from ``last.ckpt``; ``previous.ckpt`` takes its place where it turns out to be
damaged. ``best.ckpt`` is one of all those, by a hard link. Each carries its digest
(:mod:`dlsearch.core.files.checksum`), and holds whatever objects the user's module put there: it is
unpickled by the process of a training or of its scoring alone, and only where its digest was
recorded (:mod:`dlsearch.training.state.resume_record`). ``best.safetensors`` has the weights of
``best.ckpt`` for all else.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import TENSORS, Damaged, check, seal, sealed_digest
from dlsearch.core.machine.processes import process_tag
from dlsearch.tracking.layout import CHECKPOINT, WEIGHTS, weights_beside
from dlsearch.training.state import weights_file
from dlsearch.training.state.loading import StateDict, load_everything, load_plain
from dlsearch.training.state.resume_record import Entry, Place, ResumeRecord, Standing
from dlsearch.training.state.weights_file import StoredWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytorch_lightning as pl

    from dlsearch.core.types import JsonObject
    from dlsearch.training.run import ResumptionNote

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
BEST = CHECKPOINT

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
        damaged: Names of the checkpoints that were damaged or changed, or that no longer had their
            best one.
        is_own: Whether this user's own training wrote it, so that it may hold any object.
    """

    path: Path | None = None
    damaged: list[str] = field(default_factory=list)
    is_own: bool = False

    def to_json(self) -> ResumptionNote | None:
        """For the attempt's record; None where there was nothing to go on from."""
        if self.path is None and not self.damaged:
            return None
        source = "the start" if self.path is None else self.path.name
        return {"from": source, "damaged": self.damaged}


@dataclass(frozen=True)
class Note:
    """What is noted of a checkpoint when it is written.

    Args:
        record: Takes its digest.
        place: Where in the training it is written.
        best: Where the best one so far is written; None before there is one.
        write_weights: Writes the weights of the checkpoint that was saved last to a file.
    """

    record: ResumeRecord
    place: Place
    best: Place | None
    write_weights: Callable[[Path], None]


def save(
    trainer: pl.Trainer,
    folder: Path,
    *,
    best: bool,
    note: Note | None = None,
) -> None:
    """Write the last checkpoint; it stays whole, or what it was, whatever happens in between.

    Args:
        trainer: At the end of an epoch.
        folder: Where.
        best: Whether this is the best epoch so far.
        note: What is noted of it; without, neither a record of it nor its weights are written.

    Raises:
        OSError: The disk is full, or the like; nothing was changed.
    """
    part = folder / f"last.part{process_tag()}"  # a lost attempt may be at it too
    weights_part = folder / f"weights.part{process_tag()}"
    with _discard_on_error(part, weights_part):
        trainer.save_checkpoint(part)
        digest = seal(part)
        if note is not None:
            note.record.add(Entry(digest, note.place, note.best))
        if best and note is not None:
            note.write_weights(weights_part)
        if (folder / LAST).exists():
            _add_name(folder / LAST, folder / PREVIOUS)
        # not `last.ckpt`, which may be a lost attempt's by then
        own = _make_link(part) if best else None
        part.replace(folder / LAST)
        if own is not None:
            _move_link(own, folder / BEST)
        if weights_part.exists():
            weights_part.replace(folder / WEIGHTS)


def keep_best(
    path: Path,
    place: Place | None = None,
    write_weights: Callable[[Path], None] | None = None,
) -> None:
    """Make the checkpoint that a training resumes from its best one, too.

    Args:
        path: The checkpoint.
        place: Where it was written.
        write_weights: Writes its weights to a file, where these are not of this place.
    """
    if path.name != BEST:
        _add_name(path, path.with_name(BEST))
    weights = path.with_name(WEIGHTS)
    if write_weights is None or (weights.is_file() and _place_of_weights(weights) == place):
        return
    part = path.with_name(f"weights.part{process_tag()}")
    with _discard_on_error(part):
        write_weights(part)
        part.replace(weights)


def resume(folder: Path, record: ResumeRecord | None = None) -> Resumption:
    """The checkpoint that a training in `folder` resumes from.

    It is the last, else the one before, else none.

    A checkpoint is passed over that is damaged or was changed, or whose best checkpoint is damaged
    or gone: the training would end without the weights that it is about.

    Args:
        folder: The training's.
        record: Of its checkpoints.
    """
    record = record or ResumeRecord(folder)
    found = Resumption()
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        try:
            entry = _entry_of(path, record)
            _check_best(path, entry, record)
        except (Damaged, FileNotFoundError, KeyError) as error:
            warn(f"not gone on from: {error}", prefix="")
            found.damaged.append(name)
        else:
            found.path = path
            found.is_own = record.find(entry.sha256) is not None
            return found
    return found


def read(path: Path, *, mmap: bool = False, is_own: bool = False) -> Checkpoint:
    """A checkpoint, verified, on the CPU.

    Args:
        path: The file.
        mmap: Whether tensors stay on the disk until they are used.
        is_own: Whether it is known to be this user's own, and this process is that of a training or
            of its scoring: then every object in it is read back, which runs code. Else nothing is
            unpickled that could run.

    Raises:
        Damaged: It is not what was written.
        FileNotFoundError: There is none.
    """
    check(path)
    if is_own:
        return cast("Checkpoint", dict(load_everything(path, mmap=mmap)))
    try:
        found = dict(load_plain(path, mmap=mmap))
    except (RuntimeError, EOFError, ValueError, TypeError, pickle.UnpicklingError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise Damaged(f"{path} cannot be read as a checkpoint: {lines[0]}") from error
    return cast("Checkpoint", found)


def is_own(path: Path, record: ResumeRecord) -> bool:
    """Whether a checkpoint is known to be this user's own.

    Raises:
        Damaged: It was changed since it was written.
        FileNotFoundError: There is none.
    """
    standing = record.standing(sealed_digest(path))
    if standing is Standing.CHANGED:
        raise Damaged(f"{path} was changed: it is not the file that the training wrote")
    return standing is Standing.OWN


def is_whole(path: Path, record: ResumeRecord | None = None) -> bool:
    """Whether there are weights at `path` that can be used.

    Where they are damaged, says so on standard error.

    Args:
        path: A file of weights, or a checkpoint.
        record: Where the training is restored that they are of: its checkpoint has to be whole,
            too.
    """
    try:
        check(path)
        if record is not None:
            check(path.with_name(BEST))
            if is_own(path.with_name(BEST), record) and path.suffix != TENSORS:
                return False  # its weights are gone, and it may hold more than plain values
    except FileNotFoundError:
        return False
    except Damaged as error:
        warn(str(error), prefix="")
        return False
    return True


def read_weights(path: Path) -> StoredWeights:
    """Weights, and what is said of them; nothing is unpickled.

    Args:
        path: A file of weights, or a checkpoint of an earlier version.

    Raises:
        Damaged: It is not what was written.
        FileNotFoundError: There is none.
    """
    if path.suffix == TENSORS:
        check(path)
        return weights_file.read(path)
    saved = read(path)
    about = {"epoch": saved["epoch"], "step": saved.get("global_step", 0)}
    return StoredWeights(dict(saved["state_dict"]), {**about, "input": input_of(saved)})


def input_of(saved: Checkpoint) -> JsonObject | None:
    """What the data module's state in a checkpoint says of inputs; None where it says nothing."""
    for state in saved.values():
        if isinstance(state, dict) and isinstance(state.get("input"), dict):
            return dict(state["input"]) or None
    return None


def weights(path: Path) -> StateDict:
    """The weights in a file, or a checkpoint, that a user named.

    Raises:
        ConfigError: It is damaged.
    """
    try:
        return read_weights(path).state
    except Damaged as error:
        raise ConfigError(
            "checkpoint",
            str(error),
            "train it again: dlsearch verify NAME/NUMBER",
        ) from error


def find_weights(folder: Path) -> Path:
    """The file with the best weights in a folder of checkpoints."""
    return weights_beside(folder / BEST)


def _entry_of(path: Path, record: ResumeRecord) -> Entry:
    """What is known of a checkpoint: from the record, or else from the plain values in it.

    Raises:
        Damaged: It is damaged, or was changed, or is another user's and holds more than plain
            values.
        FileNotFoundError: There is none.
    """
    check(path)
    digest = sealed_digest(path)
    if is_own(path, record):
        entry = record.find(digest)
        assert entry is not None
        return entry
    state = read(path, mmap=True)
    return Entry(digest or "", _place_of(state), _place_of_best(state))


def _check_best(path: Path, entry: Entry, record: ResumeRecord) -> None:
    """Check that the best checkpoint is the one that another, at `path`, speaks of.

    Raises:
        Damaged: It is damaged, or of another place in the training.
    """
    if entry.best is None or entry.best == entry.place:
        return
    best = path.with_name(BEST)
    there: Place | None = _entry_of(best, record).place
    if there == entry.best and best.with_name(WEIGHTS).is_file():
        best = best.with_name(WEIGHTS)
        check(best)
        there = _place_of_weights(best)
    if there != entry.best:
        raise Damaged(f"{best} is of {there}, where {path} needs that of {entry.best}")


def _place_of_weights(path: Path) -> Place | None:
    try:
        about = weights_file.read(path).about
        return Place(int(about["epoch"]), int(about["step"]))
    except (Damaged, KeyError, TypeError, ValueError):
        return None


def _place_of(state: Checkpoint) -> Place:
    """Where a checkpoint was written."""
    return Place(int(state["epoch"]), int(state.get("global_step", 0)))


def _place_of_best(state: Checkpoint) -> Place | None:
    """Where the best checkpoint was written, as our callback noted it; None before there is one."""
    for callback in state.get("callbacks", {}).values():
        if isinstance(callback, dict) and "metrics_sha256" in callback:
            best = callback.get("best")
            if best is None:
                return None
            return Place(int(best["epoch"]), int(best["step"]))
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
def _discard_on_error(*parts: Path) -> Iterator[None]:
    """Leave nothing behind of what did not succeed: where a disk is full, the space is needed."""
    try:
        yield
    except BaseException:
        for part in parts:
            for path in (part, part.with_name(f"{part.name}.link")):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
        raise
