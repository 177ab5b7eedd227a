"""Which checkpoints stay on disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from dlsearch.search import run_journals
from dlsearch.search.finalization import kept_folder
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.search.rounds import Round
    from dlsearch.search.study import Study


def close_round(study: Study, store: Path, now: Round) -> None:
    """Once a round is over: what it showed goes to its runs, and of this machine's checkpoints one is kept."""
    folder = store / layout.confirm_folder(study.name)
    closed = folder / f"r{now.number}-closed"
    if closed.exists() or not folder.is_dir():
        return
    run_journals.close_round(study, store, now)
    kept = kept_folder(study, now)
    if kept is not None and not now.document["scored"]:
        return  # the same command scores again, and wants the winner's checkpoints
    for each in folder.glob(f"r{now.number}-*/ckpt"):
        if each.parent != store / str(kept):
            shutil.rmtree(each, ignore_errors=True)
        for name in ("last.ckpt", "previous.ckpt"):
            (each / name).unlink(missing_ok=True)
    closed.touch()
