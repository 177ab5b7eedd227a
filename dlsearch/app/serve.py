"""Serving a study: what a launched job, or ``dlsearch worker``, does."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.build import check_groups
from dlsearch.config.compose import resolve, seconds
from dlsearch.core import permission
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.names import check_name
from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.processes.preload import preload
from dlsearch.execution.processes.signals import Signals
from dlsearch.execution.resources.capacity import Cards
from dlsearch.execution.resources.slots import gpu_memory, slots, threads_of_study
from dlsearch.storage.location import check_folders, patience, storage_of
from dlsearch.study.trial_config import trial_config
from dlsearch.study.trial_secrets import NO_SECRETS, TrialSecrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from omegaconf import DictConfig

    from dlsearch.app.session import Session
    from dlsearch.execution.processes.warm_server import SealedStart
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.execution.worker import Worker
    from dlsearch.study.study import Study
    from dlsearch.tracking.handle import Shipper

DONE = 0
INTERRUPTED = 130
SHIPPING_SECONDS = 60.0


def serve(
    cfg: DictConfig,
    *,
    foreground: bool,
    session: Session | None = None,
) -> int:
    """Serve the study ``cfg.worker.join`` until its budget is spent.

    Args:
        cfg: A composed config.
        foreground: Whether Ctrl-C is meant for this process; otherwise the search sends SIGTERM, or
            leaves word in the storage for its session.
        session: Of the search from whose process this one was forked; it holds a warm fork server.

    Returns:
        The exit code: 0, or 130 when it was asked to stop.

    Raises:
        ConfigError: There is no such study, or this machine has not what it takes.
        DatabaseAwayError: The database did not answer, or was away for too long.
    """
    secrets = NO_SECRETS if session is None else session.trial_secrets
    service = _open_service(cfg, secrets)
    warm = None if session is None else session.warm_server
    server = warm if warm is not None and warm.alive else None
    shipper = _start_shipper(cfg, service.store) if not foreground and server is None else None
    try:
        if server is None and service.has_work():
            server = service.start_server()  # else it is not worth its ten seconds
            service.check_machine(server)
        worker = service.worker(server, foreground=foreground)
        with Signals(worker.stop, foreground=foreground) as signals:
            try:
                is_done = worker.run()
            finally:
                server = worker.server
                worker.servers.stop()
    finally:
        if server is not None and server is not warm:  # that of the search serves its next worker
            server.stop()
        if shipper is not None:
            shipper.stop(SHIPPING_SECONDS)
        service.study.storage.close()
    if not is_done:
        signals.pass_on()
    return DONE if is_done else INTERRUPTED


@dataclass(frozen=True)
class _Limits:
    """Budgets of this worker's own; they may only tighten the study's.

    Args:
        deadline: When it claims no further trial (``time.time()``).
        target: From which objective on it claims none.
        trial_seconds: How long an attempt may take here.
    """

    deadline: float | None
    target: float | None
    trial_seconds: float | None


@dataclass(frozen=True)
class _Service:
    """A study, and the part of this machine that serves it.

    Args:
        cfg: The composed config of the job.
        study: It, open.
        store: Where this machine writes.
        paths: This machine's ``paths`` config, absolute.
        slots: Where trials run.
        limits: Budgets of this worker's own.
        secrets: What the masks of the study's document hide.
    """

    cfg: DictConfig
    study: Study
    store: Path
    paths: dict[str, str]
    slots: list[Slot]
    limits: _Limits
    secrets: TrialSecrets

    def has_work(self) -> bool:
        """Whether a trial, or a training of the confirmation, may yet be claimed."""
        from dlsearch.confirmation.rounds import Rounds

        study = self.study
        limits = self.limits
        return study.storage.surely(
            lambda: study.searching(limits.deadline, limits.target) or not Rounds(study).done()
        )

    def start_server(self) -> ForkServer:
        """Start a fork server with all that trials of the study import."""
        return ForkServer.start(self._list_modules())

    def _list_modules(self) -> list[str]:
        document = self.study.document
        configs = [document["config"]]
        for nodes in document["options"].values():
            configs += [{"model": option} for option in nodes.values()]
        return preload(configs)

    def check_machine(self, server: ForkServer) -> None:
        """Check that this machine has the study's data and weights.

        Raises:
            ConfigError: It has not.
        """
        from dlsearch.app.joining import check_machine

        check_machine(server, self.study, self.paths, self.secrets)

    def worker(self, server: ForkServer | None, *, foreground: bool) -> Worker:
        """The worker; it claims nothing yet."""
        from dlsearch.execution.clients.database import DatabaseClient
        from dlsearch.execution.clients.database_files import DatabaseFiles
        from dlsearch.execution.processes.warm_server import WarmServer
        from dlsearch.execution.worker import Worker, WorkerSettings

        study = self.study
        cards = None
        if self.cfg.worker.slots_per_gpu == "auto":
            devices = {slot.device for slot in self.slots}
            cards = study.storage.surely(lambda: _measured_cards(study, devices))
        client = DatabaseClient(study, self._recall_check())
        settings = WorkerSettings(
            deadline=self.limits.deadline,
            target=self.limits.target,
            trial_timeout_s=self.limits.trial_seconds,
            owner=None if foreground else os.getppid(),
            patience_s=study.storage.patience_s,
        )
        return Worker(
            client,
            DatabaseFiles(client, self.store, self.paths, self.secrets),
            self.slots,
            WarmServer(self.start_server, server, self._sealed_start()),
            settings=settings,
            cards=cards,
        )

    def _sealed_start(self) -> SealedStart:
        """What the server for trials is started with: the study's config, with its defaults."""
        from dlsearch.execution.processes.warm_server import SealedStart

        config = trial_config(
            self.study.document,
            {},
            seed=self.study.seed,
            paths=self.paths,
            secrets=self.secrets,
        )
        return SealedStart(config, self._list_modules())

    def _recall_check(self) -> Callable[[], bool]:
        """Asks whether the session of this job was recalled; it is not where signals reach it."""
        session = self.cfg.worker.session
        if session is None:
            return lambda: False
        from dlsearch.launch.remote import is_recalled

        return lambda: is_recalled(self.study, session)


