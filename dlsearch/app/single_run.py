"""A plain run: one configuration, trained in this process and tracked."""

from __future__ import annotations

import datetime
import sys
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dlsearch.app.stop_requests import StopRequests
from dlsearch.config.compose import resolve
from dlsearch.config.progress import ProgressUnit, training_length
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import check_root
from dlsearch.core.files.sqlite_url import sqlite_url
from dlsearch.core.resume_key import resume_key
from dlsearch.execution.resources.slots import slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.app.view import View
    from dlsearch.core.types import ConfigTree, JsonObject
    from dlsearch.tracking.handle import Shipper
    from dlsearch.tracking.journal import Journal
    from dlsearch.training.run import FitResult

SHIPPING_SECONDS = 60.0


class TrainingState(StrEnum):
    """How a plain run ended, in the words of its journal."""

    COMPLETE = "complete"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to that is complete.

    Args:
        objective: The metric that decides.
        value: Its value, where it was best.
        position: Where in the training that was, from 1.
        length: How long the training was.
        unit: What both are counted in.
        seconds: How long it took.
        test: The metrics on the test set; None where that stayed closed.
    """

    objective: str
    value: float
    position: int
    length: int
    unit: ProgressUnit
    seconds: float
    test: Mapping[str, float] | None


@dataclass(frozen=True)
class TrainingOutcome:
    """What a plain run came to.

    Args:
        state: How it ended.
        folder: Where it is written.
        result: What it came to; None unless it is complete.
        shipped: Whether MLflow has everything, or gets nothing.
    """

    state: TrainingState
    folder: Path
    result: TrainingResult | None
    shipped: bool


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


def train(cfg: DictConfig, view: View) -> TrainingOutcome:
    """Train `cfg` as composed.

    Args:
        cfg: The composed config.
        view: Shows how the training goes, and what it comes to.

    Raises:
        ConfigError: The config describes nothing that can be trained; nothing was written.
    """
    from dlsearch.core.machine.threads import limit_threads
    from dlsearch.execution.processes.signals import interrupt_on_stop

    interrupt_on_stop()
    plan = _check_config(cfg)
    limit_threads(threads_of(cfg))
    described, transferred = _build_once(plan)
    folder = new_folder(plan.store / "runs", plan.name)
    (folder / "ckpt").mkdir()
    return _train_in(folder, plan, described, transferred, view)


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
    from dlsearch.planning.directions import settle_directions

    choices = dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    objective = _first(cfg.study.objective)
    given = cfg.study.direction
    (direction,) = settle_directions(None if given is None else _first(given), [objective])
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
    of_groups = f"{choices.get('model')}_{choices.get('data')}"
    chosen = choices.get("experiment") or of_groups
    name = check_name(cfg.name or str(chosen).replace("/", "_"))
    transfer_sources.check_node({key: cfg[key] for key in ("transfer", "trainer")})
    return _PlainRun(cfg, choices, objective, direction, store, name)


def _first(one_or_several: Any) -> str:
    return str(one_or_several if isinstance(one_or_several, str) else one_or_several[0])


def _build_once(plan: _PlainRun) -> tuple[JsonObject, JsonObject]:
    """Build everything once, and keep the weights that the training begins with.

    Returns:
        What building showed (``data`` and ``model``), and what is transferred.

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
    described = check_built(
        cfg,
        [plan.objective],
        [plan.direction],
        weights=transfer_sources.to_json(sources),
    )
    transfer: Any = OmegaConf.to_container(cfg.transfer)
    transferred = transfer_sources.settle([transfer], sources, described.get("weights", {}))
    # digests and files are keys that the node does not have yet
    OmegaConf.update(cfg, "transfer", transfer, force_add=True)
    transfer_sources.keep(weights, transferred, described.get("files", {}))
    return described, transferred


def _train_in(
    folder: Path,
    plan: _PlainRun,
    described: JsonObject,
    transferred: JsonObject,
    view: View,
) -> TrainingOutcome:
    """Train, with a journal that is shipped meanwhile."""
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
    shipped = True
    state = TrainingState.FAILED
    result = None
    stops = StopRequests()
    try:
        _open_journal(journal, folder, plan, plain, origin["sha"])
        if cfg.tracking.enabled:
            shipper = _start_shipper(plan, folder)
        view.say(*(f"transfer: {line}" for line in transfer_sources.lines(transferred)))
        stops.start_noting()
        ledger = _TestLedger(plan, described.get("data")) if cfg.test else None
        result = _fit(plan, folder, journal, stops, view, ledger)
        if result is not None:
            state = TrainingState.COMPLETE
    except (Interrupted, KeyboardInterrupt):
        state = TrainingState.INTERRUPTED
    finally:
        journal.tags({layout.TRIAL_STATE: state})
        journal.status(layout.status_of(state))
        journal.close()
        if shipper is not None:
            wait = state is not TrainingState.COMPLETE or not stops.received
            shipped = _has_shipped(shipper, stops, wait=wait)
        if not shipped:
            view.say(
                "tracking: not everything has reached MLflow yet; dlsearch sync ships the rest"
            )
    stops.interrupt_again()
    return TrainingOutcome(state, folder, result, shipped)


