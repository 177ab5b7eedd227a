"""What runs in a forked child.

One training, the scoring of a winner, or the check before a study is opened.

The child knows no database and no MLflow. It appends rows to its journal and talks JSON with the
worker over a socket; when the worker is gone, so is the child.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from dlsearch.core.errors import ConfigError
from dlsearch.core.failure_cause import FailureCause, find_cause
from dlsearch.core.files.disk import is_full
from dlsearch.core.files.regular import write_text
from dlsearch.core.masking import mask_known_in, mask_text
from dlsearch.core.packages import hint_of_missing
from dlsearch.core.text import (
    clean_line,
    clean_value,
    line_of_error,
    text_of,
    traceback_of,
)
from dlsearch.execution.messages import (
    Began,
    Done,
    PreflightPayload,
    Report,
    ScoringPayload,
    TrialPayload,
    Unseal,
)
from dlsearch.execution.outcome import INTERRUPTED
from dlsearch.execution.processes.signals import hears_hangups
from dlsearch.study.states import AttemptState, FailureReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.core.types import JsonObject
    from dlsearch.execution.messages import TrainedPayload
    from dlsearch.execution.processes.confinement import SealRecord
    from dlsearch.execution.processes.forkserver import Channel
    from dlsearch.execution.scoring import Trained
    from dlsearch.tracking.journal import Journal
    from dlsearch.training.run import FitResult, StartNote


class _Control:
    """The child's end of the conversation, and whether it was asked to stop."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stopping = False
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        signal.signal(signal.SIGTERM, self._on_stop)
        if hears_hangups():
            signal.signal(signal.SIGHUP, self._on_stop)

    def _on_stop(self, *_: Any) -> None:
        self.stopping = True

    def stop(self) -> bool:
        """Whether to stop.

        A closed socket means that the worker died, and nobody waits for this result.
        """
        if self._poll.poll(0):
            os._exit(INTERRUPTED)
        return self.stopping

    def ask(self, message: Report | Unseal) -> JsonObject:
        """Send and wait for the answer."""
        try:
            self.channel.send(message.to_json())
            answer = self.channel.receive()
        except OSError:
            answer = None
        if answer is None:
            os._exit(INTERRUPTED)
        return answer

    def report(
        self,
        epoch: int,
        step: int,
        metrics: Mapping[str, float],
    ) -> bool:
        """Tell the worker about an epoch."""
        answer = self.ask(Report(epoch, step, metrics))
        return bool(answer["prune"])

    def began(self, what: StartNote) -> None:
        """Tell the worker what is unusual about this attempt, if anything is."""
        began = Began(**what)
        if began.resumption is not None or began.micro_batches > 1:
            with contextlib.suppress(OSError):  # that it is gone is noticed at the first batch
                self.channel.send(began.to_json())

    def unseal(self) -> None:
        """Have the worker write the ledger's row."""
        self.ask(Unseal())


def run_trial(channel: Channel, payload: JsonObject) -> None:
    """Train one config and send the result.

    Args:
        channel: To the worker.
        payload: A :class:`dlsearch.execution.messages.TrialPayload`.
    """
    given = TrialPayload.from_json(payload)
    control = _Control(channel)
    from dlsearch.core.machine.threads import limit_threads
    from dlsearch.execution.processes.confinement import hold_for
    from dlsearch.tracking.journal import Journal
    from dlsearch.training import inputs
    from dlsearch.training.fit import fit
    from dlsearch.training.run import Interrupted, Run
    from dlsearch.training.test_guard import breaches

    limit_threads(given.threads)
    cfg = OmegaConf.create(given.cfg)
    journal = Journal(Path(given.journal))
    run = Run(
        folder=Path(given.folder),
        journal=journal,
        objectives=given.objectives,
        directions=given.directions,
        report=control.report,
        stop=control.stop,
        refit_epochs=given.epochs,
        system_metrics_s=cfg.tracking.system_metrics_s,
        micro_batches=given.micro_batches,
        began=control.began,
        prunes_at_end=given.prunes_at_end,
        resume_key=given.resume_key,
    )
    packages = given.cfg.get("allow_targets") or []
    met = None
    sealed: SealRecord | None = None
    try:
        sealed = hold_for(given.cfg)
        met = inputs.met(payload)
        result = fit(cfg, run)
    except Interrupted:
        _leave(journal)
    except SystemExit as end:
        if control.stopping:  # between epochs Lightning itself reacts to the signal first
            _leave(journal)
        # the user's code called it: it would do so again
        result = _failed(end, run.folder, journal, packages)
    except Exception as error:
        result = _failed(error, run.folder, journal, packages)
    result.inputs = met
    result.seal = None if sealed is None else dict(sealed)
    result.breaches = breaches(run.folder)
    with contextlib.suppress(OSError):  # rows for which there was no space
        journal.close()
    _send_result(channel, result)


