"""The scoring of an ensemble, in a process of its own: that reads back whole checkpoints.

The command's process starts it, writes the ledger's row when it is asked to, and takes the result.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.resume_key import resume_key
from dlsearch.core.text import clean_value, line_of_error, traceback_of
from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.processes.preload import preload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dlsearch.core.types import ConfigTree, JsonObject
    from dlsearch.execution.processes.forkserver import Channel
    from dlsearch.training.ensemble import EnsembleReport, Trained

_TARGET = "dlsearch.execution.ensemble_scoring:run_ensemble"


@dataclass(frozen=True)
class EnsembleMember:
    """A trained net, as it is sent.

    Args:
        name: What it is called in messages.
        cfg: What was trained.
        checkpoint: Its weights.
        result: What its training said at its end.
    """

    name: str
    cfg: ConfigTree
    checkpoint: str
    result: JsonObject


@dataclass(frozen=True)
class EnsemblePayload:
    """What the process is given.

    Args:
        members: At least two.
        single: The net that they are compared with.
        by: ``probabilities`` or ``logits``.
        objective: The study's first.
        folder: Where tries to reach for the test set are written down.
        scores: Whether the test set is opened.
        resume_key: This user's, by which its own checkpoints are known.
    """

    members: list[EnsembleMember]
    single: EnsembleMember
    by: str
    objective: str
    folder: str
    scores: bool
    resume_key: str

    @classmethod
    def from_json(cls, found: JsonObject) -> EnsemblePayload:
        """The payload that arrived."""
        members = [EnsembleMember(**each) for each in found["members"]]
        single = EnsembleMember(**found["single"])
        return cls(**{**found, "members": members, "single": single})

    def to_json(self) -> JsonObject:
        """As it is sent."""
        members = [dict(vars(each)) for each in self.members]
        return {**vars(self), "members": members, "single": dict(vars(self.single))}


def score_ensemble(
    members: Sequence[EnsembleMember],
    single: EnsembleMember,
    by: str,
    objective: str,
    folder: Path,
    unseal: Callable[[Mapping[str, Any]], None] | None,
) -> JsonObject:
    """Weigh nets on validation and, where `unseal` is given, score them on the test set.

    Args:
        members: At least two.
        single: The net that they are compared with.
        by: ``probabilities`` or ``logits``.
        objective: The study's first.
        folder: Where tries to reach for the test set are written down.
        unseal: Called with what was found, before the test set is opened.

    Raises:
        ConfigError: See :class:`dlsearch.training.ensemble.Ensemble`; or the process died.
    """
    payload = EnsemblePayload(
        list(members),
        single,
        by,
        objective,
        str(folder),
        unseal is not None,
        resume_key(),
    )
    configs = [each.cfg for each in (*members, single)]
    server = ForkServer.start([*preload(configs), "dlsearch.training.ensemble"])
    try:
        child = server.spawn(
            _TARGET,
            payload.to_json(),
            env={},
            log=None,
        )
        channel = child.forget_status()  # the end of the channel says as much
        try:
            return _converse(channel, unseal)
        finally:
            channel.close()
    finally:
        server.stop()


def _converse(
    channel: Channel,
    unseal: Callable[[Mapping[str, Any]], None] | None,
) -> JsonObject:
    """The result that the process sends last."""
    while (message := channel.receive()) is not None:
        if "error" in message:
            raise ConfigError(*message["error"])
        if "report" in message:
            report: JsonObject = message["report"]
            return report
        if unseal is not None:
            unseal(message["unseal"])
            channel.send({})
    raise ConfigError("NAME", "the process that scores the ensemble died; its message is above")


def run_ensemble(channel: Channel, payload: JsonObject) -> None:
    """In the process: score, and send what was found.

    Args:
        channel: To the command.
        payload: An :class:`EnsemblePayload`.
    """
    from dlsearch.training.ensemble import Ensemble

    given = EnsemblePayload.from_json(payload)

    def unseal(report: EnsembleReport) -> None:
        channel.send({"unseal": clean_value(dict(report))})
        if channel.receive() is None:
            raise SystemExit(1)

    name = given.objective.removeprefix("val/")
    if name not in ("accuracy", "f1", "loss"):
        name = "accuracy"
    try:
        members = [_trained(each, given) for each in given.members]
        report = Ensemble(members, given.by, name).run(
            _trained(given.single, given),
            Path(given.folder),
            unseal if given.scores else None,
        )
        channel.send({"report": clean_value(dict(report))})
    except ConfigError as error:
        channel.send({"error": [error.key, error.expected, error.hint]})
    except Exception as error:
        if os.environ.get("DLSEARCH_DEBUG"):  # else the one line says it
            sys.stderr.write(traceback_of(error))
        channel.send({"error": ["NAME", line_of_error(error), ""]})


def _trained(each: EnsembleMember, given: EnsemblePayload) -> Trained:
    from omegaconf import OmegaConf

    from dlsearch.training.ensemble import Trained
    from dlsearch.training.inputs import expected_of

    expected = expected_of(given.objective, each.result, each.cfg)
    return Trained(
        each.name,
        OmegaConf.create(each.cfg),
        Path(each.checkpoint),
        expected,
        given.resume_key,
    )
