"""What runs in a forked child: one training, the scoring of a winner, or the check before a study is opened.

The child knows no database and no MLflow. It appends rows to its journal and talks JSON with the worker over a socket;
when the worker is gone, so is the child.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from dlsearch.config.errors import ConfigError
from dlsearch.search.endings import INTERRUPTED
from dlsearch.tracking.full import is_full
from dlsearch.tracking.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.search.forkserver import Channel
    from dlsearch.tracking.journal import Journal
    from dlsearch.train.run import FitResult


class _Control:
    """The child's end of the conversation, and whether it has been told to stop."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stopping = False
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        signal.signal(signal.SIGTERM, self._on_term)

    def _on_term(self, *_: Any) -> None:
        self.stopping = True

    def stop(self) -> bool:
        """Whether to stop; a closed socket means that the worker died, and nobody waits for this result."""
        if self._poll.poll(0):
            os._exit(INTERRUPTED)
        return self.stopping

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send and wait for the answer."""
        try:
            self.channel.send(message)
            answer = self.channel.receive()
        except OSError:
            answer = None
        if answer is None:
            os._exit(INTERRUPTED)
        return answer

    def report(self, epoch: int, step: int, metrics: Mapping[str, float]) -> bool:
        """Tell the worker about an epoch."""
        return bool(self.ask({"type": "report", "epoch": epoch, "step": step, "metrics": dict(metrics)})["prune"])

    def began(self, what: dict[str, Any]) -> None:
        """Tell the worker what is unusual about this attempt, if anything is."""
        if what["resumption"] is not None or what["micro_batches"] > 1:
            with contextlib.suppress(OSError):  # that it is gone is noticed at the first batch
                self.channel.send({"type": "began", **what})

    def unseal(self) -> None:
        """Have the worker write the ledger's row."""
        self.ask({"type": "unseal"})


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def run_trial(channel: Channel, payload: dict[str, Any]) -> None:
    """Train one config and send the result.

    Args:
        channel: To the worker.
        payload: ``cfg`` (plain), ``folder``, ``journal``, ``objectives``, ``directions``, ``threads``, ``epochs`` (of a
            training on train + validation, else None), ``params``, ``origin`` (the digests of the environment and
            the code) and, where a batch is trained in parts, ``micro_batches``.
    """
    control = _Control(channel)
    from dlsearch.search import inputs
    from dlsearch.tracking.journal import Journal
    from dlsearch.train.fit import fit
    from dlsearch.train.run import Interrupted, Run
    from dlsearch.train.seal import breaches

    _threads(payload["threads"])
    cfg = OmegaConf.create(payload["cfg"])
    journal = Journal(Path(payload["journal"]))
    run = Run(
        folder=Path(payload["folder"]),
        journal=journal,
        objectives=payload["objectives"],
        directions=payload["directions"],
        report=control.report,
        stop=control.stop,
        refit_epochs=payload["epochs"],
        system_metrics_s=cfg.tracking.system_metrics_s,
        micro_batches=payload.get("micro_batches", 1),
        began=control.began,
    )
    met = None
    try:
        met = inputs.met(payload)
        result = fit(cfg, run)
    except (Interrupted, SystemExit) as end:
        if isinstance(end, SystemExit) and not control.stopping:
            raise
        with contextlib.suppress(OSError):  # a SystemExit: between epochs Lightning asks first who was told to end
            journal.close()
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        result = _failed(error, run.folder, journal)
    result.inputs, result.breaches = met, breaches(run.folder)
    with contextlib.suppress(OSError):  # rows for which there was no room
        journal.close()
    channel.send({"type": "done", "result": result.to_json()})


def _failed(error: Exception, folder: Path, journal: Journal) -> FitResult:
    from dlsearch.train.fit import is_out_of_memory
    from dlsearch.train.run import FitResult

    try:
        if is_out_of_memory(error):  # not in a step: in parts it would be the same
            traceback.print_exc()
            return FitResult("failed", "oom", (str(error).splitlines() or [type(error).__name__])[0])
        if is_full(error):
            traceback.print_exc()
            return FitResult("failed", "disk", (str(error).splitlines() or [""])[0])
        failed = FitResult("failed", "exception", _note(error, folder))
        journal.artifact(folder / "error" / "traceback.txt", "error")
    except OSError as full:  # no room for the traceback
        return FitResult("failed", "disk" if is_full(full) else "exception", f"{type(error).__name__}: {error}")
    return failed


