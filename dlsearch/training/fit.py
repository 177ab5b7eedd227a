"""``fit``: from a config to a result, readable in one screen."""

from __future__ import annotations

import functools
import logging
import os
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from dlsearch.config.build import build, locate
from dlsearch.config.compose import resolve
from dlsearch.config.foreign import is_inside_one
from dlsearch.config.moved import current_name
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.disk import is_full
from dlsearch.core.text import clean_line, text_of
from dlsearch.tracking.journal import Journal
from dlsearch.tracking.layout import SYSTEM_PREFIX
from dlsearch.tracking.logger import JournalLogger
from dlsearch.tracking.system import SystemSampler
from dlsearch.training import checkpoints, determinism, transfer
from dlsearch.training.callbacks import RunCallback
from dlsearch.training.evaluation.base import TestObserver
from dlsearch.training.evaluation.table import evaluation_of
from dlsearch.training.fingerprint import state_digest
from dlsearch.training.lean_loop import make_lean
from dlsearch.training.micro_batches import MicroBatches, can_split
from dlsearch.training.progress import completed_units, unit_of
from dlsearch.training.run import FitResult, Run
from dlsearch.training.test_guard import Seal

if TYPE_CHECKING:
    from dlsearch.training.restoring import Restored

#: Arguments of Lightning's callbacks that name what is written.
_PLACES = ("dirpath", "exclude_batches_path")
#: Arguments of Lightning's Trainer of which null says something: validation by batches, not epochs.
_NULL_MEANS = ("check_val_every_n_epoch",)

for _chatty in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)  # devices and tips, once a trial


def fit(cfg: DictConfig, run: Run) -> FitResult:
    """Train the configuration `cfg` within `run`, going on from its last checkpoint where there is one.

    Raises:
        ConfigError: The config describes nothing that can be built.
        Interrupted: `run.stop` said so.
    """
    with Seal(run.folder) as seal:
        return _fit_sealed(cfg, run, seal)


def _fit_sealed(cfg: DictConfig, run: Run, seal: Seal) -> FitResult:
    started = time.perf_counter()
    seed_everything(cfg.seed)
    data = build_data(cfg)
    if run.refit_epochs is not None:
        include_validation(data)
    if data is not None:
        seal.watch(data)
    task = build_task(cfg)
    if data is None:
        seal.watch(task)
    transferring = transfer.begin(cfg, task)
    keeper = RunCallback(run)
    micro = MicroBatches(run.micro_batches)
    trainer = build_trainer(cfg, run, [*transferring, *build_callbacks(cfg, run), micro, keeper])
    keeper.resumption = checkpoints.resume(keeper.folder)
    n_params = sum(p.numel() for p in task.parameters() if p.requires_grad)
    run.began({"micro_batches": run.micro_batches, "resumption": keeper.resumption.to_json()})
    run.journal.metrics({"model/n_params": n_params}, 0)
    training = _Training(run, task, data, trainer, keeper, micro, n_params)
    result = _run_trainer(training)
    result.seconds = time.perf_counter() - started
    result.resumed_epoch = keeper.resumed_epoch
    result.history = keeper.history
    result.micro_batches = micro.count
    result.resumption = keeper.resumption.to_json()
    result.progress_unit = unit_of(task)
    seal.lift()
    if run.test and result.state == "complete":
        result.test = _score_on_test(cfg, run, result)
    _log_end(run, result, trainer.global_step)
    return result


@dataclass(frozen=True)
class _Training:
    """All that takes part in one training."""

    run: Run
    task: pl.LightningModule
    data: pl.LightningDataModule | None
    trainer: pl.Trainer
    keeper: RunCallback
    micro: MicroBatches
    n_params: int


