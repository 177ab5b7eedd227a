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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import AWAY, ConfigError, DatabaseAwayError
from dlsearch.search import serve
from dlsearch.search.draft import Compose, Draft, make_draft
from dlsearch.search.forkserver import ForkServer
from dlsearch.search.place import check_storage, exists, patience, storage_of
from dlsearch.search.slots import slots_and_reason
from dlsearch.search.trial_config import remember

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.tracking.handle import Shipper

INTERRUPTED = 130
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
    local = hasattr(launcher, "workers")
    count = launcher.workers if local else draft.study["workers"] or 1
    key = "hydra.launcher.workers" if local else "study.workers"
    accelerator = draft.config["trainer"]["accelerator"]
    asked = draft.config["worker"]
    places, reason = slots_and_reason(
        count, threads=asked["threads"], accelerator=accelerator, per_gpu=asked["slots_per_gpu"], key=key
    )
    draft.notices += [reason] if reason and local else []
    if "joblib" in type(launcher).__module__:  # its jobs share this machine; those of other launchers have their own
        draft.config["worker"]["threads"] = places[0].threads
    store = check_store(Path(draft.config["paths"]["store"]))
    url = storage_of(store, draft.study)
    patience(draft.study)
    check_storage(url)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's word for Ctrl-C
    server = ForkServer.start(serve.preload(draft.representatives()))
    ship = None
    if draft.config["tracking"]["enabled"]:  # imports mlflow with the time that is left over
        from dlsearch.tracking.handle import Shipper

        ship = Shipper(store, draft.config["tracking"]["uri"] or f"sqlite:///{store / 'mlflow.db'}", wait=True)
    try:
        _search(draft, launcher, server, ship, store, url, len(places) if local else None, count, places[0].threads)
    finally:
        serve.warm = None
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
    jobs: Any,
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
    slots = local_slots or int(jobs)
    say = storage.surely(lambda: Watch(study, store, total_slots=slots, notices=draft.notices, resumed=resumed))
    say.open_run(draft, found.get("diff"))
    codes: list[Any] = []
    try:
        codes = _launch(draft, launcher, server, say, local_slots, int(jobs) if local_slots is None else 1)
        if AWAY in codes:
            if local_slots is not None:  # its worker has said so
                raise SystemExit(AWAY)
            raise DatabaseAwayError(patience_s, "as its workers say")
    finally:
        interrupted = INTERRUPTED in codes
        if interrupted or codes == []:  # Ctrl-C and errors wait for nothing
            storage.patience_s = min(storage.patience_s, LAST_S)
        if AWAY not in codes:
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


def _launch(draft: Draft, launcher: Any, server: ForkServer, say: Any, local_slots: int | None, jobs: int) -> list[Any]:
    """Run the workers with the live view beside them; their exit codes, of which 130 means that Ctrl-C ended it."""
    guard = threading.Lock()
    stop = threading.Event()
    storage = say.study.storage
    remember(draft.config, draft.options)
    if local_slots is not None:
        serve.warm = server
        launcher.fork_guard = _Quiet(guard, storage.close)
    else:
        server.stop()  # every job has its own machine, or starts its own
    overrides = serve.worker_overrides(draft.name, draft.config, local_slots or 1)
    view = threading.Thread(target=say.watch, args=(stop, guard), name="watch", daemon=True)
    storage.close()
    view.start()
    try:
        returns = launcher.launch([overrides] * jobs, initial_job_idx=0)
        return [each.return_value for each in returns]  # raises what a job raised
    except KeyboardInterrupt:
        return [INTERRUPTED]
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
    try:
        child = server.spawn("dlsearch.search.trial_process:preflight", payload, env={}, log=None)
    except OSError as error:
        raise RuntimeError("the fork server died while importing; its message is above") from error
    found = child.channel.receive()
    code = child.reap()
    child.close()
    if found is None:
        raise RuntimeError(f"the check of the configuration ended with exit status {code}")
    if "error" in found:
        raise ConfigError(*found["error"])
    return found