def _note(error: Exception, folder: Path) -> str:
    """Keep the traceback in the folder; one line of it."""
    failed = folder / "error"
    failed.mkdir(exist_ok=True)
    (failed / "traceback.txt").write_text(mask_text(traceback.format_exc()))
    traceback.print_exc()
    line = (str(error).splitlines() or [""])[0]
    return mask_text(str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {line}")


def run_test(channel: Channel, payload: dict[str, Any]) -> None:
    """Score the trainings of the configuration that won on the test set, and send the result.

    Args:
        channel: To the worker, which writes the ledger's row when it is told that the test set is about to be opened.
        payload: ``trained`` (``cfg``, ``folder`` and ``epochs`` each), ``kept`` (which of them), ``folder``,
            ``objectives``, ``directions``, ``threads``.
    """
    control = _Control(channel)
    from dlsearch.tracking.journal import Journal
    from dlsearch.train.run import FitResult, Interrupted, Run
    from dlsearch.train.score import Trained, score

    _threads(payload["threads"])
    folder = Path(payload["folder"])
    trained = [Trained(OmegaConf.create(e["cfg"]), Path(e["folder"]), e["epochs"]) for e in payload["trained"]]
    run = Run(
        folder=folder,
        journal=Journal(Path(os.devnull)),
        objectives=payload["objectives"],
        directions=payload["directions"],
        stop=control.stop,
        unseal=control.unseal,
    )
    try:
        result = FitResult("complete", test=score(trained, payload["kept"], run))
    except Interrupted:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        result = FitResult("failed", "exception", _note(error, folder))
    channel.send({"type": "done", "result": result.to_json()})


def preflight(channel: Channel, payload: dict[str, Any]) -> None:
    """Check configs before anything is written: build each on the meta device, prepare its data, describe both.

    Args:
        channel: To the driver; receives ``{"data", "model"}`` or ``{"error": [key, expected, hint]}``.
        payload: ``configs``: plain configs, the base first; ``weights``: where those lie that they begin with;
            ``objectives`` and ``directions``.
    """
    try:
        found: dict[str, Any] = {}
        goals = payload["objectives"], payload["directions"]
        for config in payload["configs"]:
            described = check_built(OmegaConf.create(config), *goals, weights=payload["weights"])
            for key in ("weights", "files"):
                described[key] = {**described.get(key, {}), **found.get(key, {})}
            found = {**described, **found, "weights": described["weights"], "files": described["files"]}
        channel.send(found)
    except ConfigError as error:
        channel.send({"error": [error.key, error.expected, error.hint]})
    except Exception as error:
        traceback.print_exc()
        line = (str(error).splitlines() or [""])[0]
        channel.send({"error": ["config", f"{type(error).__name__}: {line}", ""]})


def check_built(
    cfg: DictConfig,
    objectives: list[str],
    directions: list[str],
    *,
    weights: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Build the config on the meta device, look at what it begins with, and prepare its data; describes all.

    Args:
        cfg: The config.
        objectives: Metrics.
        directions: ``maximize`` or ``minimize``, for each.
        weights: Where the sources of ``transfer.weights`` lie, as :func:`dlsearch.search.transfers.find` says it.

    Returns:
        ``data`` and ``model``; where something is transferred, also ``weights`` and ``files``, by source.

    Raises:
        ConfigError: Something cannot be built, or the data are not there.
    """
    import torch

    from dlsearch.tracking.journal import Journal
    from dlsearch.train.fit import (
        build_callbacks,
        build_data,
        build_task,
        build_trainer,
        check_optimizer,
        check_refit,
    )
    from dlsearch.train.run import Run

    with torch.device("meta"):
        task = build_task(cfg)
    moved = _check_transfer(cfg, task, weights or {})
    check_optimizer(cfg)
    data = build_data(cfg)
    if OmegaConf.select(cfg, "study.confirm.refit"):
        check_refit(data)
    run = Run(Path("/nonexistent"), Journal(Path(os.devnull)), objectives, directions)
    build_trainer(cfg, run, build_callbacks(cfg, run))
    try:
        data.prepare_data()
    except ConfigError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError("data", line, "paths.data or DLSEARCH_DATA names where data sets lie") from error
    described = data.describe() if hasattr(data, "describe") else {}
    return {"data": described, "model": _describe_model(cfg, task), **moved}


def _check_transfer(cfg: DictConfig, task: Any, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``weights`` and ``files`` of the config's source, if it has one."""
    from dlsearch.train import transfer
    from dlsearch.train.weights import published

    name = OmegaConf.select(cfg, "transfer.weights")
    if name is None:
        return {}
    at = sources[name]
    path = Path(at["path"]) if "path" in at else published(at["torchvision"], Path(at["folder"]))
    return {"weights": {name: transfer.check(cfg, task, path)}, "files": {name: str(path)}}


def _describe_model(cfg: DictConfig, task: Any) -> dict[str, Any]:
    n_params = sum(p.numel() for p in task.parameters() if p.requires_grad)
    net, shape = getattr(task, "net", None), OmegaConf.select(cfg, "data.shape")
    if net is None or shape is None:
        return {"n_params": n_params}
    from dlsearch.train.describe import summary

    try:
        return {**summary(net, tuple(shape)), "n_params": n_params}
    except (RuntimeError, ValueError, TypeError, NotImplementedError):  # a net that the meta device cannot run
        return {"n_params": n_params}