def _send_result(channel: Channel, result: FitResult) -> None:
    """Send what a training came to, as plain JSON.

    A user's module and data put into it what they like.
    """
    done = Done(mask_known_in(clean_value(result.to_json())))
    channel.send(done.to_json())


def _leave(journal: Journal) -> NoReturn:
    """End as asked."""
    with contextlib.suppress(OSError):  # rows for which there was no space
        journal.close()
    raise SystemExit(INTERRUPTED) from None


def _failed(
    error: BaseException,
    folder: Path,
    journal: Journal,
    packages: Sequence[str],
) -> FitResult:
    from dlsearch.training.failures import is_out_of_memory
    from dlsearch.training.run import FitResult

    try:
        reason = None
        if is_out_of_memory(error):  # not in a step: in parts it would be the same
            reason = FailureReason.OOM
        elif is_full(error):
            reason = FailureReason.DISK
        if reason is not None:
            _print_traceback(error)
            line = clean_line(mask_text(_first_line(error)))
            return FitResult(AttemptState.FAILED, reason, line)
        cause = _note(error, folder, packages)
        failed = FitResult(
            AttemptState.FAILED,
            FailureReason.EXCEPTION,
            cause.line,
            cause=cause,
        )
        journal.artifact(folder / "error" / "traceback.txt", "error")
    except OSError as full:  # no space for the traceback
        reason = FailureReason.DISK if is_full(full) else FailureReason.EXCEPTION
        return FitResult(AttemptState.FAILED, reason, line_of_error(error))
    return failed


def _first_line(error: BaseException) -> str:
    return (text_of(error).splitlines() or [""])[0] or type(error).__name__


def _note(
    error: BaseException,
    folder: Path,
    packages: Sequence[str] = (),
) -> FailureCause:
    """Keep the traceback in the folder; the first cause, with the place in the user's code."""
    failed = folder / "error"
    failed.mkdir(parents=True, exist_ok=True)
    write_text(
        failed / "traceback.txt",
        traceback_of(error),
        errors="backslashreplace",
    )
    _print_traceback(error)
    from dlsearch.execution.processes.confinement import is_held_by_kernel

    return find_cause(error, packages, is_sealed=is_held_by_kernel())


def _print_traceback(error: BaseException) -> None:
    """Put the traceback into the attempt's log."""
    sys.stderr.write(traceback_of(error))


def run_test(channel: Channel, payload: JsonObject) -> None:
    """Score the trainings of the configuration that won on the test set, and send the result.

    Args:
        channel: To the worker, which writes the ledger's row when it hears that the test set is
            about to be opened.
        payload: A :class:`dlsearch.execution.messages.ScoringPayload`.
    """
    given = ScoringPayload.from_json(payload)
    control = _Control(channel)
    from dlsearch.core.machine.threads import limit_threads
    from dlsearch.execution.scoring import score
    from dlsearch.tracking.journal import Journal
    from dlsearch.training.run import FitResult, Interrupted, Run

    limit_threads(given.threads)
    folder = Path(given.folder)
    trained = [_trained(each, given.objectives[0]) for each in given.trained]
    run = Run(
        folder=folder,
        journal=Journal(Path(os.devnull)),
        objectives=given.objectives,
        directions=given.directions,
        stop=control.stop,
        unseal=control.unseal,
        resume_key=given.resume_key,
    )
    try:
        report = score(trained, given.kept, run)
        result = FitResult(AttemptState.COMPLETE, test=report)
    except Interrupted:
        raise SystemExit(INTERRUPTED) from None
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and control.stopping:
            raise SystemExit(INTERRUPTED) from None
        result = FitResult(
            AttemptState.FAILED,
            FailureReason.EXCEPTION,
            _note(error, folder).line,
        )
    _send_result(channel, result)