def _run_trainer(training: _Training) -> FitResult:
    """Train; a result also where memory or disk did not suffice."""
    run = training.run
    keeper = training.keeper
    last = keeper.resumption.path
    try:
        with (
            SystemSampler(run.journal, run.system_metrics_s),
            quick_cuda_check(),
            determinism.noted() as nondeterministic,
        ):
            training.trainer.fit(
                training.task,
                datamodule=training.data,
                ckpt_path=None if last is None else str(last),
                weights_only=True,
            )
        result = _result_of(training)
        _note_digests(result, training)
        result.nondeterministic = sorted(nondeterministic)
        return result
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        result = _failed_result(training, "oom", error)
        twice = 2 * training.micro.count
        fits = twice <= (keeper.batch_size or 0)
        result.halve = fits and can_split(training.trainer, training.task)
        return result
    except OSError as error:
        if not is_full(error):
            raise
        return _failed_result(training, "disk", error)


def _failed_result(training: _Training, reason: str, error: BaseException) -> FitResult:
    return FitResult(
        "failed",
        reason,
        _first_line(error),
        epochs=completed_units(training.trainer, training.task),
        n_params=training.n_params,
    )


def _log_end(run: Run, result: FitResult, step: int) -> None:
    """The last rows of a training; where the disk is full, as many as it takes."""
    if torch.cuda.is_initialized():
        result.peak_memory_mib = torch.cuda.max_memory_reserved() / 2**20
        name = f"{SYSTEM_PREFIX}peak_memory_mib"
        run.journal.metrics({name: result.peak_memory_mib}, step)
    with suppress(OSError) if result.reason == "disk" else nullcontext():
        run.journal.metrics({**_summary_rows(run, result), "time/total_s": result.seconds}, step)
        run.journal.flush()


