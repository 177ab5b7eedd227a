"""The rehearsal's own side: a child process tries configurations, one after another.

Everything is the trial's: Lightning's hooks, the config's callbacks, the seal of the test set, the
real data. Only epochs are short, and what is written goes into a folder that is removed.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import signal
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.utilities.model_helpers import is_overridden

from dlsearch.core.errors import ConfigError
from dlsearch.core.machine.threads import limit_threads
from dlsearch.core.packages import hint_of_missing
from dlsearch.core.text import clean_value, line_of_error, place_of_error
from dlsearch.execution.rehearsal.messages import Fault, RehearsalPayload, Sight
from dlsearch.execution.rehearsal.watching import Ending, Listener, ListeningLogger
from dlsearch.planning.variations import Variation, VariationKind
from dlsearch.tracking.journal import Journal
from dlsearch.training.building import (
    build_anywhere,
    build_callbacks,
    build_data,
    build_task,
    build_trainer,
    check_optimizer,
    count_parameters,
    seed_everything,
)
from dlsearch.training.failures import is_out_of_memory
from dlsearch.training.progress import unit_of
from dlsearch.training.run import Run
from dlsearch.training.state import weights_file
from dlsearch.training.state.kept_state import kept_state
from dlsearch.training.state.loading import WeightsMismatchError, load_strictly
from dlsearch.training.test_guard import Seal

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from dlsearch.execution.processes.forkserver import Channel

#: After so many seconds no further configuration, and no further epoch, is trained.
ENOUGH_S = 5.0
#: What is trained and validated where one batch alone made an epoch's end fail: a metric may need
#: two classes.
_MORE_BATCHES = 20
#: Weights beyond this are not saved and loaded in a rehearsal.
_MOST_SAVED_BYTES = 1 << 30
#: Configurations that fail, one after the other, before it is believed that all do.
_MOST_FAILURES = 3
#: Arguments of Lightning's Trainer that would make a short training long, or leave its end out.
_LEFT_OUT = ("val_check_interval", "max_time", "min_epochs", "min_steps", "fast_dev_run")
#: Arguments of Lightning's callbacks that name a place where they write.
_PLACES = ("dirpath",)

#: Names and shapes of a net's parameters.
Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass
class _Attempts:
    """What the candidates so far have shown.

    Args:
        payload: The driver's.
        started: By the monotonic clock.
        shapes: Of the nets that have been trained.
        failed: How many failed, while all did.
        built_from: When the default was through: from then on others are built.
    """

    payload: RehearsalPayload
    started: float
    shapes: set[Shapes] = field(default_factory=set)
    failed: int | None = 0
    built_from: float | None = None

    def note(self, sight: Sight) -> None:
        """Count what has failed, until one can be trained."""
        if self.built_from is None:
            self.built_from = time.monotonic()
        if sight.fault is None and sight.was_trained:
            self.failed = None
        elif sight.fault is not None and self.failed is not None:
            self.failed += 1

    @property
    def looks_for_success(self) -> bool:
        """Whether a few others are trained because the default cannot be."""
        return self.failed is not None and 0 < self.failed <= _MOST_FAILURES

    @property
    def is_over(self) -> bool:
        """Whether no further configuration is trained."""
        return time.monotonic() - self.started > ENOUGH_S

    def may_begin(self, candidate: Variation) -> bool:
        """Whether there is time for a configuration; what is only built costs little."""
        if self.built_from is None:
            return True
        if candidate.trains and self.is_over:
            return False
        return time.monotonic() - self.built_from <= ENOUGH_S


def try_all(channel: Channel, payload: RehearsalPayload) -> None:
    """Try each candidate while there is time, and send what it showed.

    Args:
        channel: To the driver. The end of the messages is an empty one.
        payload: What is tried.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends it
    _silence(Path(payload.folder) / "said.txt")
    if payload.threads is not None:
        limit_threads(payload.threads)
    attempts = _Attempts(payload, time.monotonic())
    for candidate in payload.candidates:
        if not attempts.may_begin(candidate):
            continue
        sight = _try(candidate, attempts)
        attempts.note(sight)
        channel.send(clean_value(sight.to_json()))
    channel.send({})