def _trained(each: TrainedPayload, objective: str) -> Trained:
    """A training that is to be scored, from its part of the payload."""
    from dlsearch.execution.scoring import Trained
    from dlsearch.training.inputs import expected_of

    expected = expected_of(objective, vars(each), each.cfg)
    return Trained(
        OmegaConf.create(each.cfg),
        Path(each.folder),
        each.epochs,
        each.micro_batches or 1,
        expected,
    )


def preflight(channel: Channel, payload: JsonObject) -> None:
    """Check configs before anything is written.

    Build each on the meta device, prepare its data, describe both; then rehearse, where asked. What
    is built, and what trains, does so in a process that has given up the test sets; the data are
    prepared in another one.

    Args:
        channel: To the driver; receives ``{"data", "model", "seal"}`` or ``{"error": [key,
            expected, hint]}``, and what the rehearsal shows.
        payload: A :class:`dlsearch.execution.messages.PreflightPayload`.
    """
    from dlsearch.execution.processes.confinement import run_apart

    built = run_apart(partial(_in_one_line, _check_models, payload))
    if "error" not in built:
        built |= run_apart(partial(_in_one_line, _prepare_data, payload))
    channel.send(built)
    rehearsal = payload.get("rehearsal")
    if "error" in built or rehearsal is None:
        return
    refused = _in_one_line(_give_up_test_sets, payload)
    if "error" in refused:
        channel.send(refused)
    else:
        _rehearse(channel, rehearsal)


def _give_up_test_sets(given: PreflightPayload) -> JsonObject:
    """Have this process, which is to train, reach no test set."""
    from dlsearch.execution.processes.confinement import seal_process

    seal_process([OmegaConf.create(config) for config in given.configs], prepared=False)
    return {}


def _in_one_line(
    check: Callable[[PreflightPayload], JsonObject], payload: JsonObject
) -> JsonObject:
    """What a check found, or its ``error``."""
    try:
        return check(PreflightPayload.from_json(payload))
    except ConfigError as error:
        hint = hint_of_missing(error) or error.hint
        return {"error": [error.key, error.expected, hint]}
    except (Exception, SystemExit) as error:
        _print_traceback(error)
        return {"error": ["config", line_of_error(error), ""]}


def _check_models(given: PreflightPayload) -> JsonObject:
    """Build everything but the data's files; of the model the base's is described."""
    from dlsearch.execution.processes.confinement import seal_process

    configs = [OmegaConf.create(config) for config in given.configs]
    found: JsonObject = {"seal": seal_process(configs, prepared=False)}
    for config in configs:
        described = _check_model(
            config,
            given.objectives,
            given.directions,
            given.weights,
        )
        moved = {
            key: {**described.get(key, {}), **found.get(key, {})} for key in ("weights", "files")
        }
        found = {**described, **found, **moved}
    found["model"] = mask_known_in(found["model"])
    return found


def _prepare_data(given: PreflightPayload) -> JsonObject:
    """Prepare the data of each config; the base's are described."""
    described = [_describe_data(OmegaConf.create(config)) for config in given.configs]
    return {"data": mask_known_in(described[0])}


def _rehearse(channel: Channel, rehearsal: JsonObject) -> None:
    from dlsearch.execution.rehearsal.messages import RehearsalPayload
    from dlsearch.execution.rehearsal.trying import try_all

    try_all(channel, RehearsalPayload.from_json(rehearsal))


