"""The driver: from ``-m`` to an open study, its workers, and the end of it.

Order matters here: what is cheap and may be wrong comes first, what is slow starts early and beside it (the fork
server imports torch while the database opens), and nothing is written before everything has been checked.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import AWAY, ConfigError, DatabaseAwayError
from dlsearch.search import engines, serve
from dlsearch.search.draft import Compose, Draft, make_draft
from dlsearch.search.forkserver import ForkServer
from dlsearch.search.joining import describe
from dlsearch.search.place import check_storage, exists, patience, storage_of
from dlsearch.search.slots import slots_and_reason
from dlsearch.search.trial_config import remember

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.tracking.handle import Shipper

LAST_S = 2.0  # that a database is waited for when all else is over
#: What opening the database and the report at the end import, seconds in all.
LATER_IMPORTS = (
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
    "scipy.stats",
    "jinja2",
    "dlsearch.search.importance",
)


@dataclass
class Outcome:
    """What a search came to, for the command that ends it.

    Args:
        name: The study.
        storage_url: Its storage.
        store: Where it wrote.
        interrupted: Whether Ctrl-C ended it.
        patience_s: How long the storage is waited for.
        finish: Call with the report's folder (or None): closes the study's run and waits for tracking.
    """

    name: str
    storage_url: str
    store: Path
    interrupted: bool
    patience_s: float
    finish: Callable[[Path | None], bool]


_outcome: list[Outcome] = []


def outcome() -> Outcome | None:
    """The outcome of this process's search."""
    return _outcome[-1] if _outcome else None


def search(
    compose: Compose, launcher: Any, overrides: Sequence[str], *, params: Mapping[str, Any], groups: set[str]
) -> None:
    """Open or resume a study, have it served, and leave its :func:`outcome`.

    Args:
        compose: Composes overrides without sweeps.
        launcher: A Hydra launcher that was set up.
        overrides: As typed after ``-m``.
        params: ``hydra.sweeper.params``.
        groups: Config groups that may be searched.

    Raises:
        ConfigError: Something is wrong; nothing was written.
    """
    draft = make_draft(compose, overrides, params=params, groups=groups)
    local, away = hasattr(launcher, "workers"), engines.is_elsewhere(launcher)
    count = launcher.workers if local else 1 if away else draft.study["workers"] or 1
    key = "hydra.launcher.workers" if local else "study.workers"
    accelerator = draft.config["trainer"]["accelerator"]
    asked = draft.config["worker"]
    places, reason = slots_and_reason(
        count, threads=asked["threads"], accelerator=accelerator, per_gpu=asked["slots_per_gpu"], key=key
    )
    draft.notices += [reason] if reason and local else []
    if not local and not away:  # its jobs share this machine
        draft.config["worker"]["threads"] = places[0].threads
    store = check_store(Path(draft.config["paths"]["store"]))
    url = storage_of(store, draft.study)
    patience(draft.study)
    check_storage(url)
    if hasattr(launcher, "connect"):  # it handles SIGTERM too: before we do
        launcher.connect()
        launcher.elastic = draft.study["workers"] is None
    if away:
        draft.notices += engines.notices(url, draft.config)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's word for Ctrl-C
    server = ForkServer.start(serve.preload(draft.representatives()))
    ship = None
    if draft.config["tracking"]["enabled"]:  # imports mlflow with the time that is left over
        from dlsearch.tracking.handle import Shipper

        ship = Shipper(store, draft.config["tracking"]["uri"] or f"sqlite:///{store / 'mlflow.db'}", wait=True)
    try:
        _search(draft, launcher, server, ship, store, url, len(places) if local else None, places[0].threads)
    finally:
        serve.warm = None
        if hasattr(launcher, "close"):
            launcher.close()
        if ship is not None and ship.waits:
            ship.dismiss()
        server.stop()