def _open_journal(
    journal: Journal,
    folder: Path,
    plan: _PlainRun,
    plain: ConfigTree,
    sha: Mapping[str, str],
) -> None:
    """Write the run's tags, its parameters and its config."""
    from dlsearch.tracking import layout

    data = str(plan.choices.get("data") or "data")
    digests = {f"dlsearch.sha.{key}": value for key, value in sha.items()}
    journal.open(
        "train",
        folder.name,
        layout.experiment_name(plan.cfg.tracking.project, data),
        None,
        {layout.KIND: "train", **digests},
    )
    journal.params(layout.flatten_params(plain, set()))
    journal.artifact(folder / "config.yaml", "")


def _start_shipper(plan: _PlainRun, folder: Path) -> Shipper:
    from dlsearch.tracking.destination import remember
    from dlsearch.tracking.mlflow import shipper

    uri = plan.cfg.tracking.uri or sqlite_url(plan.store / "mlflow.db")
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
        data: As the data module describes them.
    """

    def __init__(self, plan: _PlainRun, data: Any) -> None:
        from dlsearch.storage.database import Storage
        from dlsearch.storage.location import patience, storage_of
        from dlsearch.storage.test_ledger import Ledger, digest_of_test_split

        study = plan.cfg.study
        storage = Storage(storage_of(plan.store, study), patience_s=patience(study))
        digest = digest_of_test_split(data)
        self._ledger: Ledger = Ledger(storage, "", test_digest=digest)
        self._seed = plan.cfg.seed
        self._token = uuid.uuid4().hex
        self._row: int

    def note_opening(self) -> None:
        """Write the row, before the test set is opened."""
        ledger = self._ledger
        self._row = ledger.storage.surely(
            lambda: ledger.opened("manual", None, self._seed, self._token)
        )

    def count_openings(self) -> int | None:
        """How often this test set was opened in this storage; None where that is not known."""
        ledger = self._ledger
        rows = ledger.storage.surely(ledger.rows_of_test_set)
        return None if rows is None else len(rows)

    def note_score(self, score: JsonObject) -> None:
        """Write what came of it."""
        ledger = self._ledger
        ledger.storage.surely(lambda: ledger.scored(self._row, score))


def _fit(
    plan: _PlainRun,
    folder: Path,
    journal: Journal,
    stops: StopRequests,
    view: View,
    ledger: _TestLedger | None,
) -> TrainingResult | None:
    """Train and, where ``test=true``, score; None where the training failed."""
    from dlsearch.app.phrases import describe_test_of_run, describe_training
    from dlsearch.training.fit import fit
    from dlsearch.training.run import Run
    from dlsearch.training.test_guard import breaches

    cfg = plan.cfg
    unit = training_length(cfg.trainer).unit
    run = Run(
        folder=folder,
        journal=journal,
        objectives=[plan.objective],
        directions=[plan.direction],
        test=bool(cfg.test),
        unseal=_no_ledger if ledger is None else ledger.note_opening,
        stop=lambda: bool(stops.received),
        progress_bar=sys.stderr.isatty(),
        report=_ReportLines(plan.objective, unit, view).report,
        system_metrics_s=cfg.tracking.system_metrics_s,
        resume_key=resume_key(),
    )
    found = fit(cfg, run)
    for breach in breaches(folder):
        view.warn(f"the sealed test set was reached for: {breach['what']} ({breach['how']})")
    if found.state != TrainingState.COMPLETE:
        view.warn(f"failed({found.reason}): {found.error}")
        return None
    result = _result_of(plan.objective, found)
    view.say(describe_training(result))
    if ledger is not None and found.test is not None:
        ledger.note_score({**found.test, "value": result.value})
        scores = found.test["metrics"]
        journal.metrics(scores, found.best_step or 0)
        view.say(describe_test_of_run(scores, ledger.count_openings()))
    return result


def _result_of(objective: str, found: FitResult) -> TrainingResult:
    """What a training came to that is complete."""
    assert found.values is not None
    assert found.best_epoch is not None
    return TrainingResult(
        objective=objective,
        value=found.values[0],
        position=found.best_epoch + 1,
        length=found.epochs,
        unit=ProgressUnit(found.progress_unit),
        seconds=found.seconds,
        test=None if found.test is None else found.test["metrics"],
    )


def _no_ledger() -> None:
    raise AssertionError("the test set stays closed without test=true")


class _ReportLines:
    """Shows a line an epoch, or a report.

    Args:
        objective: The metric that decides.
        unit: What the length of the training is counted in.
        view: Shows the lines.
    """

    def __init__(self, objective: str, unit: ProgressUnit, view: View) -> None:
        self._objective = objective
        self._unit = unit
        self._view = view

    def report(self, position: int, step: int, metrics: Mapping[str, float]) -> bool:
        """Show the losses and the objective; never prune."""
        words = [f"{self._unit} {position + 1:>3}"]
        losses = [
            f"{name} {metrics[name]:.4f}" for name in ("train/loss", "val/loss") if name in metrics
        ]
        words.append("  ".join(losses))
        words.append(f"{self._objective} {metrics[self._objective]:.4f}")
        self._view.say("  ".join(words))
        return False
