"""Which checkpoints stay on disk.

A trial that may go on keeps all it has. Of a finished one the last checkpoints go, and the best one
stays while the trial is among the ``study.keep.top_k`` best (what is predicted with, exported and
compared), within ``max_gib``. The winner's stays whatever the numbers say, and so does what the
confirmation trains until it has been scored. Nothing but checkpoints is removed: the storage, the
ledger, journals, logs and reports do not depend on them.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.confirmation.rounds import Rounds
from dlsearch.core.files.inside import inside, plain
from dlsearch.execution import run_journals
from dlsearch.records.confirmation import find_winner, kept_folder
from dlsearch.storage.trial_index import best_numbers, is_feasible
from dlsearch.study.states import AttemptKind
from dlsearch.study.study import DUPLICATE, Study
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dlsearch.confirmation.rounds import Round

BEST = "best.ckpt"


@dataclass(frozen=True)
class Removal:
    """A file that is not kept.

    Args:
        path: Where it is.
        size: Bytes that its removal gives back; 0 where another name of the same file stays.
        why: In a few words.
    """

    path: Path
    size: int
    why: str


def settings(
    study: Study, given: Mapping[str, Any] | None = None
) -> tuple[int | None, float | None]:
    """``top_k`` and ``max_gib`` of a study; where `given` has one, that."""
    keep = {
        "top_k": 10,
        "max_gib": None,
        **(study.typed.study_settings.get("keep") or {}),
        **(given or {}),
    }
    return keep["top_k"], keep["max_gib"]


def plan(study: Study, store: Path, given: Mapping[str, Any] | None = None) -> list[Removal]:
    """What of a study's checkpoints in this store is not kept.

    Args:
        study: The open study.
        store: This machine's.
        given: Settings in place of the study's own.
    """
    top_k, max_gib = settings(study, given)
    trials = {t.number: t for t in study.trials()}
    busy = study.leases.live_numbers(AttemptKind.TRIAL)
    ranked = _ranked(study)
    kept = set(ranked if top_k is None else ranked[:top_k])
    if top_k is None:  # what violates a constraint is ranked nowhere, and is a result all the same
        kept |= {number for number, trial in trials.items() if not is_feasible(trial)}
    protected = _protected(study)
    found: list[Removal] = []
    for folder in _folders(study, store):
        number = int(folder.parent.name[1:])
        trial = trials.get(number)
        if trial is None or not trial.state.is_finished() or number in busy:
            continue
        going = {path: "the trial has ended" for path in folder.iterdir() if path.name != BEST}
        if number not in kept | protected and (folder / BEST).is_file():
            going[folder / BEST] = (
                f"not among the {top_k} best" if top_k is not None else "the trial has no result"
            )
        found += _sized(going)
    if max_gib is not None:
        found += _beyond(store, study, ranked, protected, found, int(max_gib * 2**30))
    return found


def remove(removals: Iterable[Removal]) -> int:
    """Remove; the bytes that this gave back.

    What is gone already, or cannot be removed, is passed over.
    """
    freed = 0
    for each in removals:
        with contextlib.suppress(OSError):
            each.path.unlink()
            freed += each.size
    return freed


class Keeper:
    """Keeps a study's checkpoints in bounds while a worker serves it.

    Args:
        study: The open study.
        store: This machine's.
    """

    def __init__(self, study: Study, store: Path) -> None:
        """Nothing is removed before a trial has ended."""
        self.study = study
        self.store = store
        self.top_k, self.max_gib = settings(study)
        self._known: set[int] | None = None

    def ended(self, number: int) -> None:
        """A trial has its final state.

        Its last checkpoints go, and the best one of the trial that it displaced.

        Raises:
            OutsideError: A folder of the study is a symbolic link.
        """
        whole = (
            len(self.study.directions) > 1
            or self.max_gib is not None
            or (self._known is None and number > 0)
        )
        if whole and self.top_k is not None:
            remove(plan(self.study, self.store))
        top = set(_ranked(self.study, self.top_k)) if self.top_k is not None else {number}
        folder = inside(self.store, f"{layout.trial_folder(self.study.name, number)}/ckpt")
        if folder.is_dir():
            remove(_sized({path: "" for path in folder.iterdir() if path.name != BEST}))
        if self.top_k is not None and len(self.study.directions) == 1:
            for other in ((self._known or set()) | {number}) - top:
                best = f"{layout.trial_folder(self.study.name, other)}/ckpt/{BEST}"
                inside(self.store, best).unlink(missing_ok=True)
        self._known = top


def close_round(study: Study, store: Path, now: Round) -> None:
    """Once a round is over: what it showed goes to its runs, and of this machine's checkpoints one is kept."""
    folder = plain(store, layout.confirm_folder(study.name), deep=False)
    closed = inside(store, folder / f"r{now.number}-closed")
    if closed.exists() or not folder.is_dir():
        return
    run_journals.close_round(study, store, now)
    kept = kept_folder(study, now)
    if kept is not None and not now.document["scored"]:
        return  # the same command scores again, and wants the winner's checkpoints
    for each in map(partial(inside, store), folder.glob(f"r{now.number}-*/ckpt")):
        if each.parent != store / str(kept):
            shutil.rmtree(each, ignore_errors=True)
        for name in ("last.ckpt", "previous.ckpt"):
            (each / name).unlink(missing_ok=True)
    closed.touch()