def _search(
    draft: Draft,
    launcher: Any,
    server: ForkServer,
    ship: Shipper | None,
    store: Path,
    url: str,
    local_slots: int | None,
    threads: int,
) -> None:
    # Imported while the fork server imports torch beside it.
    from dlsearch.search import database, opening, transfers
    from dlsearch.search.rounds import Rounds
    from dlsearch.search.study_rows import read_row
    from dlsearch.search.watch import Watch
    from dlsearch.tracking import provenance

    patience_s = patience(draft.study)
    if exists(url):  # a drifted config is refused before the wait for torch
        existing = database.Storage(url, patience_s=patience_s)
        row = existing.surely(lambda: read_row(existing, draft.name))
        existing.close()
    else:
        row = None
    found = provenance.collect(
        config=draft.config,
        space=draft.space.to_json(),
        data={},
        allow_targets=draft.config["allow_targets"],
        threads=threads,
    )
    for module in LATER_IMPORTS:  # here they cost nothing: torch is being imported beside
        importlib.import_module(module)
    weights = Path(draft.config["paths"]["weights"])
    known = None if row is None else transfers.kept_files(json.loads(row.document)["config"].get("transfer"), weights)
    data = Path(draft.config["paths"]["data"])
    sources = transfers.find(transfers.sources(draft), store=store, url=url, data=data, kept=known, own=draft.name)
    described = preflight(server, draft, sources)
    nodes = [draft.config["transfer"], *draft.options.get("transfer", {}).values()]
    transferred = transfers.settle(nodes, sources, described.get("weights", {}))
    found["provenance"] |= {"weights": transferred} if transferred else {}
    draft.notices += transfers.lines(transferred)
    document = opening.document_of(draft, described, found)
    if row is not None:
        opening.check_drift(row, document, bool(draft.study["allow_drift"]))
    store.mkdir(parents=True, exist_ok=True)
    storage = database.Storage(url, patience_s=patience_s)
    study, resumed = opening.open_study(storage, draft, document, lease_s=draft.config["worker"]["lease_s"])
    transfers.keep(weights, transferred, described.get("files", {}))
    if resumed and storage.surely(Rounds(study).reopen):
        draft.notices.append("the winner's scoring had failed: it is done again, and the ledger has a row for each")
    if ship is not None:
        ship.go()
    started, interrupted = time.monotonic(), False
    say = storage.surely(lambda: Watch(study, store, total_slots=local_slots, notices=draft.notices, resumed=resumed))
    say.open_run(draft, found.get("diff"))
    ended = away = False
    try:
        interrupted = _launch(draft, launcher, server, say, local_slots)
        ended = True
    except DatabaseAwayError:
        away = True
        if local_slots is not None:  # its worker has said so
            raise SystemExit(AWAY) from None
        raise
    finally:
        if interrupted or not ended:  # Ctrl-C and errors wait for nothing
            storage.patience_s = min(storage.patience_s, LAST_S)
        if not away:
            with suppress(DatabaseAwayError):
                study.add_seconds(time.monotonic() - started)
        storage.close()

    def settle() -> None:
        study.reap()
        study.settle(interrupted=interrupted, confirmed=Rounds(study).done())

    try:
        storage.surely(settle)
        storage.surely(lambda: say.close(interrupted=interrupted))
    except DatabaseAwayError as error:
        if not interrupted:
            raise
        say.say(f"interrupted; {error}")

    def finish(report: Path | None) -> bool:
        say.close_run(report, interrupted=interrupted)
        storage.close()
        return ship.stop(120.0) if ship is not None else True

    _outcome.append(Outcome(draft.name, url, store, interrupted, patience_s, finish))


def _launch(draft: Draft, launcher: Any, server: ForkServer, say: Any, local_slots: int | None) -> bool:
    """Run the workers with the live view beside them; True when Ctrl-C ended it.

    Raises:
        DatabaseAwayError: The database was away for too long.
    """
    guard = threading.Lock()
    stop = threading.Event()
    storage = say.study.storage
    remember(draft.config, draft.options)
    word: str | None = None
    if local_slots is not None:
        serve.warm = server
        launcher.fork_guard = _Quiet(guard, storage.close)
    else:
        server.stop()  # every job has its own machine, or starts its own
        word = None if engines.is_reached(launcher) else uuid.uuid4().hex
    slots = local_slots or engines.slots_of_a_job(launcher, draft.config)
    overrides = serve.worker_overrides(draft.name, draft.config, slots, typed=draft.overrides, session=word)
    jobs = 1 if local_slots is not None else draft.study["workers"] or 1
    view = threading.Thread(target=say.watch, args=(stop, guard), name="watch", daemon=True)
    storage.close()
    view.start()
    try:
        returns = launcher.launch([overrides] * jobs, initial_job_idx=0)
        return engines.interrupted(
            returns, lambda: storage.surely(lambda: engines.is_done(say.study)), storage.patience_s
        )
    except KeyboardInterrupt:
        if word is not None:
            storage.patience_s = min(storage.patience_s, LAST_S)
            with suppress(DatabaseAwayError):
                storage.surely(partial(engines.recall, say.study, word))
        return True
    finally:
        stop.set()
        view.join(timeout=20)


class _Quiet:
    """Around a fork: no other thread is in the middle of something, and no connection is inherited."""

    def __init__(self, lock: threading.Lock, close: Callable[[], None]) -> None:
        self._lock, self._close = lock, close

    def __enter__(self) -> None:
        self._lock.acquire()
        self._close()
        sys.stdout.flush()
        sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def check_store(store: Path) -> Path:
    """The store's absolute path; it is writable, or can be made. Nothing is made here.

    Raises:
        ConfigError: It cannot be written.
    """
    store = store.expanduser().resolve()
    nearest = store
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError("paths.store", f"{store} cannot be written", "paths.store=… or DLSEARCH_STORE")
    return store


def preflight(server: ForkServer, draft: Draft, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Build everything once on the meta device, prepare the data, describe both; in a child of the fork server.

    Raises:
        ConfigError: Something cannot be built.
    """
    goals = {"objectives": draft.objectives, "directions": draft.directions}
    payload = {"configs": draft.representatives(), "weights": weights, **goals}
    return describe(server, payload)
