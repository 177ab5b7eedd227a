"""Every argument of Lightning's Trainer, as a key under ``trainer.`` or refused with the reason.

Written out, because what composes a config imports no Lightning. A test compares it with the
signature of the Trainer that is installed. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any  # OmegaConf reads these annotations at run time

from dlsearch.core.errors import ConfigError, did_you_mean

#: The Trainer's own defaults, as its signature says them.
DEFAULTS: Mapping[str, Any] = {
    "accelerator": "auto",
    "strategy": "auto",
    "devices": "auto",
    "num_nodes": 1,
    "precision": None,
    "logger": None,
    "callbacks": None,
    "fast_dev_run": False,
    "max_epochs": None,
    "min_epochs": None,
    "max_steps": -1,
    "min_steps": None,
    "max_time": None,
    "limit_train_batches": None,
    "limit_val_batches": None,
    "limit_test_batches": None,
    "limit_predict_batches": None,
    "overfit_batches": 0.0,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": None,
    "log_every_n_steps": None,
    "enable_checkpointing": None,
    "enable_progress_bar": None,
    "enable_model_summary": None,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": None,
    "deterministic": None,
    "benchmark": None,
    "inference_mode": True,
    "use_distributed_sampler": True,
    "profiler": None,
    "detect_anomaly": False,
    "barebones": False,
    "plugins": None,
    "sync_batchnorm": False,
    "reload_dataloaders_every_n_epochs": 0,
    "default_root_dir": None,
    "enable_autolog_hparams": True,
    "model_registry": None,
}


@dataclass(frozen=True)
class Refusal:
    """Why an argument is not the config's to give.

    Args:
        reason: What dlsearch does with it itself.
        hint: What to type instead.
    """

    reason: str
    hint: str


#: What a search needs for itself.
OWNED: Mapping[str, Refusal] = {
    "logger": Refusal(
        "the metrics of a trial are logged by dlsearch; others log beside it",
        "+logger.csv._target_=pytorch_lightning.loggers.CSVLogger",
    ),
    "callbacks": Refusal(
        "callbacks have a config group of their own",
        "+callbacks.mine._target_=pytorch_lightning.callbacks.LearningRateMonitor",
    ),
    "enable_checkpointing": Refusal(
        "a trial goes on from its checkpoints, and is scored by them",
        "study.keep.top_k=1 keeps few on disk",
    ),
    "default_root_dir": Refusal("each run has a folder in the store", "paths.store=…"),
    "barebones": Refusal(
        "it switches off checkpoints and logs, which a search needs",
        "leave it out; a plain training step is lean already",
    ),
    "model_registry": Refusal(
        "checkpoints are kept in the store", "dlsearch export writes a model elsewhere"
    ),
    "num_nodes": Refusal(
        "a trial owns one device of one machine",
        "hydra/launcher=slurm runs trials on several machines",
    ),
}


#: What is no argument of the Trainer and is written under ``trainer`` elsewhere.
_NO_ARGUMENT = {
    "_target_": Refusal("the Trainer is that of pytorch_lightning", "leave it out"),
}


@dataclass
class TrainerConfig:
    """Arguments of ``pytorch_lightning.Trainer``; see its documentation.

    Null leaves an argument to Lightning, but for ``check_val_every_n_epoch``, of which null says
    that ``val_check_interval`` counts batches over epochs.
    """

    max_epochs: int | None = 10  # null or -1: trainer.max_steps says how long
    # then progress, rungs and reports are counted in steps; trainer.max_epochs still ends it
    max_steps: int | None = None
    accelerator: str = "auto"
    devices: Any = 1  # a trial owns one device
    precision: Any = "32-true"
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None  # norm or value
    accumulate_grad_batches: int = 1
    log_every_n_steps: int = 50
    deterministic: Any = True
    # null: trainer.val_check_interval counts batches over epochs
    check_val_every_n_epoch: int | None = 1
    val_check_interval: Any = None  # a part of an epoch, a number of batches, or a time
    limit_train_batches: Any = None  # a part of the batches, or a number of them
    limit_val_batches: Any = None
    overfit_batches: Any = 0.0
    limit_test_batches: Any = None
    limit_predict_batches: Any = None
    min_epochs: int | None = None
    min_steps: int | None = None
    max_time: Any = None  # 00:01:30:00 (days:hours:minutes:seconds), or {minutes: 90}
    fast_dev_run: Any = None  # true, or a number: so many batches of one epoch, and that is all
    num_sanity_val_steps: int | None = None  # null: none
    reload_dataloaders_every_n_epochs: int | None = None
    enable_progress_bar: bool | None = None  # null: in a single run, at a terminal
    enable_model_summary: bool | None = None  # null: none
    enable_autolog_hparams: bool | None = None
    inference_mode: bool | None = None  # false: validation may compute gradients
    detect_anomaly: bool | None = None
    benchmark: bool | None = None
    profiler: Any = None  # simple, advanced, pytorch, or a _target_
    plugins: Any = None  # a _target_ or a list of them
    strategy: Any = None  # auto, or a _target_ of a strategy on one device
    sync_batchnorm: bool | None = None
    use_distributed_sampler: bool | None = None


def refusal_of(key: str) -> ConfigError | None:
    """The error of a key under ``trainer.`` that is dlsearch's own; None where it is none."""
    section, _, name = key.partition(".")
    first = name.partition(".")[0]
    refusal = OWNED.get(first) or _NO_ARGUMENT.get(first)
    if section != "trainer" or refusal is None:
        return None
    return ConfigError(key, f"is not for a config to say: {refusal.reason}", refusal.hint)


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Check what is known of the arguments without Lightning.

    Raises:
        ConfigError: They are no arguments, ask for more than one device, or are dlsearch's own.
    """
    _check_keys(trainer)
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and strategy != "auto" and "${" not in strategy:
        raise ConfigError(
            "trainer.strategy",
            f"a trial owns one device, so that {strategy!r} has nothing to share out",
            "leave it out; trials run side by side, one a device",
        )
    if isinstance(strategy, Mapping):
        _check_strategy_node(strategy)
    devices = trainer.get("devices")
    if not _is_one_device(devices):
        raise ConfigError(
            "trainer.devices",
            f"a trial owns one device, got {devices!r}",
            "1; hydra.launcher.workers=… says how many trials run side by side",
        )
    _check_fast_dev_run(trainer.get("fast_dev_run"))


def _check_keys(trainer: Mapping[str, Any]) -> None:
    """Check the keys themselves: `+trainer.logger=…` adds one that the typed section has not."""
    known = {each.name for each in fields(TrainerConfig)}
    for name in trainer:
        if name in known:
            continue
        key = f"trainer.{name}"
        refusal = refusal_of(key)
        if refusal is not None:
            raise refusal
        hint = did_you_mean(key, [f"trainer.{each}" for each in known], "see dlsearch --cfg job")
        raise ConfigError(key, "Lightning's Trainer has no such argument", hint)


def _check_strategy_node(node: Mapping[str, Any]) -> None:
    """Lightning's own strategies are for several devices, but the one that is used anyway."""
    target = str(node.get("_target_"))
    if target.startswith(("pytorch_lightning.", "lightning.")):
        raise ConfigError(
            "trainer.strategy._target_",
            f"a trial owns one device, and {target.rpartition('.')[2]} is not needed for it",
            "leave it out; a strategy of your own for one device is built by its _target_",
        )


def _is_one_device(devices: Any) -> bool:
    if devices is None or isinstance(devices, bool):
        return devices is None
    if isinstance(devices, (list, tuple)):
        return len(devices) == 1
    return str(devices).strip() in ("1", "auto") or "${" in str(devices)


def _check_fast_dev_run(given: Any) -> None:
    if given is None or isinstance(given, bool):
        return
    if not isinstance(given, int) or given < 0:
        raise ConfigError(
            "trainer.fast_dev_run", f"expected true or a number of batches, got {given!r}", "true"
        )


def without_fast_dev_run(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with the limits that ``fast_dev_run`` stands for in its place.

    Lightning's own would switch off the logger, with which nothing were reported.
    """
    found = dict(trainer)
    given = found.pop("fast_dev_run", None)
    if not given:
        return found
    batches = int(given)
    limits = [f"limit_{which}_batches" for which in ("train", "val", "test", "predict")]
    return {
        **found,
        **dict.fromkeys(limits, batches),
        "max_epochs": 1,
        "max_steps": None,
        "min_epochs": None,
        "min_steps": None,
        "max_time": None,
        "overfit_batches": 0.0,
        "val_check_interval": None,
        "check_val_every_n_epoch": 1,
        "num_sanity_val_steps": 0,
    }
