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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.config.build import check_groups
from dlsearch.core import permission, provenance
from dlsearch.core.errors import ConfigError
from dlsearch.core.text import clean_line, clean_value, text_of
from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.processes.preload import preload
from dlsearch.execution.resources.slots import Slot, cores, gpus
from dlsearch.study.states import FailureReason, RecordedTrialState
from dlsearch.study.trial_config import trial_config
from dlsearch.training.inputs import Difference, differences, machine, tampered

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree, JsonObject
    from dlsearch.execution.processes.forkserver import Channel

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
#: Failures that the training itself comes to, and comes to again.
_REPEATED_FAILURES = (FailureReason.NAN, FailureReason.INF)
_UNFINISHED = (RecordedTrialState.RUNNING, RecordedTrialState.WAITING)
#: States of which a sample has a trial each, where there is one.
_SAMPLED_STATES = (
    RecordedTrialState.PRUNED,
    RecordedTrialState.FAILED,
    RecordedTrialState.COMPLETE,
)
_CPU = "cpu"


@dataclass(frozen=True)
class DifferentValue:
    """A value that came out otherwise.

    Args:
        what: Its name.
        recorded: What the record says.
        again: What came out now.
    """

    what: str
    recorded: object
    again: object


@dataclass
class Verdict:
    """What came of one trial.

    Args:
        number: The trial.
        state: As recorded.
        resumed: Whether it had gone on from a checkpoint.
        verdict: ``equal``, ``different``, or ``refused`` (not trained: an input differs).
        inputs: Inputs that differ.
        differs: What came out otherwise.
        again: What is compared, of the repetition; empty where it was not trained.
        seconds: Of the repetition.
    """

    number: int
    state: str
    resumed: bool
    verdict: str = "refused"
    inputs: list[Difference] = field(default_factory=list)
    differs: list[DifferentValue] = field(default_factory=list)
    again: JsonObject = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        inputs = [each.to_json() for each in self.inputs]
        differs = [asdict(each) for each in self.differs]
        return {**vars(self), "inputs": inputs, "differs": differs}


# -- which trials ----------------------------------------------------------------------------------
def repeatable(trial: Mapping[str, Any]) -> str | None:
    """Why a trial of the record cannot be trained again and compared; None where it can."""
    state = trial["state"]
    reason = trial["reason"]
    if trial["duplicate_of"] is not None:
        return f"took over the result of trial {trial['duplicate_of']}: verify that one"
    if state in _UNFINISHED:
        return f"is {state}"
    if state == RecordedTrialState.FAILED and reason not in _REPEATED_FAILURES:
        return f"failed({reason}), which is no result to compare with"
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
    pool = [trial for trial in trials if repeatable(trial) is None]
    generator = random.Random(seed)
    order = generator.sample(pool, len(pool))
    chosen = list(dict.fromkeys(_iterate_sample(order)))  # each once
    return sorted(chosen[:size])