def _folders(study: Study, store: Path) -> list[Path]:
    """The folders of checkpoints of a study's trials in this store.

    Raises:
        OutsideError: One of them, or one on the way, is a symbolic link.
    """
    found = sorted(inside(store, layout.study_folder(study.name)).glob("t[0-9]*/ckpt"))
    return [
        inside(store, each)
        for each in found
        if each.parent.name[1:].isascii() and each.parent.name[1:].isdigit()
    ]


def _ranked(study: Study, count: int | None = None) -> list[int]:
    """Complete trials, the best first; with several objectives those that none dominates.

    Copies are left out, and so is what violates a constraint.
    """
    if len(study.directions) > 1:
        trials = study.trials()
        return [number for number in study.front() if DUPLICATE not in trials[number].user_attrs]
    return best_numbers(study.storage, study.id, study.directions[0], count, DUPLICATE)


def _protected(study: Study) -> set[int]:
    """The trial that won, of the search and of the confirmation."""
    found = [find_winner(study, Rounds(study).last()), find_winner(study, None)]
    winners = {each.number for each in found if each is not None}
    numbers = {number for number in winners if number is not None}
    trials = study.trials()
    return {trials[n].user_attrs.get(DUPLICATE, n) for n in numbers} | numbers


def _sized(going: Mapping[Path, str]) -> list[Removal]:
    """With sizes; a file under two names gives its bytes back with the last of them."""
    stats = {path: path.lstat() for path in going if path.is_file() and not path.is_symlink()}
    left: dict[int, int] = {}
    for stat in stats.values():
        left[stat.st_ino] = left.get(stat.st_ino, stat.st_nlink) - 1
    found = []
    counted = set[int]()
    for path in sorted(stats):
        inode = stats[path].st_ino
        size = stats[path].st_size if left[inode] == 0 and inode not in counted else 0
        counted.add(inode)
        found.append(Removal(path, size, going[path]))
    return found


def _beyond(
    store: Path,
    study: Study,
    ranked: list[int],
    protected: set[int],
    found: list[Removal],
    most: int,
) -> list[Removal]:
    """The worst of what would stay, until the rest takes no more than `most` bytes."""
    gone = {each.path for each in found}
    folder = inside(store, layout.study_folder(study.name))
    inodes = {p.lstat().st_ino: p.lstat().st_size for p in folder.rglob("*.ckpt") if p not in gone}
    total = sum(inodes.values())
    more = []
    for number in reversed(ranked):
        path = inside(store, f"{layout.trial_folder(study.name, number)}/ckpt/{BEST}")
        if total <= most:
            break
        if number in protected or path in gone or not path.is_file():
            continue
        total -= path.stat().st_size
        more.append(Removal(path, path.stat().st_size, f"beyond {most / 2**30:g} GiB"))
    return more
