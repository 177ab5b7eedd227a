"""A plain run: one configuration, trained in this process and tracked."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dlsearch.config.compose import resolve
from dlsearch.config.errors import ConfigError


def train(cfg: DictConfig) -> int:
    """Train `cfg` as composed; returns the exit code.

    Raises:
        ConfigError: The config describes nothing that can be trained; nothing was written.
    """
    from hydra.core.hydra_config import HydraConfig

    from dlsearch.config.build import check_targets
    from dlsearch.search import transfers
    from dlsearch.search.driver import check_store
    from dlsearch.search.place import storage_url
    from dlsearch.search.trial_config import check_name, check_project
    from dlsearch.search.trial_process import check_built
    from dlsearch.tracking import layout, provenance
    from dlsearch.tracking.journal import Journal
    from dlsearch.tracking.masking import learn, mask
    from dlsearch.train.run import Interrupted

    choices = dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    objective = cfg.study.objective if isinstance(cfg.study.objective, str) else cfg.study.objective[0]
    direction = cfg.study.direction if isinstance(cfg.study.direction, str) else cfg.study.direction[0]
    if direction not in ("maximize", "minimize"):
        raise ConfigError("study.direction", f"expected maximize or minimize, got {direction!r}")
    for group in ("model", "task", "data", "optimizer", "scheduler", "callbacks"):
        check_targets(cfg[group], group, list(cfg.allow_targets))
    for group in ("task", "data"):
        if not OmegaConf.is_dict(cfg[group]) or "_target_" not in cfg[group]:
            raise ConfigError(group, "expected a config with a _target_", f"{group}=… chooses one; see dlsearch --help")
    check_project(cfg.tracking.project)
    store = check_store(Path(resolve(cfg, "paths.store")))
    name = check_name(
        cfg.name or str(choices.get("experiment") or f"{choices.get('model')}_{choices.get('data')}").replace("/", "_")
    )
    weights, data = (Path(resolve(cfg, f"paths.{key}")) for key in ("weights", "data"))
    transfers.check_node({key: cfg[key] for key in ("transfer", "trainer")})
    wanted = [cfg.transfer.weights] if cfg.transfer.weights is not None else []
    sources = transfers.find(wanted, store=store, url=storage_url(store, cfg.study.storage), data=data)
    described = check_built(cfg, [objective], [direction], weights=sources)
    moved: Any = OmegaConf.to_container(cfg.transfer)
    transferred = transfers.settle([moved], sources, described.get("weights", {}))
    cfg.merge_with({"transfer": moved})
    transfers.keep(weights, transferred, described.get("files", {}))

    folder = new_folder(store / "runs", name)
    (folder / "ckpt").mkdir()
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    learn(plain)
    OmegaConf.save(OmegaConf.create(mask(plain)), folder / "config.yaml")
    journal = Journal(folder / "journal.jsonl")
    found = provenance.collect(config=plain, space=[], data={}, allow_targets=list(cfg.allow_targets))
    journal.open(
        "train",
        folder.name,
        layout.experiment_name(cfg.tracking.project, str(choices.get("data") or "data")),
        None,
        {layout.KIND: "train", **{f"dlsearch.sha.{k}": v for k, v in found["sha"].items()}},
    )
    journal.params(layout.flatten_params(plain, set()))
    journal.artifact(folder / "config.yaml", "")
    uri = cfg.tracking.uri or f"sqlite:///{store / 'mlflow.db'}"
    ship = None
    if cfg.tracking.enabled:
        from dlsearch.tracking import shipper

        ship = shipper.start(store, uri)
    sys.stdout.write("".join(f"transfer: {line}\n" for line in transfers.lines(transferred)))
    code, state = 1, "failed"
    try:
        code, state = _fit(cfg, store, folder, journal, objective, direction)
    except (Interrupted, KeyboardInterrupt):
        code, state = 130, "interrupted"
    finally:
        journal.tags({layout.TRIAL_STATE: state})
        journal.status(layout.status_of(state))
        journal.close()
        if ship is not None and not ship.stop(60.0):
            sys.stdout.write("tracking: not everything has reached MLflow yet; dlsearch sync ships the rest\n")
    sys.stdout.write(f"run: {os.path.relpath(folder)}\n")
    return code


def new_folder(parent: Path, name: str) -> Path:
    """A folder that was not there: the name, and the time when it began."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = parent / f"{name}-{stamp}{suffix}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise OSError(f"{parent} has a thousand runs of this second")


def _fit(cfg: DictConfig, store: Path, folder: Path, journal: Any, objective: str, direction: str) -> tuple[int, str]:
    from dlsearch.search.database import Storage
    from dlsearch.search.leases import Ledger
    from dlsearch.search.place import patience, storage_of
    from dlsearch.train.fit import fit
    from dlsearch.train.run import Run
    from dlsearch.train.seal import breaches

    ledger, rows, token = None, [], uuid.uuid4().hex
    if cfg.test:
        ledger = Ledger(Storage(storage_of(store, cfg.study), patience_s=patience(cfg.study)), "")

    def unseal() -> None:
        assert ledger is not None
        rows.append(ledger.storage.surely(lambda: ledger.opened("manual", None, cfg.seed, token)))

    pressed: list[int] = []

    def on_signal(number: int, _frame: Any) -> None:
        # Lightning would turn Ctrl-C into an exit with 1; a second one is Python's own.
        pressed.append(number)
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    run = Run(
        folder=folder,
        journal=journal,
        objectives=[objective],
        directions=[direction],
        test=bool(cfg.test),
        unseal=unseal,
        stop=lambda: bool(pressed),
        progress_bar=sys.stderr.isatty(),
        report=_Lines(objective).report,
        system_metrics_s=cfg.tracking.system_metrics_s,
    )
    try:
        result = fit(cfg, run)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for breach in breaches(folder):
        sys.stderr.write(f"dlsearch: the sealed test set was reached for: {breach['what']} ({breach['how']})\n")
    if result.state != "complete":
        sys.stderr.write(f"dlsearch: failed({result.reason}): {result.error}\n")
        return 1, "failed"
    assert result.values is not None
    assert result.best_epoch is not None
    sys.stdout.write(
        f"{objective} {result.values[0]:.4f} at epoch {result.best_epoch + 1} of {result.epochs}, "
        f"{result.seconds:.1f} s\n"
    )
    if ledger is not None and result.test is not None:
        seen = {**result.test, "value": result.values[0]}
        ledger.storage.surely(lambda: ledger.scored(rows[0], seen))
        journal.metrics(result.test["metrics"], result.best_step or 0)
        scores = ", ".join(f"{name} {value:.4f}" for name, value in sorted(result.test["metrics"].items()))
        sys.stdout.write(f"test set, opened once: {scores}\n")
    return 0, "complete"


class _Lines:
    """A line an epoch."""

    def __init__(self, objective: str) -> None:
        self.objective = objective

    def report(self, epoch: int, step: int, metrics: Any) -> bool:
        """Print the epoch; never prune."""
        losses = "  ".join(f"{name} {metrics[name]:.4f}" for name in ("train/loss", "val/loss") if name in metrics)
        sys.stdout.write(f"epoch {epoch + 1:>3}  {losses}  {self.objective} {metrics[self.objective]:.4f}\n")
        sys.stdout.flush()
        return False