#: What the allocators say, beside torch's own error: CUDA's context, a library's workspace, the
#: CPU's.
_NO_MEMORY = (
    "out of memory",
    "ALLOC_FAILED",
    "not enough memory",
    "an't allocate memory",
    "annot allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in text_of(error) for words in _NO_MEMORY)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch.

    Lightning's own function prints, and its environment variables outlive a trial.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # user code draws from the global generator
    torch.manual_seed(seed)


@contextmanager
def quick_cuda_check() -> Iterator[None]:
    """Have torch ask the CUDA runtime, not NVML, for GPUs where there are none.

    Lightning's import has it ask NVML, which answers without touching CUDA. Where there is no NVML,
    torch looks for the library again and then asks the runtime after all, and Adam wants to know at
    every step: a quarter of a millisecond.
    """
    key = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(key)
    if before is None or torch.cuda.is_available():
        yield
        return
    os.environ[key] = "0"
    try:
        yield
    finally:
        os.environ[key] = before


def build_data(cfg: DictConfig) -> pl.LightningDataModule | None:
    """The data module, None where the task brings its own loaders.

    A refused argument is named under ``data``.
    """
    if OmegaConf.select(cfg, "data") is None:
        return None
    data: pl.LightningDataModule = _build_named("data", lambda: build(cfg.data, "data"))
    return data


def include_validation(data: pl.LightningDataModule | None) -> None:
    """Have a data module train on train + validation.

    Raises:
        ConfigError: It cannot.
    """
    check_refit(data)
    data.include_validation()  # type: ignore[union-attr]  # it was looked for


def check_refit(data: pl.LightningDataModule | None) -> None:
    """Check that a data module can train on train + validation.

    Raises:
        ConfigError: It cannot.
    """
    if not hasattr(data, "include_validation"):
        owner = "a data module" if data is None else type(data).__name__
        hint = f"give {owner} a method include_validation(), or study.confirm.refit=false"
        raise ConfigError(
            "study.confirm.refit", "expected data that can train on train + validation", hint
        )


def build_task(cfg: DictConfig) -> pl.LightningModule:
    """The LightningModule with all that it is made of."""
    # named by their own group, not by the task that takes them
    for group in ("model", "optimizer", "scheduler"):
        node = OmegaConf.select(cfg, group)
        if node is not None and "_target_" in node:
            locate(node["_target_"], group)
    return _build_named("task", lambda: build(cfg.task, "task"))


def check_optimizer(cfg: DictConfig) -> None:
    """Make the optimizer of one parameter: what it refuses is known before anything is written."""
    clips = OmegaConf.select(cfg, "trainer.gradient_clip_val")
    half = OmegaConf.select(cfg, "trainer.precision")
    if clips and str(half) in ("16", "16-mixed") and OmegaConf.select(cfg, "optimizer.fused"):
        raise ConfigError(
            "optimizer.fused",
            "expected false where trainer.precision=16-mixed clips gradients",
            "or bf16-mixed",
        )
    if OmegaConf.select(cfg, "optimizer._partial_"):
        make = build(cfg.optimizer, "optimizer")
        _build_named("optimizer", lambda: make([torch.nn.Parameter(torch.zeros(1))]))


def _build_named(group: str, make: Any) -> Any:
    try:
        return make()
    except ConfigError:
        raise
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise ConfigError(group, _first_line(error)) from error


def build_callbacks(cfg: DictConfig, run: Run) -> list[pl.Callback]:
    """The config's callbacks.

    Those that watch a metric watch the objective unless they name another.
    """
    callbacks = []
    for name, node in (cfg.callbacks or {}).items():
        if node is None:
            continue
        defaults: dict[str, Any] = {}
        if current_name(str(node.get("_target_"))) == "dlsearch.training.callbacks.EarlyStopping":
            usual = {"monitor": run.monitor, "mode": run.mode, "strict": "monitor" in node}
            defaults = {k: v for k, v in usual.items() if k not in node}
        _check_places(node, f"callbacks.{name}", cfg)
        made = build(node, f"callbacks.{name}", **defaults)
        if not isinstance(made, pl.Callback):
            raise ConfigError(
                f"callbacks.{name}._target_", f"{node.get('_target_')!r} makes no callback"
            )
        callbacks.append(made)
    if run.refit_epochs is not None:  # nothing is validated, and the length is known
        callbacks = [each for each in callbacks if not isinstance(each, pl.callbacks.EarlyStopping)]
    return callbacks


def _check_places(node: DictConfig, key: str, cfg: DictConfig) -> None:
    """Refuse a callback of a library that writes elsewhere than below the store or the working folder."""
    if not str(node.get("_target_")).startswith("pytorch_lightning."):
        return
    roots = [Path.cwd(), Path(resolve(cfg, "paths.store")), *permission.folders()]
    for name in _PLACES:
        value = node.get(name)
        if value is not None and not is_inside_one(Path(str(value)), roots):
            hint = "leave it out: the run's folder; or allow_paths in [tool.dlsearch] of pyproject.toml"
            raise ConfigError(
                f"{key}.{name}",
                f"{str(value)!r} lies outside the working folder and the store",
                hint,
            )
    if os.sep in str(node.get("filename") or ""):
        raise ConfigError(f"{key}.filename", "expected a name, not a path", "best-{epoch}")


def build_trainer(cfg: DictConfig, run: Run, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A Trainer for small steps: no sanity check, no summary, no checkpointing but ours, no bar unless asked."""
    settings = {
        name: value
        for name, value in resolve(cfg, "trainer").items()
        if value is not None or name in _NULL_MEANS
    }
    determinism.check(settings.get("deterministic"))
    if run.refit_epochs is not None:
        settings["limit_val_batches"] = 0
    for message in (
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
    ):
        # of Lightning's own making, or known and meant
        warnings.filterwarnings("ignore", message=message)
    try:
        trainer = pl.Trainer(
            **settings,
            logger=JournalLogger(run.journal),
            callbacks=callbacks,
            default_root_dir=run.folder,
            enable_checkpointing=True,
            enable_progress_bar=run.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError("trainer", _first_line(error)) from error
    make_lean(trainer)
    return trainer


def _result_of(training: _Training) -> FitResult:
    """What a training came to that Lightning has ended."""
    run = training.run
    keeper = training.keeper
    completed = completed_units(training.trainer, training.task)
    # Nothing is left to train, and so to log, where a kill came between the last checkpoint and the
    # result.
    logged = {name: float(value) for name, value in training.trainer.callback_metrics.items()}
    result = FitResult(
        "failed",
        keeper.failure,
        epochs=completed,
        n_params=training.n_params,
        summary=_keep_finite("final/", logged or keeper.final),
    )
    best = keeper.best
    if best is not None:
        result.best_epoch = best.position
        result.best_step = best.step
        result.summary |= _keep_finite("best/", best.metrics)
    if run.refit_epochs is not None and keeper.failure is None:
        result.state = "complete"
    elif keeper.failure:
        result.error = f"{keeper.failure} after {unit_of(training.task)} {completed}"
    elif keeper.pruned:
        result.state = "pruned"
    elif best is None:
        result.reason = "exception"
        result.error = f"no epoch was validated, so {run.monitor} has no value"
    else:
        known = {**best.metrics, "model/n_params": float(training.n_params)}
        _take_values(result, run.objectives, known)
    return result


def _take_values(result: FitResult, objectives: list[str], known: dict[str, float]) -> None:
    """Complete a result with the values of the objectives, if all of them are known."""
    absent = [name for name in objectives if name not in known]
    if absent:
        result.reason = "exception"
        result.error = f"objective {absent[0]!r} is not logged"
        return
    result.state = "complete"
    result.values = [known[name] for name in objectives]


def _note_digests(result: FitResult, training: _Training) -> None:
    """Note the digests by which a repetition is compared."""
    keeper = training.keeper
    data = training.data
    kept = keeper.folder / (checkpoints.BEST if result.state == "complete" else checkpoints.LAST)
    # what was kept, not what a callback made of the weights since
    if result.state in ("complete", "pruned"):
        weights = checkpoints.read(kept, mmap=True)["state_dict"]
    else:
        weights = training.task.state_dict()
    result.state_sha256 = state_digest(weights)
    result.metrics_sha256 = keeper.metrics_sha256 or None
    described = data.describe() if data is not None and hasattr(data, "describe") else {}
    result.split_sha256 = described.get("digests") or None


def _keep_finite(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {
        f"{prefix}{name}": value for name, value in sorted(metrics.items()) if np.isfinite(value)
    }


def _summary_rows(run: Run, result: FitResult) -> dict[str, float]:
    rows = dict(result.summary)
    if result.values is not None:
        rows |= {
            "objective": result.values[0],
            "best/epoch": result.best_epoch or 0,
            "best/step": result.best_step or 0,
        }
    return rows


def _score_on_test(cfg: DictConfig, run: Run, result: FitResult) -> dict[str, Any]:
    """Open the test set, once, and score the best checkpoint on it."""
    # which builds what it restores with this module
    from dlsearch.training.restoring import of_result, restore

    best = run.folder / "ckpt" / checkpoints.BEST
    silent = replace(run, journal=Journal(Path(os.devnull)), progress_bar=False)
    restored = restore(cfg, silent, best, of_result(run.monitor, result))
    run.unseal()
    open_test_set(restored.loaders)
    return report_of(restored, restored.data)


def open_test_set(loaders: Any) -> None:
    """Open the test set of a data module, or of a task, that keeps one sealed."""
    if hasattr(loaders, "unseal"):
        loaders.unseal()


def report_of(
    restored: Restored, data: pl.LightningDataModule | None, *, examples: bool = True
) -> dict[str, Any]:
    """Score a task on the test set, which is open: its metrics, and the facts that its kind adds.

    Args:
        restored: What is tested.
        data: Unsealed; None where the task brings its own loaders.
        examples: Whether the facts come with their pictures.
    """
    evaluation = evaluation_of(restored.task)
    trainer = restored.trainer(TestObserver(evaluation))
    scored = restored.evaluate(functools.partial(trainer.test, verbose=False), datamodule=data)
    metrics = {name: float(value) for loader in scored for name, value in loader.items()}
    facts = evaluation.facts()
    if examples:
        evaluation.illustrate(facts, data)
    return {"metrics": metrics, **facts}


def _first_line(error: BaseException) -> str:
    return clean_line((text_of(error).splitlines() or [""])[0] or type(error).__name__)
