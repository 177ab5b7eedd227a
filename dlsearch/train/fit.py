"""``fit``: from a config to a result, readable in one screen."""

from __future__ import annotations

import logging
import os
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from dlsearch.config.build import build, locate
from dlsearch.config.compose import resolve
from dlsearch.config.errors import ConfigError
from dlsearch.tracking.full import is_full
from dlsearch.tracking.layout import SYSTEM_PREFIX
from dlsearch.tracking.logger import JournalLogger
from dlsearch.tracking.system import SystemSampler
from dlsearch.train import checkpoints, determinism, transfer
from dlsearch.train.callbacks import RunCallback
from dlsearch.train.fingerprint import state_digest
from dlsearch.train.micro import MicroBatches, can_split
from dlsearch.train.run import FitResult, Run
from dlsearch.train.seal import Seal
from dlsearch.train.steps import make_lean

for _chatty in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)  # devices and tips, once a trial


def fit(cfg: DictConfig, run: Run) -> FitResult:
    """Train the configuration `cfg` within `run`, going on from its last checkpoint where there is one.

    Raises:
        ConfigError: The config describes nothing that can be built.
        Interrupted: `run.stop` said so.
    """
    with Seal(run.folder) as seal:
        return _fit(cfg, run, seal)


def _fit(cfg: DictConfig, run: Run, seal: Seal) -> FitResult:
    started = time.perf_counter()
    seed_everything(cfg.seed)
    data = build_data(cfg)
    if run.refit_epochs is not None:
        check_refit(data)
        data.include_validation()  # type: ignore[attr-defined]  # it was looked for
    seal.watch(data)
    task = build_task(cfg)
    moved = transfer.begin(cfg, task)
    keeper, micro = RunCallback(run), MicroBatches(run.micro_batches)
    trainer = build_trainer(cfg, run, [*moved, *build_callbacks(cfg, run), micro, keeper])
    keeper.resumption = checkpoints.resume(keeper.folder)
    last = keeper.resumption.path
    run.began({"micro_batches": run.micro_batches, "resumption": keeper.resumption.to_json()})
    n_params = sum(p.numel() for p in task.parameters() if p.requires_grad)
    run.journal.metrics({"model/n_params": n_params}, 0)
    try:
        with SystemSampler(run.journal, run.system_metrics_s), quick_cuda_check(), determinism.noted() as met:
            trainer.fit(task, datamodule=data, ckpt_path=None if last is None else str(last), weights_only=True)
        result = _result(trainer, keeper, run, n_params)
        _fingerprint(result, keeper, task, data)
        result.nondeterministic = sorted(met)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        result = FitResult("failed", "oom", _line(error), epochs=trainer.current_epoch, n_params=n_params)
        result.halve = 2 * micro.count <= (keeper.batch_size or 0) and can_split(trainer, task)
    except OSError as error:
        if not is_full(error):
            raise
        result = FitResult("failed", "disk", _line(error), epochs=trainer.current_epoch, n_params=n_params)
    result.seconds = time.perf_counter() - started
    result.resumed_epoch, result.history = keeper.resumed_epoch, keeper.history
    result.micro_batches, result.resumption = micro.count, keeper.resumption.to_json()
    seal.lift()
    if run.test and result.state == "complete":
        result.test = _test(trainer, task, data, run)
    if torch.cuda.is_initialized():
        result.peak_memory_mib = torch.cuda.max_memory_reserved() / 2**20
        run.journal.metrics({f"{SYSTEM_PREFIX}peak_memory_mib": result.peak_memory_mib}, trainer.global_step)
    with suppress(OSError) if result.reason == "disk" else nullcontext():
        run.journal.metrics({**_summary(run, result), "time/total_s": result.seconds}, trainer.global_step)
        run.journal.flush()
    return result


