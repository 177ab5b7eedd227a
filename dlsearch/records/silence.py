"""Live attempts that may have no worker any more, and why, in words; nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.files.inside import inside, is_inside
from dlsearch.core.machine.processes import ProcessState, state_of
from dlsearch.storage.attempts import holder_of
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dlsearch.storage.database import Attempt
    from dlsearch.study.study import Study

KEPT = "ended, not yet recorded"
DEAD = "its worker is gone"


def is_kept(study: Study, store: Path, token: str) -> bool:
    """Whether the end of an attempt waits in the store to be written."""
    name = f"{layout.pending_folder(study.name)}/{token}.json"
    return is_inside(store, name) and inside(store, name).is_file()


def silent_attempts(
    study: Study, live: Sequence[Attempt], store: Path | None = None
) -> dict[str, str]:
    """What is to be said of live attempts, by token.

    Those that are worked on, as far as is known, are left out.

    Args:
        study: The open study.
        live: Its live attempts.
        store: This machine's, where a worker may have kept how an attempt ended.
    """
    if not live:
        return {}
    lease_s = study.typed.lease_s
    found: dict[str, str] = {}
    with study.storage.begin() as connection:
        now = study.storage.now(connection)
    for attempt in live:
        if store is not None and is_kept(study, store, attempt.token):
            found[attempt.token] = KEPT
        elif state_of(holder_of(attempt)) is ProcessState.DEAD:
            found[attempt.token] = DEAD
        elif attempt.lease_until < now:
            found[attempt.token] = f"no word for {now - attempt.lease_until + lease_s:.0f} s"
    return found
