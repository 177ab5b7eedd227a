"""Training recorded trials again: which inputs differ, and whether the results are bit-equal.

A trial runs again exactly as a worker ran it, in a child of a warm fork server, from the study's
document, its params and its seed; but in a temporary folder with a cache of its own, so that the
data are decoded and split again. A pruned trial is stopped where it was stopped, whatever a pruner
would say. Nothing of the study is written.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.config.build import check_groups
from dlsearch.core import permission, provenance
from dlsearch.core.errors import ConfigError
from dlsearch.core.text import clean_line, clean_value, text_of
from dlsearch.execution.forkserver import ForkServer
from dlsearch.execution.preload import preload
from dlsearch.execution.resources.slots import Slot, cores, gpus
from dlsearch.study.trial_config import trial_config
from dlsearch.training.inputs import Difference, differences, machine, tampered

if TYPE_CHECKING:
    from dlsearch.execution.forkserver import Channel

#: What must be the same; the rest of a result (times) may not be.
COMPARED = (
    "state",
    "reason",
    "values",
    "epochs",
    "best_epoch",
    "state_sha256",
    "metrics_sha256",
    "split_sha256",
)


@dataclass
class Verdict:
    """What came of one trial.

    Args:
        number: The trial.
        state: As recorded.
        resumed: Whether it had gone on from a checkpoint.
        verdict: ``equal``, ``different``, or ``refused`` (not trained: an input differs).
        inputs: Inputs that differ.
        differs: What came out otherwise: name, recorded, again.
        again: The digests of the repetition.
        seconds: Of the repetition.
    """

    number: int
    state: str
    resumed: bool
    verdict: str = "refused"
    inputs: list[Difference] = field(default_factory=list)
    differs: list[dict[str, Any]] = field(default_factory=list)
    again: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**vars(self), "inputs": [each.to_json() for each in self.inputs]}


def repeatable(trial: Mapping[str, Any]) -> str | None:
    """Why a trial of the record cannot be trained again and compared; None where it can."""
    if trial["duplicate_of"] is not None:
        return f"took over the result of trial {trial['duplicate_of']}: verify that one"
    if trial["state"] in ("running", "waiting"):
        return f"is {trial['state']}"
    if trial["state"] == "failed" and trial["reason"] not in ("nan", "inf"):
        return f"failed({trial['reason']}), which is no result to compare with"
    if trial["state_sha256"] is None or trial["inputs"] is None:
        return "has no digests in its record: an older dlsearch ran it"
    return None


def resumed(trial: Mapping[str, Any]) -> bool:
    """Whether the trial went on from a checkpoint."""
    return trial["resumed_epoch"] is not None


def sample(trials: Sequence[Mapping[str, Any]], size: int, seed: int) -> list[int]:
    """Numbers of the trials to verify; where there are, a resumed, pruned, failed, complete one.

    Args:
        trials: The record's.
        size: How many; all where there are fewer.
        seed: Of the draw.
    """
    pool = [t for t in trials if repeatable(t) is None]
    order = random.Random(seed).sample(pool, len(pool))
    kinds = [next((t for t in order if resumed(t)), None)]
    kinds += [
        next((t for t in order if t["state"] == state), None)
        for state in ("pruned", "failed", "complete")
    ]
    first = {t["number"]: None for t in kinds if t is not None}
    chosen = [*first, *(t["number"] for t in order if t["number"] not in first)]
    return sorted(chosen[:size])


class Again:
    """Trains trials of one study again; a context manager around its processes and folders.

    Args:
        document: The study's document, or what of it a report carries: ``config``, ``options``,
            ``provenance``, ``sha``, ``objectives``, ``directions``, ``allow_targets``.
        data: This machine's data root.
        weights: Where this machine keeps what studies transfer.
        threads: CPU threads in place of those recorded; a difference, where it is another number.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        data: Path,
        weights: Path | None = None,
        threads: int | None = None,
    ) -> None:
        self.document = document
        self._threads = threads
        self._data = data
        self._weights = weights

    def __enter__(self) -> Again:
        """Start the fork server."""
        self._temporary = tempfile.TemporaryDirectory(prefix="dlsearch-verify-")
        self._folder = Path(self._temporary.name)
        options = self.document.get("options", {}).values()
        check_groups(self.document["config"], self.document.get("options"))
        permission.require(self.document["allow_targets"])
        configs = [
            self.document["config"],
            *({"model": option} for each in options for option in each.values()),
        ]
        self._server = ForkServer.start(preload(configs))
        self._here = {
            **provenance.origin(tuple(self.document["allow_targets"])),
            **provenance.present(self.document["allow_targets"]),
        }
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes, remove all folders."""
        self._server.stop()
        self._temporary.cleanup()

    def config(self, trial: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """The trial's config, with this machine's places."""
        paths = {"store": self._folder, "data": self._data, "cache": self._folder / "cache"}
        paths["weights"] = self._weights or self._folder / "weights"
        cfg = trial_config(
            self.document,
            trial["params"],
            seed=seed,
            paths={key: str(path) for key, path in paths.items()},
        )
        cfg["tracking"] = {**cfg.get("tracking", {}), "system_metrics_s": None}
        return cfg

    def look(self, trial: Mapping[str, Any]) -> list[Difference]:
        """The inputs that differ, known before anything is trained; prepares the data.

        Raises:
            ConfigError: The data are not there, or cannot be split as recorded.
        """
        cfg = self.config(trial, trial["seed"])
        found = tampered(self.document, trial, cfg)
        if found:
            return found
        channel = self._child("dlsearch.verification.retrain:probe", {"cfg": cfg}, trial, None)
        answer = channel.receive()
        channel.close()
        if answer is None:
            raise RuntimeError("the process that looked at the inputs died; its message is above")
        if "error" in answer:
            raise ConfigError(*answer["error"])
        threads = self._threads or trial["inputs"]["threads"]
        return differences(
            self.document["provenance"], trial, {**self._here, **answer, "threads": threads}
        )

    def train(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        """Train it again; returns the result, with ``intermediate`` as the record has it.

        Raises:
            RuntimeError: Its process died.
        """
        folder = self._folder / f"{trial['number']:05d}"
        folder.mkdir()
        payload = {
            "cfg": self.config(trial, trial["seed"]),
            "folder": str(folder),
            "journal": str(folder / "journal.jsonl"),
            "objectives": self.document["objectives"],
            "directions": self.document["directions"],
            "threads": self._threads or trial["inputs"]["threads"],
            "epochs": None,
            "params": trial["params"],
            "micro_batches": trial.get("micro_batches") or 1,
            "origin": provenance.origin(tuple(self.document["allow_targets"])),
        }
        channel = self._child(
            "dlsearch.execution.trial_main:run_trial", payload, trial, folder / "log.txt"
        )
        curve: list[list[Any]] = []
        objective = self.document["objectives"][0]
        try:
            while (message := channel.receive()) is not None:
                if message["type"] == "done":
                    return {**message["result"], "intermediate": curve}
                if message["type"] == "began":
                    continue
                epoch = message["epoch"]
                curve.append([epoch, message["metrics"].get(objective)])
                stop = trial["state"] == "pruned" and epoch + 1 >= trial["epochs"]
                channel.send({"prune": stop})
        finally:
            channel.close()
        log = (
            (folder / "log.txt").read_text(errors="replace").strip().splitlines()
            if folder.is_dir()
            else []
        )
        raise RuntimeError(
            f"the process of trial {trial['number']} died: {log[-1] if log else 'it said nothing'}"
        )

    def _child(
        self,
        target: str,
        payload: dict[str, Any],
        trial: Mapping[str, Any],
        log: Path | None,
    ) -> Channel:
        devices = gpus() if trial["inputs"]["device"] != "cpu" else []
        slot = Slot(
            0, devices[0] if devices else "cpu:0", self._threads or trial["inputs"]["threads"]
        )
        child = self._server.spawn(
            target,
            payload,
            env=slot.env,
            log=log,
        )
        return child.forget_status()  # the end of the channel says as much

    def verify(self, trial: Mapping[str, Any], *, anyway: bool = False) -> Verdict:
        """Look, train, compare."""
        found = Verdict(trial["number"], trial["state"], resumed(trial), inputs=self.look(trial))
        if found.inputs and not anyway:
            return found
        result = self.train(trial)
        found.differs = compare(trial, result)
        found.seconds = result["seconds"]
        found.again = {key: result[key] for key in COMPARED}
        found.verdict = "different" if found.differs else "equal"
        return found

    def verify_all(
        self,
        trials: Sequence[Mapping[str, Any]],
        *,
        anyway: bool,
        jobs: int | None,
        say: Any,
    ) -> None:
        """Verify several, some at a time.

        Args:
            trials: Rows of the record.
            anyway: Train although inputs differ.
            jobs: How many at a time; by default what the cores and the trials' threads allow, one
                on a GPU.
            say: Called with each verdict, in the order of `trials`.
        """
        if jobs is None:
            on_gpu = any(t["inputs"]["device"] != "cpu" for t in trials)
            jobs = 1 if on_gpu else max(1, cores() // max(t["inputs"]["threads"] for t in trials))
        # The data are decoded by the first, for all of them.
        first = self.look(trials[0])
        if first and not anyway:
            say(Verdict(trials[0]["number"], trials[0]["state"], resumed(trials[0]), inputs=first))
            trials = trials[1:]
        pool = ThreadPoolExecutor(jobs)
        try:
            for verdict in pool.map(lambda trial: self.verify(trial, anyway=anyway), trials):
                say(verdict)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def compare(trial: Mapping[str, Any], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a result differs from the record, as ``what``, ``recorded``, ``again``.

    Where the objective began to differ comes last.
    """
    result = json.loads(json.dumps(result))
    found = [
        {"what": key, "recorded": trial[key], "again": result[key]}
        for key in COMPARED
        if trial[key] != result[key]
    ]
    if found:
        then = {epoch: value for epoch, value in trial["intermediate"]}  # noqa: C416  # pairs are lists
        for epoch, value in result["intermediate"]:
            if epoch in then and then[epoch] != value:
                found.append(
                    {
                        "what": f"objective after epoch {epoch}",
                        "recorded": then[epoch],
                        "again": value,
                    }
                )
                break
    return found


def probe(channel: Channel, payload: dict[str, Any]) -> None:
    """In a child: what this machine is, and what the data are today.

    Args:
        channel: To the parent; receives ``capability``, ``device``, ``deterministic``, ``weights``,
            ``splits``, or ``error``.
        payload: ``cfg``.
    """
    from dlsearch.training.building import build_data
    from dlsearch.training.transfer import present

    try:
        cfg = OmegaConf.create(payload["cfg"])
        data = build_data(cfg)
        if data is not None:
            data.prepare_data()
        described = data.describe() if data is not None and hasattr(data, "describe") else {}
        splits = clean_value(described.get("digests"))  # as the trial's own process sent them
        channel.send({**machine(payload["cfg"]), "weights": present(cfg), "splits": splits})
    except ConfigError as error:
        channel.send({"error": [error.key, error.expected, error.hint]})
    except (ValueError, OSError, RuntimeError) as error:
        line = clean_line((text_of(error).splitlines() or [""])[0] or type(error).__name__)
        channel.send(
            {"error": ["data", line, "paths.data or DLSEARCH_DATA names where data sets lie"]}
        )
