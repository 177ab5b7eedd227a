"""Before a search: what is cheap to check and may be wrong. Nothing is written here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.sqlite_url import sqlite_url
from dlsearch.execution.resources.slots import slots_and_reason, threads_of_study
from dlsearch.storage.location import check_folders, check_storage, patience, storage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.launch.base import SearchLauncher
    from dlsearch.planning.draft import Draft


@dataclass(frozen=True)
class MachineShare:
    """How this machine is shared out among trials.

    Args:
        local_slots: Trials at a time; None where jobs are launched that know it for themselves.
        threads: CPU threads of each trial; None where machines elsewhere decide.
        typed_threads: ``worker.threads`` of the command.
        reason: Why so many slots, as it is said; None where their number was given.
    """

    local_slots: int | None
    threads: int | None
    typed_threads: int | None
    reason: str | None


@dataclass
class Prepared:
    """A search whose configuration has been checked as far as that costs nothing.

    Args:
        draft: The study before it is opened; notices are added to it.
        launcher: Starts its workers.
        store: Where this machine writes, absolute.
        storage_url: The study's storage.
        patience_s: How long the storage is waited for.
        share: How this machine is shared out.
    """

    draft: Draft
    launcher: SearchLauncher
    store: Path
    storage_url: str
    patience_s: float
    share: MachineShare

    @property
    def tracking_uri(self) -> str | None:
        """Where MLflow is; None where nothing is tracked."""
        tracking = self.draft.config["tracking"]
        if not tracking["enabled"]:
            return None
        return tracking["uri"] or sqlite_url(self.store / "mlflow.db")


def prepare(draft: Draft, launcher: SearchLauncher) -> Prepared:
    """Share out the machine, check the store and the storage, and reach what runs the jobs.

    Args:
        draft: The study; notices are added to it.
        launcher: Starts its workers.

    Raises:
        ConfigError: Something is wrong.
    """
    share = _share_machine(draft, launcher)
    store = check_store(Path(draft.config["paths"]["store"]))
    check_folders(store, draft.name)
    storage_url = storage_of(store, draft.study)
    patience_s = patience(draft.study)
    check_storage(storage_url)
    launcher.connect(elastic=draft.study["workers"] is None)
    draft.notices += launcher.notices(storage_url, draft.config)
    return Prepared(draft, launcher, store, storage_url, patience_s, share)


def _share_machine(draft: Draft, launcher: SearchLauncher) -> MachineShare:
    places, reason = _slots_here(draft, launcher, draft.config["worker"]["threads"])
    typed = draft.config["worker"]["threads"]
    if launcher.serves_all_slots:
        if reason:
            draft.notices.append(reason)
        return MachineShare(len(places), places[0].threads, typed, reason)
    if launcher.has_own_machines:  # nobody here knows their cores
        return MachineShare(None, typed, typed, reason)
    threads = places[0].threads
    draft.config["worker"]["threads"] = threads  # its jobs share this machine
    return MachineShare(None, threads, typed, reason)


def _slots_here(
    draft: Draft,
    launcher: SearchLauncher,
    threads: int | None,
) -> tuple[Any, str | None]:
    return slots_and_reason(
        launcher.slots_here(draft.study["workers"]),
        threads=threads,
        accelerator=draft.config["trainer"]["accelerator"],
        per_gpu=draft.config["worker"]["slots_per_gpu"],
        key=launcher.slots_key,
    )


def keep_share_of_study(prepared: Prepared, document: Mapping[str, Any]) -> None:
    """Give the trials of a study that exists as many threads as those that ended had.

    Args:
        prepared: The search; its share, its config and its notices are changed.
        document: Of the study.

    Raises:
        ConfigError: Another number is asked for, and not ``study.allow_drift=true``.
    """
    draft = prepared.draft
    launcher = prepared.launcher
    share = prepared.share
    is_local = launcher.serves_all_slots
    # of a study that an older dlsearch opened
    older = document["provenance"].get("threads") if is_local else None
    fixed = document.get("threads", older)
    is_overruled = draft.study["allow_drift"] and share.typed_threads is not None
    if fixed is None or is_overruled:
        return
    threads = threads_of_study({"name": draft.name, "threads": fixed}, share.typed_threads)
    draft.config["worker"]["threads"] = threads
    if not is_local or threads == share.threads:
        prepared.share = replace(share, threads=threads)
        return
    places, reason = _slots_here(draft, launcher, threads)
    if share.reason is not None and reason is not None:
        draft.notices[draft.notices.index(share.reason)] = reason
    prepared.share = MachineShare(len(places), threads, share.typed_threads, reason)


def _is_text(name: str) -> bool:
    """Whether a path is text, not bytes that the locale's encoding does not know."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_store(store: Path) -> Path:
    """The store's absolute path; it is writable, or can be made. Nothing is made here.

    Raises:
        ConfigError: It cannot be written.
    """
    store = store.expanduser().resolve()
    if not str(store).isascii() and not _is_text(str(store)):
        raise ConfigError(
            "paths.store",
            f"{str(store)!r} cannot be read in this locale, which is not UTF-8",
            "LC_ALL=C.UTF-8 dlsearch …",
        )
    nearest = store
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(
            "paths.store", f"{store} cannot be written", "paths.store=… or DLSEARCH_STORE"
        )
    return store