def _open_service(cfg: DictConfig, secrets: TrialSecrets) -> _Service:
    """Open the study, check that it may run here, and share out this machine.

    Raises:
        ConfigError: There is no such study, or this machine has not what it takes.
        DatabaseAwayError: The database did not answer.
    """
    from dlsearch.storage.database import Storage
    from dlsearch.study.study import Study

    paths = {
        key: str(Path(value).expanduser().resolve()) for key, value in resolve(cfg, "paths").items()
    }
    store = Path(paths["store"])
    name = str(cfg.worker.join)
    check_folders(store, check_name(name))
    storage = Storage(storage_of(store, cfg.study), patience_s=patience(cfg.study))
    study = storage.surely(lambda: Study(storage, name, lease_s=cfg.worker.lease_s))
    # for so long nobody takes it for dead
    storage.patience_s = min(storage.patience_s, study.patience_s)
    config = study.document["config"]
    secrets.check_complete(config, study.document.get("options", {}))
    check_groups(config, study.document["options"])
    permission.require(config.get("allow_targets") or [])
    places = slots(
        cfg.worker.slots,
        threads=threads_of_study(study.document, cfg.worker.threads),
        accelerator=config["trainer"]["accelerator"],
        per_gpu=cfg.worker.slots_per_gpu,
    )
    timeout_s = seconds(cfg.study.timeout, "study.timeout")
    limits = _Limits(
        deadline=None if timeout_s is None else time.time() + timeout_s,
        target=cfg.study.target,
        trial_seconds=seconds(cfg.study.trial_timeout, "study.trial_timeout"),
    )
    return _Service(cfg, study, store, paths, places, limits, secrets)


def _start_shipper(cfg: DictConfig, store: Path) -> Shipper | None:
    """A shipper for the journals of a launched job, where its store may not be the search's.

    Into a database of its own it ships nothing: such a store is the search's too, or nobody looks
    there.
    """
    uri: Any = resolve(cfg, "tracking.uri") if cfg.tracking.enabled else None
    if uri is None or not str(uri).startswith(("http://", "https://")):
        return None
    from dlsearch.tracking import destination, handle, layout

    folder = store / layout.study_folder(str(cfg.worker.join))
    destination.remember(store, folder, str(uri))
    return handle.start(store, str(uri))


def _measured_cards(study: Study, devices: set[str]) -> Cards | None:
    """The GPUs among `devices`, with what earlier trials took on them; None without a GPU."""
    cards = Cards({uuid: memory for uuid, memory in gpu_memory().items() if uuid in devices})
    for attempt in study.leases.rows():
        if attempt.device in devices and attempt.result:
            result = parse_json(attempt.result, IN_DATABASE)
            cards.measured(attempt.device, result.get("peak_memory_mib"))
    return None if all(device.startswith("cpu") for device in devices) else cards
