"""Serving a study: what a launched job, or ``dlsearch worker``, does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.compose import resolve, seconds
from dlsearch.search.capacity import Cards
from dlsearch.search.forkserver import ForkServer
from dlsearch.search.place import patience, storage_of
from dlsearch.search.slots import gpu_memory, slots
from dlsearch.search.trial_config import check_known

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlsearch.search.study import Study

#: The warm fork server of the process that opened the study, inherited by jobs that were forked from it.
warm: ForkServer | None = None


def preload(configs: Iterable[Any]) -> list[str]:
    """The modules that a study's trials import: ours, and those of every ``_target_``."""
    found = ["dlsearch.train.fit", "dlsearch.search.trial_process"]

    def visit(node: Any) -> None:
        if isinstance(node, Mapping):
            target = node.get("_target_")
            if isinstance(target, str) and "." in target:
                found.append(target.rpartition(".")[0])
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    for config in configs:
        visit(
            {k: v for k, v in config.items() if k in ("model", "task", "data", "optimizer", "scheduler", "callbacks")}
        )
    return list(dict.fromkeys(found))


def serve(cfg: DictConfig, *, foreground: bool) -> int:
    """Serve the study ``cfg.worker.join`` until its budget is spent.

    Args:
        cfg: A composed config.
        foreground: Whether Ctrl-C is meant for this process; otherwise a driver sends SIGTERM.

    Returns:
        The exit code: 0, or 130 when it was told to stop.

    Raises:
        DatabaseAwayError: The database did not answer, or was away for too long.
    """
    from dlsearch.search.database import Storage
    from dlsearch.search.study import Study
    from dlsearch.search.worker import Worker

    paths = resolve(cfg, "paths")
    store = Path(paths["store"]).resolve()
    storage = Storage(storage_of(store, cfg.study), patience_s=patience(cfg.study))
    study = storage.surely(lambda: Study(storage, str(cfg.worker.join), lease_s=cfg.worker.lease_s))
    check_known(study.document)
    config = study.document["config"]
    per_gpu = cfg.worker.slots_per_gpu
    places = slots(
        cfg.worker.slots, threads=cfg.worker.threads, accelerator=config["trainer"]["accelerator"], per_gpu=per_gpu
    )
    options = [option for nodes in study.document["options"].values() for option in nodes.values()]

    def start() -> ForkServer:
        return ForkServer.start(preload([config, *({"model": option} for option in options)]))

    server = warm
    if server is None or not server.alive:
        server = start()
    timeout = seconds(cfg.study.timeout, "study.timeout")
    worker = Worker(
        study,
        store=store,
        slots=places,
        cards=storage.surely(lambda: _cards(study, {p.device for p in places})) if per_gpu == "auto" else None,
        server=server,
        revive=start,
        paths={key: str(Path(value).resolve()) for key, value in paths.items()},
        deadline=time.time() + timeout - storage.surely(study.row).seconds if timeout else None,
        target=cfg.study.target,
        trial_timeout=seconds(cfg.study.trial_timeout, "study.trial_timeout"),
        owner=None if foreground else os.getppid(),
    )
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop if foreground else signal.SIG_IGN)
    try:
        return 0 if worker.run() else 130
    finally:
        if worker.server is not warm:  # the driver's serves its next worker
            worker.server.stop()
        storage.close()


def _cards(study: Study, devices: set[str]) -> Cards | None:
    """The GPUs among `devices`, with what the study's earlier trials took on them; None without a GPU."""
    cards = Cards({uuid: memory for uuid, memory in gpu_memory().items() if uuid in devices})
    for attempt in study.leases.rows():
        if attempt.device in devices and attempt.result:
            cards.measured(attempt.device, json.loads(attempt.result).get("peak_memory_mib"))
    return None if all(device.startswith("cpu") for device in devices) else cards


def worker_overrides(name: str, cfg: Mapping[str, Any], slot_count: Any) -> list[str]:
    """The overrides of a job that serves study `name`: its place and budgets, nothing of its configuration.

    Args:
        name: The study.
        cfg: The composed config of the driver, plain.
        slot_count: Slots of the job.
    """
    study, paths = cfg["study"], cfg["paths"]
    values = {
        "worker.join": name,
        "worker.slots": slot_count,
        "worker.slots_per_gpu": cfg["worker"].get("slots_per_gpu"),
        "worker.threads": cfg["worker"]["threads"],
        "worker.lease_s": cfg["worker"]["lease_s"],
        "paths.store": str(Path(paths["store"]).resolve()),
        "paths.data": str(Path(paths["data"]).resolve()),
        "paths.cache": str(Path(paths["cache"]).resolve()),
        "paths.weights": str(Path(paths["weights"]).resolve()),
        "study.storage": study["storage"],
        "study.storage_on_network_fs": study["storage_on_network_fs"],
        "study.timeout": study["timeout"],
        "study.trial_timeout": study["trial_timeout"],
        "study.target": study["target"],
    }
    given = [f"{key}={_quote(value)}" for key, value in values.items() if value is not None]
    patient = study["storage_patience"]  # null means for ever
    return [*given, f"study.storage_patience={'null' if patient is None else _quote(patient)}"]


def _quote(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