#: What the allocators say, beside torch's own error: CUDA's context, a library's workspace, the CPU's.
_NO_MEMORY = ("out of memory", "ALLOC_FAILED", "not enough memory", "an't allocate memory", "annot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; Lightning's own function prints, and its environment variables outlive a trial."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # user code draws from the global generator
    torch.manual_seed(seed)


@contextmanager
def quick_cuda_check() -> Iterator[None]:
    """Have torch ask the CUDA runtime, not NVML, for GPUs where there are none.

    Lightning's import has it ask NVML, which answers without touching CUDA. Where there is no NVML, torch looks for the
    library again and then asks the runtime after all, and Adam wants to know at every step: a quarter of a millisecond.
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


def build_data(cfg: DictConfig) -> pl.LightningDataModule:
    """The data module; a refused argument is named under ``data``."""
    return _named("data", lambda: build(cfg.data, "data", extra=cfg.allow_targets))


def check_refit(data: pl.LightningDataModule) -> None:
    """Check that a data module can train on train + validation.

    Raises:
        ConfigError: It cannot.
    """
    if not hasattr(data, "include_validation"):
        hint = f"give {type(data).__name__} a method include_validation(), or study.confirm.refit=false"
        raise ConfigError("study.confirm.refit", "expected data that can train on train + validation", hint)


def build_task(cfg: DictConfig) -> pl.LightningModule:
    """The LightningModule with all that it is made of."""
    for group in ("model", "optimizer", "scheduler"):  # named by their own group, not by the task that takes them
        node = OmegaConf.select(cfg, group)
        if node is not None and "_target_" in node:
            locate(node["_target_"], group, cfg.allow_targets)
    return _named("task", lambda: build(cfg.task, "task", extra=cfg.allow_targets))


def check_optimizer(cfg: DictConfig) -> None:
    """Make the optimizer of one parameter: what it refuses is known before anything is written."""
    clips, half = OmegaConf.select(cfg, "trainer.gradient_clip_val"), OmegaConf.select(cfg, "trainer.precision")
    if clips and str(half) in ("16", "16-mixed") and OmegaConf.select(cfg, "optimizer.fused"):
        raise ConfigError(
            "optimizer.fused", "expected false where trainer.precision=16-mixed clips gradients", "or bf16-mixed"
        )
    if OmegaConf.select(cfg, "optimizer._partial_"):
        make = build(cfg.optimizer, "optimizer", extra=cfg.allow_targets)
        _named("optimizer", lambda: make([torch.nn.Parameter(torch.zeros(1))]))


def _named(group: str, make: Any) -> Any:
    try:
        return make()
    except ConfigError:
        raise
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise ConfigError(group, _line(error)) from error


def build_callbacks(cfg: DictConfig, run: Run) -> list[pl.Callback]:
    """The config's callbacks; those that watch a metric watch the objective unless they name another."""
    callbacks = []
    for name, node in (cfg.callbacks or {}).items():
        if node is None:
            continue
        defaults: dict[str, Any] = {}
        if node.get("_target_") == "dlsearch.train.callbacks.EarlyStopping":
            usual = {"monitor": run.monitor, "mode": run.mode, "strict": "monitor" in node}
            defaults = {k: v for k, v in usual.items() if k not in node}
        callbacks.append(build(node, f"callbacks.{name}", extra=cfg.allow_targets, **defaults))
    if run.refit_epochs is not None:  # nothing is validated, and the length is known
        callbacks = [each for each in callbacks if not isinstance(each, pl.callbacks.EarlyStopping)]
    return callbacks


def build_trainer(cfg: DictConfig, run: Run, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A Trainer for small steps: no sanity check, no summary, no checkpointing but ours, no bar unless asked."""
    settings = {k: v for k, v in resolve(cfg, "trainer").items() if v is not None}
    determinism.check(settings.get("deterministic"))
    if run.refit_epochs is not None:
        settings["limit_val_batches"] = 0
    for message in (".*does not have many workers.*", ".*smaller than the logging interval.*", ".*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)  # of Lightning's own making, or known and meant
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
        raise ConfigError("trainer", _line(error)) from error
    make_lean(trainer)
    return trainer


def _result(trainer: pl.Trainer, keeper: RunCallback, run: Run, n_params: int) -> FitResult:
    # Nothing is left to train, and so to log, where a kill came between the last checkpoint and the result.
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()} or keeper.final
    result = FitResult(
        "failed", keeper.failure, epochs=trainer.current_epoch, n_params=n_params, summary=_finite("final/", metrics)
    )
    if keeper.best is not None:
        result.best_epoch, result.best_step = keeper.best["epoch"], keeper.best["step"]
        result.summary |= _finite("best/", keeper.best["metrics"])
    if run.refit_epochs is not None and keeper.failure is None:
        result.state = "complete"
    elif keeper.failure:
        result.error = f"{keeper.failure} after epoch {trainer.current_epoch}"
    elif keeper.pruned:
        result.state = "pruned"
    elif keeper.best is None:
        result.reason, result.error = "exception", f"no epoch was validated, so {run.monitor} has no value"
    else:
        special = {"model/n_params": float(n_params)}
        known = {**keeper.best["metrics"], **special}
        absent = [name for name in run.objectives if name not in known]
        if absent:
            result.reason, result.error = "exception", f"objective {absent[0]!r} is not logged"
        else:
            result.state, result.values = "complete", [known[name] for name in run.objectives]
    return result


def _fingerprint(result: FitResult, keeper: RunCallback, task: pl.LightningModule, data: Any) -> None:
    """Note the digests by which a repetition is compared."""
    kept = keeper.folder / (checkpoints.BEST if result.state == "complete" else checkpoints.LAST)
    if result.state in ("complete", "pruned"):  # what was kept, not what a callback made of the weights since
        weights = checkpoints.read(kept, mmap=True)["state_dict"]
    else:
        weights = task.state_dict()
    result.state_sha256, result.metrics_sha256 = state_digest(weights), keeper.metrics_sha256 or None
    described = data.describe() if hasattr(data, "describe") else {}
    result.split_sha256 = described.get("digests") or None


def _finite(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in sorted(metrics.items()) if np.isfinite(value)}


def _summary(run: Run, result: FitResult) -> dict[str, float]:
    rows = dict(result.summary)
    if result.values is not None:
        rows |= {
            "objective": result.values[0],
            "best/epoch": result.best_epoch or 0,
            "best/step": result.best_step or 0,
        }
    return rows


def _test(trainer: pl.Trainer, task: pl.LightningModule, data: pl.LightningDataModule, run: Run) -> dict[str, Any]:
    """Open the test set, once, and score the best checkpoint on it."""
    task.load_state_dict(checkpoints.weights(run.folder / "ckpt" / checkpoints.BEST))
    run.unseal()
    if hasattr(data, "unseal"):
        data.unseal()
    return report_of(trainer, task, data)


def report_of(
    trainer: pl.Trainer, task: pl.LightningModule, data: pl.LightningDataModule, *, examples: bool = True
) -> dict[str, Any]:
    """Score a task on the test set, which is open: its metrics, and what more the task says.

    Args:
        trainer: It tests.
        task: What is tested.
        data: Unsealed.
        examples: Whether the report's errors come with their pictures.
    """
    (metrics,) = trainer.test(task, datamodule=data, verbose=False) or [{}]
    report: dict[str, Any] = {"metrics": {name: float(value) for name, value in metrics.items()}}
    report |= getattr(task, "test_report", None) or {}
    if examples and hasattr(data, "test_example"):
        from base64 import b64encode

        for error in report.get("errors", []):
            pixels = data.test_example(error["index"])
            error["image"] = {"shape": list(pixels.shape), "data": b64encode(pixels.tobytes()).decode()}
    return report


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