def _silence(path: Path) -> None:
    """What user code prints is no output of the command."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    warnings.simplefilter("ignore")


def _try(candidate: Variation, attempts: _Attempts) -> Sight:
    started = time.monotonic()
    sight = Sight(candidate.kind, candidate.said, candidate.key)
    try:
        cfg = OmegaConf.create(candidate.config)
        is_new = _has_new_shapes(cfg, candidate.key, attempts)
        wanted = candidate.trains or attempts.looks_for_success or is_new
        if candidate.kind == VariationKind.DEFAULT or (wanted and not attempts.is_over):
            _train(cfg, sight, attempts)
    except (Exception, SystemExit) as error:
        sight.fault = _fault_of(error, candidate)
    sight.seconds = time.monotonic() - started
    return sight


def _fault_of(error: BaseException, candidate: Variation) -> Fault:
    """An exception in one line, with the place in the user's code."""
    place = place_of_error(error, candidate.config.get("allow_targets") or [])
    at = "" if place is None else f" ({place})"
    hint = hint_of_missing(error) or candidate.hint
    if isinstance(error, ConfigError):
        return Fault(error.key, f"{error.expected}{at}", hint or error.hint)
    return Fault(
        candidate.key or "task",
        f"{line_of_error(error)}{at}",
        hint,
        is_of_memory=isinstance(error, Exception) and is_out_of_memory(error),
    )


# -- building --------------------------------------------------------------------------------------
def _has_new_shapes(cfg: DictConfig, key: str, attempts: _Attempts) -> bool:
    """Build what a key may change, and compare the net's shapes with those that have been trained.

    Nothing is built of the default: that is trained.
    """
    if not key:
        return True
    if key.startswith("optimizer."):
        check_optimizer(cfg)
        return False
    build_data(cfg)
    if key == "data.batch_size":
        return False
    return _shapes_of(build_anywhere(cfg)) not in attempts.shapes


def _shapes_of(task: pl.LightningModule) -> Shapes:
    found = []
    for name, parameter in task.named_parameters():
        is_lazy = isinstance(parameter, torch.nn.parameter.UninitializedParameter)
        found.append((name, () if is_lazy else tuple(parameter.shape)))
    return tuple(found)


# -- training --------------------------------------------------------------------------------------
def _train(cfg: DictConfig, sight: Sight, attempts: _Attempts) -> None:
    """Train and validate a batch.

    More of them where an epoch's end fails on one, as metrics of few samples do.
    """
    attempt = _Training(cfg, sight, attempts, batches=1)
    try:
        attempt.run()
    except Exception as error:
        if not attempt.listener.trained or is_out_of_memory(error):
            raise
        _Training(cfg, sight, attempts, batches=_MORE_BATCHES).run()


