"""A plain run: one configuration, trained in this process and tracked."""

from __future__ import annotations

import datetime
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dlsearch.app.stop_requests import StopRequests
from dlsearch.config.compose import resolve
from dlsearch.config.progress import training_length
from dlsearch.console.terminal import say, warn
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_root
from dlsearch.execution.resources.slots import slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.tracking.handle import Shipper
    from dlsearch.tracking.journal import Journal

DONE = 0
FAILED = 1
INTERRUPTED = 130
SHIPPING_SECONDS = 60.0
#: MLflow's names of the outcomes of a training.
_STATES = {DONE: "complete", FAILED: "failed", INTERRUPTED: "interrupted"}


@dataclass(frozen=True)
class _PlainRun:
    """What one configuration means, checked.

    Args:
        cfg: The composed config.
        choices: Hydra's choice in each group.
        objective: The metric that decides which epoch is kept.
        direction: ``maximize`` or ``minimize``.
        store: Where it is written, absolute.
        name: Its name.
    """

    cfg: DictConfig
    choices: Mapping[str, Any]
    objective: str
    direction: str
    store: Path
    name: str


def train(cfg: DictConfig) -> int:
    """Train `cfg` as composed; returns the exit code.

    Raises:
        ConfigError: The config describes nothing that can be trained; nothing was written.
    """
    from dlsearch.core.threads import limit_threads
    from dlsearch.execution.signals import interrupt_on_stop

    interrupt_on_stop()
    plan = _check_config(cfg)
    limit_threads(threads_of(cfg))
    transferred = _transfer_weights(plan)
    folder = new_folder(plan.store / "runs", plan.name)
    (folder / "ckpt").mkdir()
    return _train_in(folder, plan, transferred)


def _check_config(cfg: DictConfig) -> _PlainRun:
    """What can be known without building anything.

    Raises:
        ConfigError: Something is wrong.
    """
    from hydra.core.hydra_config import HydraConfig

    from dlsearch.app.prepare import check_store
    from dlsearch.config.build import check_groups
    from dlsearch.core.names import check_name, check_project
    from dlsearch.planning import transfer_sources

    choices = dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    direction = _first(cfg.study.direction)
    if direction not in ("maximize", "minimize"):
        raise ConfigError("study.direction", f"expected maximize or minimize, got {direction!r}")
    check_groups(cfg)
    for group in ("task", "data"):
        if not OmegaConf.is_dict(cfg[group]) or "_target_" not in cfg[group]:
            raise ConfigError(
                group,
                "expected a config with a _target_",
                f"{group}=… chooses one; see dlsearch --help",
            )
    check_project(cfg.tracking.project)
    store = check_store(Path(resolve(cfg, "paths.store")))
    check_root(store)
    chosen = choices.get("experiment") or f"{choices.get('model')}_{choices.get('data')}"
    name = check_name(cfg.name or str(chosen).replace("/", "_"))
    transfer_sources.check_node({key: cfg[key] for key in ("transfer", "trainer")})
    return _PlainRun(cfg, choices, _first(cfg.study.objective), direction, store, name)


def _first(one_or_several: Any) -> str:
    return str(one_or_several if isinstance(one_or_several, str) else one_or_several[0])


def _transfer_weights(plan: _PlainRun) -> dict[str, Any]:
    """Build everything once, and keep the weights that the training begins with.

    Raises:
        ConfigError: Something cannot be built, or the weights are not there.
    """
    from dlsearch.execution.trial_main import check_built
    from dlsearch.planning import transfer_sources
    from dlsearch.storage.location import storage_url

    cfg = plan.cfg
    weights = Path(resolve(cfg, "paths.weights"))
    sources = transfer_sources.find(
        [cfg.transfer.weights] if cfg.transfer.weights is not None else [],
        store=plan.store,
        url=storage_url(plan.store, cfg.study.storage),
        data=Path(resolve(cfg, "paths.data")),
    )
    described = check_built(cfg, [plan.objective], [plan.direction], weights=sources)
    transfer: Any = OmegaConf.to_container(cfg.transfer)
    transferred = transfer_sources.settle([transfer], sources, described.get("weights", {}))
    cfg.merge_with({"transfer": transfer})
    transfer_sources.keep(weights, transferred, described.get("files", {}))
    return transferred


def _train_in(folder: Path, plan: _PlainRun, transferred: Mapping[str, Any]) -> int:
    """Train, with a journal that is shipped meanwhile; returns the exit code."""
    from dlsearch.core import provenance
    from dlsearch.core.masking import learn, mask
    from dlsearch.planning import transfer_sources
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import Journal
    from dlsearch.training.run import Interrupted

    cfg = plan.cfg
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    learn(plain)
    OmegaConf.save(OmegaConf.create(mask(plain)), folder / "config.yaml")
    journal = Journal(folder / "journal.jsonl")
    origin = provenance.collect(
        config=plain,
        space=[],
        data={},
        allow_targets=list(cfg.allow_targets),
    )
    shipper = None
    code = FAILED
    stops = StopRequests()
    try:
        _open_journal(journal, folder, plan, plain, origin["sha"])
        if cfg.tracking.enabled:
            shipper = _start_shipper(plan, folder)
        say(*(f"transfer: {line}" for line in transfer_sources.lines(transferred)))
        stops.start_noting()
        code = _fit(plan, folder, journal, stops)
    except (Interrupted, KeyboardInterrupt):
        code = INTERRUPTED
    finally:
        state = _STATES[code]
        journal.tags({layout.TRIAL_STATE: state})
        journal.status(layout.status_of(state))
        journal.close()
        wait = code != DONE or not stops.received
        if shipper is not None and not _has_shipped(shipper, stops, wait=wait):
            say("tracking: not everything has reached MLflow yet; dlsearch sync ships the rest")
    say(f"run: {os.path.relpath(folder)}")
    stops.interrupt_again()
    return code