def _iterate_sample(order: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Numbers of trials in the order in which they are chosen: first one of each kind."""
    went_on = next(filter(resumed, order), None)
    if went_on is not None:
        yield went_on["number"]
    for state in _SAMPLED_STATES:
        of_state = (trial for trial in order if trial["state"] == state)
        first = next(of_state, None)
        if first is not None:
            yield first["number"]
    for trial in order:
        yield trial["number"]


# -- training again --------------------------------------------------------------------------------
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
        allowed = self.document["allow_targets"]
        check_groups(self.document["config"], self.document.get("options"))
        permission.require(allowed)
        self._server = ForkServer.start(preload(self._list_configs()))
        self._here = {**provenance.origin(tuple(allowed)), **provenance.present(allowed)}
        return self

    def _list_configs(self) -> list[ConfigTree]:
        """The study's config, and each option that is searched in place of a part of it."""
        configs = [self.document["config"]]
        for group in self.document.get("options", {}).values():
            configs += [{"model": option} for option in group.values()]
        return configs

    def __exit__(self, *_: object) -> None:
        """End all processes, remove all folders."""
        self._server.stop()
        self._temporary.cleanup()

    def config(self, trial: Mapping[str, Any], seed: int) -> ConfigTree:
        """The trial's config, with this machine's places."""
        paths = {
            "store": str(self._folder),
            "data": str(self._data),
            "cache": str(self._folder / "cache"),
            "weights": str(self._weights or self._folder / "weights"),
        }
        cfg = trial_config(
            self.document,
            trial["params"],
            seed=seed,
            paths=paths,
        )
        tracking = cfg.get("tracking", {})
        cfg["tracking"] = {**tracking, "system_metrics_s": None}
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
        channel = self._start_child(
            "dlsearch.verification.retrain:probe",
            {"cfg": cfg},
            trial,
            None,
        )
        answer = channel.receive()
        channel.close()
        if answer is None:
            raise RuntimeError("the process that looked at the inputs died; its message is above")
        if "error" in answer:
            raise ConfigError(*answer["error"])
        here = {**self._here, **answer, "threads": self._threads_of(trial)}
        return differences(self.document["provenance"], trial, here)

    def _threads_of(self, trial: Mapping[str, Any]) -> int:
        recorded: int = trial["inputs"]["threads"]
        return self._threads or recorded

    def train(self, trial: Mapping[str, Any]) -> JsonObject:
        """Train it again; returns the result, with ``intermediate`` as the record has it.

        Raises:
            RuntimeError: Its process died.
        """
        folder = self._folder / f"{trial['number']:05d}"
        folder.mkdir()
        log = folder / "log.txt"
        channel = self._start_child(
            "dlsearch.execution.trial_main:run_trial",
            self._describe_training(trial, folder),
            trial,
            log,
        )
        try:
            result = self._supervise(trial, channel)
        finally:
            channel.close()
        if result is None:
            raise RuntimeError(
                f"the process of trial {trial['number']} died: {_read_last_line(log)}"
            )
        return result

    def _describe_training(self, trial: Mapping[str, Any], folder: Path) -> JsonObject:
        """What the process of a trial is sent."""
        return {
            "cfg": self.config(trial, trial["seed"]),
            "folder": str(folder),
            "journal": str(folder / "journal.jsonl"),
            "objectives": self.document["objectives"],
            "directions": self.document["directions"],
            "threads": self._threads_of(trial),
            "epochs": None,
            "params": trial["params"],
            "micro_batches": trial.get("micro_batches") or 1,
            "origin": provenance.origin(tuple(self.document["allow_targets"])),
            "prunes_at_end": True,
        }

    def _supervise(self, trial: Mapping[str, Any], channel: Channel) -> JsonObject | None:
        """The result of a trial that trains, stopped where it was stopped; None where it died."""
        objective = self.document["objectives"][0]
        is_pruned = trial["state"] == RecordedTrialState.PRUNED
        curve: list[tuple[int, float | None]] = []
        while (message := channel.receive()) is not None:
            if message["type"] == "done":
                return {**message["result"], "intermediate": curve}
            if message["type"] == "began":
                continue
            epoch = message["epoch"]
            value = message["metrics"].get(objective)
            curve.append((epoch, value))
            channel.send({"prune": is_pruned and epoch + 1 >= trial["epochs"]})
        return None

    def _start_child(
        self,
        target: str,
        payload: JsonObject,
        trial: Mapping[str, Any],
        log: Path | None,
    ) -> Channel:
        """Start a process on the kind of device that the trial was trained on."""
        devices = gpus() if trial["inputs"]["device"] != _CPU else []
        device = devices[0] if devices else f"{_CPU}:0"
        slot = Slot(0, device, self._threads_of(trial))
        child = self._server.spawn(
            target,
            payload,
            env=slot.env,
            log=log,
        )
        return child.forget_status()  # the end of the channel says as much

    def verify(self, trial: Mapping[str, Any], *, anyway: bool = False) -> Verdict:
        """Look, train, compare."""
        found = _begin_verdict(trial, self.look(trial))
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
        say: Callable[[Verdict], object],
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
            jobs = _count_jobs(trials)
        # The data are decoded by the first, for all of them.
        first = self.look(trials[0])
        if first and not anyway:
            say(_begin_verdict(trials[0], first))
            trials = trials[1:]
        pool = ThreadPoolExecutor(jobs)
        try:
            for verdict in pool.map(lambda trial: self.verify(trial, anyway=anyway), trials):
                say(verdict)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin_verdict(trial: Mapping[str, Any], inputs: list[Difference]) -> Verdict:
    """The verdict on a trial that is not trained yet."""
    return Verdict(
        trial["number"],
        trial["state"],
        resumed(trial),
        inputs=inputs,
    )


def _count_jobs(trials: Sequence[Mapping[str, Any]]) -> int:
    """How many trials may run at a time: as the cores and their threads allow, one on a GPU."""
    most_threads = 1
    for trial in trials:
        inputs = trial["inputs"]
        if inputs["device"] != _CPU:
            return 1
        most_threads = max(most_threads, inputs["threads"])
    return max(1, cores() // most_threads)


def _read_last_line(log: Path) -> str:
    """The last line of a log that a process may have left."""
    if not log.is_file():
        return "it said nothing"
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def find_different_values(
    keys: Sequence[str],
    recorded: Mapping[str, Any],
    again: Mapping[str, Any],
) -> list[DifferentValue]:
    """The keys whose values differ."""
    differing = [key for key in keys if recorded[key] != again[key]]
    return [DifferentValue(key, recorded[key], again[key]) for key in differing]


def compare(trial: Mapping[str, Any], result: Mapping[str, Any]) -> list[DifferentValue]:
    """What of a result differs from the record.

    Where the objective began to differ comes last.
    """
    again = json.loads(json.dumps(result))
    found = find_different_values(COMPARED, trial, again)
    if not found:
        return []
    recorded = dict(trial["intermediate"])
    for epoch, value in again["intermediate"]:
        if epoch in recorded and recorded[epoch] != value:
            what = f"objective after epoch {epoch}"
            found.append(DifferentValue(what, recorded[epoch], value))
            break
    return found


def probe(channel: Channel, payload: JsonObject) -> None:
    """In a child: what this machine is, and what the data are today.

    Args:
        channel: To the parent; receives ``capability``, ``device``, ``deterministic``, ``weights``,
            ``splits``, or ``error``.
        payload: ``cfg``.
    """
    from dlsearch.training.building import build_data
    from dlsearch.training.transfer import present

    try:
        cfg = OmegaConf.create(dict(payload["cfg"]))
        data = build_data(cfg)
        if data is not None:
            data.prepare_data()
        described: JsonObject = {}
        if data is not None and hasattr(data, "describe"):
            described = data.describe()
        splits = clean_value(described.get("digests"))  # as the trial's own process sent them
        channel.send({**machine(payload["cfg"]), "weights": present(cfg), "splits": splits})
    except ConfigError as error:
        channel.send({"error": [error.key, error.expected, error.hint]})
    except (ValueError, OSError, RuntimeError) as error:
        lines = text_of(error).splitlines() or [""]
        line = clean_line(lines[0] or type(error).__name__)
        hint = "paths.data or DLSEARCH_DATA names where data sets lie"
        channel.send({"error": ["data", line, hint]})