def check_built(
    cfg: DictConfig,
    objectives: list[str],
    directions: list[str],
    *,
    weights: Mapping[str, JsonObject] | None = None,
) -> JsonObject:
    """Build the config on the meta device, look at what it begins with, and prepare its data.

    Describes all.

    Args:
        cfg: The config.
        objectives: Metrics.
        directions: ``maximize`` or ``minimize``, for each.
        weights: Where the sources of ``transfer.weights`` lie; see
            :func:`dlsearch.planning.transfer_sources.find`.

    Returns:
        ``data`` and ``model``; where something is transferred, also ``weights`` and ``files``, by
        source.

    Raises:
        ConfigError: Something cannot be built, or the data are not there.
    """
    model = _check_model(
        cfg,
        objectives,
        directions,
        weights or {},
    )
    return {"data": _describe_data(cfg), **model}


def _check_model(
    cfg: DictConfig,
    objectives: list[str],
    directions: list[str],
    weights: Mapping[str, JsonObject],
) -> JsonObject:
    """``model``, and ``weights`` and ``files`` where something is transferred.

    Raises:
        ConfigError: Something cannot be built.
    """
    from dlsearch.tracking.journal import Journal
    from dlsearch.training.building import (
        build_anywhere,
        build_callbacks,
        build_data,
        build_trainer,
        check_optimizer,
        check_refit,
    )
    from dlsearch.training.evaluation.kinds import kind_of
    from dlsearch.training.progress import check_length, unit_of
    from dlsearch.training.run import Run

    task = build_anywhere(cfg)
    moved = _check_transfer(cfg, task, weights)
    check_optimizer(cfg)
    check_length(cfg, task)
    data = build_data(cfg)
    if OmegaConf.select(cfg, "study.confirm.refit"):
        check_refit(data)
    run = Run(
        Path("/nonexistent"),
        Journal(Path(os.devnull)),
        objectives,
        directions,
    )
    build_trainer(cfg, run, build_callbacks(cfg, run))
    model = _describe_model(cfg, task)
    model |= {"kind": kind_of(task), "progress_unit": unit_of(task, cfg.trainer)}
    return {"model": model, **moved}


def _describe_data(cfg: DictConfig) -> JsonObject:
    """Prepare the data, and describe them where their module can.

    Raises:
        ConfigError: The data are not there.
    """
    import pytorch_lightning as pl

    from dlsearch.training.building import build_anywhere, build_data

    data: Any = build_data(cfg)
    if data is None:
        data = build_anywhere(cfg)
    try:
        data.prepare_data()
    except ConfigError:
        raise
    except (ValueError, OSError, RuntimeError) as error:
        raise ConfigError(
            "data",
            clean_line(_first_line(error)),
            "paths.data or DLSEARCH_DATA names where data sets lie",
        ) from error
    has_words = isinstance(data, pl.LightningDataModule) and hasattr(data, "describe")
    return data.describe() if has_words else {}


def _check_transfer(
    cfg: DictConfig,
    task: Any,
    sources: Mapping[str, JsonObject],
) -> JsonObject:
    """``weights`` and ``files`` of the config's source, if it has one."""
    from dlsearch.training import transfer
    from dlsearch.training.state.weights import published

    name = OmegaConf.select(cfg, "transfer.weights")
    if name is None:
        return {}
    at = sources[name]
    path = Path(at["path"]) if "path" in at else published(at["torchvision"], Path(at["folder"]))
    return {
        "weights": {name: transfer.check(cfg, task, path)},
        "files": {name: str(path)},
    }


def _describe_model(cfg: DictConfig, task: Any) -> JsonObject:
    from dlsearch.training.building import count_parameters

    n_params = count_parameters(task).numbers
    net = getattr(task, "net", None)
    shape = OmegaConf.select(cfg, "data.shape")
    if net is None or shape is None:
        return {"n_params": n_params}
    from dlsearch.inspection.describe import summary

    try:
        return {**summary(net, tuple(shape)), "n_params": n_params}
    except (
        RuntimeError,
        ValueError,
        TypeError,
        NotImplementedError,
    ):  # a net that the meta device cannot run
        return {"n_params": n_params}