class _Training:
    """One training of a batch, or of a few.

    Args:
        cfg: The candidate's.
        sight: What it shows; completed here.
        attempts: The folder, the objectives and the time.
        batches: Of an epoch.
    """

    def __init__(self, cfg: DictConfig, sight: Sight, attempts: _Attempts, *, batches: int) -> None:
        self.folder = Path(attempts.payload.folder)
        self.objectives = attempts.payload.objectives
        self.listener = Listener(batches)
        self._sight = sight
        self._attempts = attempts
        self._cfg = _shorten(cfg, batches)
        journal = Journal(self.folder / "journal.jsonl")
        self._run = Run(self.folder, journal, self.objectives, attempts.payload.directions)
        self._logger = ListeningLogger(journal)

    def run(self) -> None:
        """Train, and complete the sight.

        Raises:
            Exception: What the user's code raises, or Lightning of it.
        """
        cfg = self._cfg
        sight = self._sight
        with Seal(self.folder) as seal:
            seed_everything(cfg.seed)
            data = build_data(cfg)
            task = build_task(cfg)
            seal.watch(task if data is None else data)
            self._attempts.shapes.add(_shapes_of(task))
            saved = self.folder / "rehearsed.ckpt"
            n_bytes = 4 * count_parameters(task).numbers
            ending = Ending(
                self.objectives,
                saved if n_bytes < _MOST_SAVED_BYTES else None,
                self._attempts.started + ENOUGH_S,
            )
            callbacks = [self.listener, *build_callbacks(cfg, self._run), ending]
            trainer = build_trainer(cfg, self._run, callbacks, logger=self._logger)
            try:
                sight.n_lazy = count_parameters(task).lazy
                trainer.fit(task, datamodule=data, weights_only=False)
            finally:
                self._note(ending, trainer, task)
            sight.misfit = _find_misfit(task, saved) if saved.is_file() else ""
            sight.not_validated = "" if sight.is_validated else _why_not_validated(trainer, task)

    def _note(self, ending: Ending, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        """Complete the sight with all that was seen, also where the training failed."""
        sight = self._sight
        reported = ending.reported | set(trainer.callback_metrics)
        sight.was_trained = True
        sight.epochs = self.listener.epochs
        sight.most_epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        sight.logged = sorted(self.listener.logged, key=lambda each: (each.name, each.stage))
        sight.reported = sorted(reported)
        called = {each.name for each in sight.logged}
        sight.in_logger = sorted(
            name
            for name in self._logger.names - reported
            if name not in called and name.removesuffix("_step") not in called
        )
        sight.missing_calls = self._logger.missing_calls
        sight.is_validated = ending.is_validated
        sight.named_in_code = [
            name for name in self.objectives if name not in reported and _is_in_code(name, task)
        ]
        sight.progress_unit = unit_of(task)
        sight.n_params = count_parameters(task).numbers
        sight.train_batches = self.listener.train_batches


def _shorten(cfg: DictConfig, batches: int) -> DictConfig:
    """The candidate's config with a short validation.

    Its callbacks write into the trainer's folder.
    """
    cfg = cfg.copy()
    with open_dict(cfg):
        trainer = cfg.trainer
        for name in _LEFT_OUT:
            if trainer.get(name) is not None:
                trainer[name] = None
        trainer.check_val_every_n_epoch = 1
        if trainer.get("limit_val_batches") != 0:
            trainer.limit_val_batches = 1 if batches == 1 else 1.0
        for node in (cfg.get("callbacks") or {}).values():
            for name in _PLACES:
                if node is not None and name in node:
                    node.pop(name)
    return cfg


def _find_misfit(task: pl.LightningModule, path: Path) -> str:
    """Why the checkpoint that this process has just saved cannot be loaded; empty where it can.

    Raises:
        Exception: Its weights cannot be written to a file of weights, as those of every trial are.
    """
    saved = torch.load(path, map_location="cpu", weights_only=False)
    weights = kept_state(task, saved["state_dict"])
    weights_file.write(path.with_suffix(".safetensors"), weights, {})
    try:
        load_strictly(task, weights)
    except WeightsMismatchError as error:
        return line_of_error(error).partition(": ")[2]
    return ""


def _why_not_validated(trainer: pl.Trainer, task: pl.LightningModule) -> str:
    if not is_overridden("validation_step", task):
        return f"{type(task).__name__} has no validation_step"
    if trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches is 0"
    data = trainer.datamodule  # type: ignore[attr-defined]  # the data connector sets it
    owner = task if data is None else data
    return f"{type(owner).__name__}.val_dataloader gives no batch"


def _is_in_code(name: str, task: pl.LightningModule) -> bool:
    """Whether a metric's name stands as a text in the code of the task's class or its bases."""
    for each in type(task).__mro__:
        if each.__module__.partition(".")[0] in ("pytorch_lightning", "torch", "builtins"):
            continue
        with contextlib.suppress(OSError, TypeError, SyntaxError, ValueError):
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and node.value == name:
                    return True
    return False