def _open_journal(
    journal: Journal,
    folder: Path,
    plan: _PlainRun,
    plain: dict[str, Any],
    sha: Mapping[str, str],
) -> None:
    """Write the run's tags, its parameters and its config."""
    from dlsearch.tracking import layout

    data = str(plan.choices.get("data") or "data")
    journal.open(
        "train",
        folder.name,
        layout.experiment_name(plan.cfg.tracking.project, data),
        None,
        {layout.KIND: "train", **{f"dlsearch.sha.{key}": value for key, value in sha.items()}},
    )
    journal.params(layout.flatten_params(plain, set()))
    journal.artifact(folder / "config.yaml", "")


def _start_shipper(plan: _PlainRun, folder: Path) -> Shipper:
    from dlsearch.tracking.destination import remember
    from dlsearch.tracking.mlflow import shipper

    uri = plan.cfg.tracking.uri or f"sqlite:///{plan.store / 'mlflow.db'}"
    remember(plan.store, folder, uri)
    return shipper.start(plan.store, uri)


def _has_shipped(shipper: Shipper, stops: StopRequests, *, wait: bool) -> bool:
    """Whether everything has reached MLflow.

    Without `wait`, or after a signal, the shipper sends the rest by itself.
    """
    try:
        stops.interrupt_again()
        if wait:
            return bool(shipper.stop(SHIPPING_SECONDS))
    except KeyboardInterrupt:  # the training is over: only the wait is cut short
        pass
    shipper.leave()
    return False


def threads_of(cfg: DictConfig) -> int:
    """CPU threads of a plain run: ``worker.threads``, else all cores."""
    (slot,) = slots(1, threads=cfg.worker.threads, accelerator="cpu")
    return slot.threads


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


class _TestLedger:
    """The row of the ledger that the opening of the test set leaves, and its score.

    Args:
        plan: The run.
    """

    def __init__(self, plan: _PlainRun) -> None:
        from dlsearch.storage.database import Storage
        from dlsearch.storage.location import patience, storage_of
        from dlsearch.storage.test_ledger import Ledger

        study = plan.cfg.study
        storage = Storage(storage_of(plan.store, study), patience_s=patience(study))
        self._ledger: Ledger = Ledger(storage, "")
        self._seed = plan.cfg.seed
        self._token = uuid.uuid4().hex
        self._row: int

    def note_opening(self) -> None:
        """Write the row, before the test set is opened."""
        ledger = self._ledger
        self._row = ledger.storage.surely(
            lambda: ledger.opened("manual", None, self._seed, self._token)
        )

    def note_score(self, score: dict[str, Any]) -> None:
        """Write what came of it."""
        ledger = self._ledger
        ledger.storage.surely(lambda: ledger.scored(self._row, score))


def _fit(
    plan: _PlainRun,
    folder: Path,
    journal: Journal,
    stops: StopRequests,
) -> int:
    """Train and, where ``test=true``, score; returns the exit code."""
    from dlsearch.training.fit import fit
    from dlsearch.training.run import Run
    from dlsearch.training.test_guard import breaches

    cfg = plan.cfg
    ledger = _TestLedger(plan) if cfg.test else None
    run = Run(
        folder=folder,
        journal=journal,
        objectives=[plan.objective],
        directions=[plan.direction],
        test=bool(cfg.test),
        unseal=_no_ledger if ledger is None else ledger.note_opening,
        stop=lambda: bool(stops.received),
        progress_bar=sys.stderr.isatty(),
        report=_ReportLines(plan.objective, training_length(cfg.trainer).unit).report,
        system_metrics_s=cfg.tracking.system_metrics_s,
    )
    result = fit(cfg, run)
    for breach in breaches(folder):
        warn(f"the sealed test set was reached for: {breach['what']} ({breach['how']})")
    if result.state != "complete":
        warn(f"failed({result.reason}): {result.error}")
        return FAILED
    assert result.values is not None
    assert result.best_epoch is not None
    say(
        f"{plan.objective} {result.values[0]:.4f} "
        f"at {result.progress_unit} {result.best_epoch + 1} of {result.epochs}, "
        f"{result.seconds:.1f} s"
    )
    if ledger is not None and result.test is not None:
        ledger.note_score({**result.test, "value": result.values[0]})
        _say_test_scores(result.test["metrics"], journal, result.best_step or 0)
    return DONE


def _no_ledger() -> None:
    raise AssertionError("the test set stays closed without test=true")


def _say_test_scores(metrics: dict[str, float], journal: Journal, step: int) -> None:
    from dlsearch.app.phrases import format_scores

    journal.metrics(metrics, step)
    say(f"test set, opened once: {format_scores(metrics)}")


class _ReportLines:
    """A line an epoch, or a report."""

    def __init__(self, objective: str, unit: str) -> None:
        self.objective = objective
        self.unit = unit

    def report(
        self,
        epoch: int,
        step: int,
        metrics: Any,
    ) -> bool:
        """Print the epoch; never prune."""
        losses = "  ".join(
            f"{name} {metrics[name]:.4f}" for name in ("train/loss", "val/loss") if name in metrics
        )
        say(f"{self.unit} {epoch + 1:>3}  {losses}  {self.objective} {metrics[self.objective]:.4f}")
        sys.stdout.flush()
        return False
