"""Which checkpoints stay on disk.

A trial that may go on keeps all it has. Of a finished one the last checkpoints go, and the best one
stays while the trial is among the ``study.keep.top_k`` best (what is predicted with, exported and
compared), within ``max_gib``. The winner's stays whatever the numbers say, and so does what the
confirmation trains until it has been scored. Nothing but checkpoints is removed: the storage, the
ledger, journals, logs and reports do not depend on them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.confirmation.rounds import Rounds
from dlsearch.core.files.checksum import TENSORS
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

#: What a training leaves that is used later: its best checkpoint, the weights of that in a file of
#: their own, and the record by which the checkpoint is known.
BEST = (layout.CHECKPOINT, layout.WEIGHTS, layout.RESUME_RECORD)


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


@dataclass(frozen=True)
class KeepSettings:
    """How much is kept.

    Args:
        top_k: The best checkpoints of so many trials; None for all.
        max_gib: What they may take together; None without a limit.
    """

    top_k: int | None = 10
    max_gib: float | None = None


def settings(study: Study, given: Mapping[str, Any] | None = None) -> KeepSettings:
    """``study.keep`` of a study; where `given` has a value, that."""
    own = study.typed.study_settings.get("keep") or {}
    found = {**own, **(given or {})}
    default = KeepSettings()
    return KeepSettings(
        top_k=found.get("top_k", default.top_k),
        max_gib=found.get("max_gib", default.max_gib),
    )


def plan(
    study: Study,
    store: Path,
    given: Mapping[str, Any] | None = None,
) -> list[Removal]:
    """What of a study's checkpoints in this store is not kept.

    Args:
        study: The open study.
        store: This machine's.
        given: Settings in place of the study's own.
    """
    keep = settings(study, given)
    ranked = _ranked(study)
    protected = _protected(study)
    kept = protected | _kept_by_rank(study, ranked, keep.top_k)
    why_best = "the trial has no result"
    if keep.top_k is not None:
        why_best = f"not among the {keep.top_k} best"
    found: list[Removal] = []
    for number, folder in _ended_folders(study, store):
        going = dict.fromkeys(_last_checkpoints(folder), "the trial has ended")
        if number not in kept:
            going |= dict.fromkeys(_existing(folder), why_best)
        found += _sized(going)
    if keep.max_gib is not None:
        gone = {each.path for each in found}
        stays = [number for number in ranked if number not in protected]
        found += _beyond(
            study,
            store,
            stays,
            gone,
            int(keep.max_gib * 2**30),
        )
    return found


def _kept_by_rank(
    study: Study,
    ranked: list[int],
    top_k: int | None,
) -> set[int]:
    """The trials whose best checkpoint stays because of what they scored."""
    if top_k is not None:
        return set(ranked[:top_k])
    # what violates a constraint is ranked nowhere, and is a result all the same
    infeasible = {trial.number for trial in study.trials() if not is_feasible(trial)}
    return infeasible.union(ranked)


def _ended_folders(study: Study, store: Path) -> list[tuple[int, Path]]:
    """The trials that have ended for good and have checkpoints here, with the folders of these."""
    trials = {trial.number: trial for trial in study.trials()}
    busy = study.leases.live_numbers(AttemptKind.TRIAL)
    found: list[tuple[int, Path]] = []
    for folder in _folders(study, store):
        number = int(folder.parent.name[1:])
        trial = trials.get(number)
        if trial is not None and trial.state.is_finished() and number not in busy:
            found.append((number, folder))
    return found


def _last_checkpoints(folder: Path) -> list[Path]:
    """All but the best one."""
    return [path for path in folder.iterdir() if path.name not in BEST]


def _existing(folder: Path) -> list[Path]:
    """The best checkpoint in a folder, and what belongs to it."""
    paths = [folder / name for name in BEST]
    return [path for path in paths if path.is_file()]


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
        self._study = study
        self._store = store
        self._keep = settings(study)
        self._known: set[int] | None = None  # the best trials, as of the last end

    def ended(self, number: int) -> None:
        """A trial has its final state.

        Its last checkpoints go, and the best one of the trial that it displaced.

        Raises:
            OutsideError: A folder of the study is a symbolic link.
        """
        study = self._study
        top_k = self._keep.top_k
        if top_k is not None and self._needs_whole_plan(number):
            remove(plan(study, self._store))
        folder = inside(self._store, f"{layout.trial_folder(study.name, number)}/ckpt")
        if folder.is_dir():
            remove(_sized(dict.fromkeys(_last_checkpoints(folder), "the trial has ended")))
        if top_k is None:
            self._known = {number}
            return
        top = set(_ranked(study, top_k))
        if len(study.directions) == 1:
            before = self._known or set()
            for other in (before | {number}) - top:
                for path in _best_of(study, self._store, other):
                    path.unlink(missing_ok=True)
        self._known = top

    def _needs_whole_plan(self, number: int) -> bool:
        """Whether more may have to go than what the end of one trial displaces."""
        if len(self._study.directions) > 1 or self._keep.max_gib is not None:
            return True
        return self._known is None and number > 0


def _best_of(study: Study, store: Path, number: int) -> list[Path]:
    """The best checkpoint of a trial, and what belongs to it."""
    folder = f"{layout.trial_folder(study.name, number)}/ckpt"
    return [inside(store, f"{folder}/{name}") for name in BEST]


def close_round(study: Study, store: Path, now: Round) -> None:
    """Once a round is over: what it showed goes to its runs.

    Of this machine's checkpoints one is kept.
    """
    folder = plain(store, layout.confirm_folder(study.name), deep=False)
    closed = inside(store, folder / f"r{now.number}-closed")
    if closed.exists() or not folder.is_dir():
        return
    run_journals.close_round(study, store, now)
    kept = kept_folder(study, now)
    if kept is not None and not now.document["scored"]:
        return  # the same command scores again, and wants the winner's checkpoints
    for found in [*folder.glob(f"r{now.number}-*/ckpt"), *_list_carried(folder, now)]:
        each = inside(store, found)
        if each.parent != store / str(kept):
            shutil.rmtree(each, ignore_errors=True)
        for name in ("last.ckpt", "previous.ckpt"):
            (each / name).unlink(missing_ok=True)
    closed.touch()


def _list_carried(folder: Path, now: Round) -> list[Path]:
    """Folders of checkpoints of the winner's replicas that an earlier round trained.

    The scoring made those again that were not there any more.
    """
    winner = now.race.winner
    found: list[Path] = []
    for part in sorted(now.carried):
        if part.finalist != winner:
            continue
        number = now.round_of(part.finalist, part.replica)
        name = layout.replica_name(number, now.field[part.finalist].trial_number, part.replica)
        if (folder / name / "ckpt").is_dir():
            found.append(folder / name / "ckpt")
    return found


def _folders(study: Study, store: Path) -> list[Path]:
    """The folders of checkpoints of a study's trials in this store.

    Raises:
        OutsideError: One of them, or one on the way, is a symbolic link.
    """
    own = inside(store, layout.study_folder(study.name))
    found: list[Path] = []
    for folder in sorted(own.glob("t[0-9]*/ckpt")):
        digits = folder.parent.name[1:]
        if digits.isascii() and digits.isdigit():
            found.append(inside(store, folder))
    return found


def _ranked(study: Study, count: int | None = None) -> list[int]:
    """Complete trials, the best first; with several objectives those that none dominates.

    Copies are left out, and so is what violates a constraint.
    """
    if len(study.directions) > 1:
        trials = study.trials()
        return [number for number in study.front() if DUPLICATE not in trials[number].user_attrs]
    return best_numbers(
        study.storage,
        study.id,
        study.directions[0],
        count,
        DUPLICATE,
    )


def _protected(study: Study) -> set[int]:
    """The trial that won, of the search and of the confirmation."""
    found = [find_winner(study, Rounds(study).last()), find_winner(study, None)]
    winners = {each.number for each in found if each is not None}
    numbers = {number for number in winners if number is not None}
    trials = study.trials()
    return {trials[n].user_attrs.get(DUPLICATE, n) for n in numbers} | numbers


def _sized(going: Mapping[Path, str]) -> list[Removal]:
    """With sizes; a file under two names gives its bytes back with the last of them.

    Args:
        going: Why each is not kept.
    """
    stats: dict[Path, os.stat_result] = {}
    for path in going:
        if path.is_file() and not path.is_symlink():
            stats[path] = path.lstat()
    names_going = Counter(stat.st_ino for stat in stats.values())
    found: list[Removal] = []
    counted = set[int]()
    for path in sorted(stats):
        stat = stats[path]
        is_last_name = names_going[stat.st_ino] == stat.st_nlink
        gives_back = is_last_name and stat.st_ino not in counted
        counted.add(stat.st_ino)
        found.append(
            Removal(
                path,
                stat.st_size if gives_back else 0,
                going[path],
            )
        )
    return found


def _beyond(
    study: Study,
    store: Path,
    ranked: list[int],
    gone: set[Path],
    limit: int,
) -> list[Removal]:
    """The worst of what would stay, until the rest takes no more than `limit` bytes.

    Args:
        study: The open study.
        store: This machine's.
        ranked: The trials that may lose their best checkpoint, the best first.
        gone: What goes anyway.
        limit: Bytes.
    """
    folder = inside(store, layout.study_folder(study.name))
    sizes: dict[int, int] = {}  # by inode: a file may have two names
    for pattern in ("*.ckpt", f"*{TENSORS}"):
        for path in folder.rglob(pattern):
            if path not in gone:
                stat = path.lstat()
                sizes[stat.st_ino] = stat.st_size
    total = sum(sizes.values())
    found: list[Removal] = []
    for number in reversed(ranked):
        if total <= limit:
            break
        for path in _best_of(study, store, number):
            if path in gone or not path.is_file():
                continue
            size = path.stat().st_size
            total -= size
            found.append(Removal(path, size, f"beyond {limit / 2**30:g} GiB"))
    return found
