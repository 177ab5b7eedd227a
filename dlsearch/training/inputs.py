"""The inputs that a training depends on, as its own process found them.

Two such lists are compared here.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

from dlsearch.config.compose import resolve
from dlsearch.config.moved import with_former_names
from dlsearch.core.provenance import digest

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject, Params
    from dlsearch.training.state.restoring import Expected

#: Parts of the config that say where and how many, not what is trained.
_APART = (
    "name",
    "paths",
    "pruner",
    "sampler",
    "seed",
    "space",
    "study",
    "test",
    "tracking",
    "worker",
)


class MachineInputs(TypedDict):
    """What a machine and its settings add to a training.

    Args:
        capability: Instructions of the CPU that torch uses.
        device: ``cpu``, or the name of the GPU.
        deterministic: ``trainer.deterministic``.
    """

    capability: str
    device: str
    deterministic: bool | str | None


class TrainingInputs(MachineInputs):
    """What a training depends on; its record holds it.

    Args:
        config: Digest of what its config says about the training.
        params: Its searched values.
        seed: Its seed.
        threads: Of torch.
        env: Digest of Python, the machine and all packages.
        code: Digest of the code.
        weights: Digest of the weights that it began with, where it is a transfer.
        sha256: Digest of all this.
    """

    config: str
    params: Params
    seed: int
    threads: int
    env: str
    code: str
    weights: NotRequired[str | None]
    sha256: str


@dataclass(frozen=True)
class Difference:
    """One input that is not what it was.

    Args:
        input: Its name: a config key, ``seed``, ``threads``, ``capability``, ``device``, ``package
            torch``, ``code dlsearch/…``, ``weights``, ``data train``.
        recorded: What the record says.
        now: What is here.
    """

    input: str
    recorded: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.input}: recorded {_short_text(self.recorded)}, now {_short_text(self.now)}"

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return asdict(self)


def _short_text(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:12]}…"


def config_digest(cfg: Mapping[str, Any]) -> str:
    """SHA-256 of what a trial's config says about its training.

    Interpolations are unresolved, and the seed is left out.
    """
    about_training = {key: value for key, value in cfg.items() if key not in _APART}
    return digest(about_training)


def met(payload: Mapping[str, Any]) -> TrainingInputs:
    """The inputs of the training in this process: what was sent to it, and what it finds here.

    Args:
        payload: As :func:`dlsearch.execution.trial_main.run_trial` got it.
    """
    import torch

    cfg = payload["cfg"]
    found = {
        "config": config_digest(cfg),
        "params": payload["params"],
        "seed": cfg["seed"],
        "threads": torch.get_num_threads(),
        **machine(cfg),
        **payload["origin"],
    }
    transferred = cfg.get("transfer") or {}
    if transferred.get("weights") is not None:  # the training refuses any others
        found["weights"] = transferred["sha256"].get(transferred["weights"])
    found["sha256"] = digest(found)
    return cast("TrainingInputs", found)


def machine(cfg: Mapping[str, Any]) -> MachineInputs:
    """What this machine adds to the training of a config."""
    import torch
    from omegaconf import OmegaConf

    trainer = resolve(OmegaConf.create(dict(cfg)), "trainer")
    may_use_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda")
    device = "cpu"
    if may_use_gpu and torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "deterministic": trainer.get("deterministic"),
    }


def expected_of(
    objective: str,
    result: Mapping[str, Any],
    cfg: Mapping[str, Any],
) -> Expected:
    """What a training's result says that must be found again when its weights are loaded.

    Args:
        objective: The first objective.
        result: With ``values``, ``best_epoch``, ``state_sha256`` and ``inputs``, as far as they are
            known.
        cfg: What was trained.
    """
    import torch

    from dlsearch.training.state.restoring import Expected

    here = machine(cfg)
    there = result.get("inputs") or {}
    same_machine = (
        here["device"] == "cpu"
        and there.get("device") == "cpu"
        and there.get("threads") == torch.get_num_threads()
        and there.get("capability") == here["capability"]
    )
    values = result.get("values")
    return Expected(
        objective,
        values[0] if values else None,
        result.get("best_epoch"),
        result.get("state_sha256"),
        same_machine=same_machine,
    )


def tampered(
    document: Mapping[str, Any],
    trial: Mapping[str, Any],
    cfg: Mapping[str, Any],
) -> list[Difference]:
    """Where the record contradicts itself: it was changed after the trial had run.

    Args:
        document: The study's document.
        trial: The trial's row in the record.
        cfg: The trial's config, put together from both.
    """
    inputs: TrainingInputs = trial["inputs"]
    found: list[Difference] = []
    if inputs["seed"] != cfg["seed"]:
        found.append(Difference("seed", inputs["seed"], cfg["seed"]))
    found += _find_unequal(inputs["params"], trial["params"])
    if found:
        return found
    found = _changed_config(document, trial, cfg)
    if found:
        return found
    counted = {key: value for key, value in inputs.items() if key != "sha256"}
    whole = digest(counted)
    if inputs["sha256"] == whole:
        return []
    return _contradicted(document, inputs) or [
        Difference(
            "inputs",
            inputs["sha256"],
            whole,
        )
    ]


def _changed_config(
    document: Mapping[str, Any],
    trial: Mapping[str, Any],
    cfg: Mapping[str, Any],
) -> list[Difference]:
    """Keys of a trial's config that are not what it was trained with."""
    recorded = trial["inputs"]["config"]
    found = config_digest(cfg)
    if recorded in (found, config_digest(with_former_names(cfg))):
        return []
    fixed = document.get("fixed", {})
    keys = changed(fixed, document["config"], searched=trial["params"])
    return keys or [Difference("config", recorded, found)]


def _contradicted(document: Mapping[str, Any], inputs: TrainingInputs) -> list[Difference]:
    """Inputs of a trial that are not those of its study."""
    found: list[Difference] = []
    threads = document["provenance"].get("threads")
    if threads is not None and threads != inputs["threads"]:
        found.append(Difference("threads", inputs["threads"], threads))
    digests = document["sha"]
    if inputs["env"] != digests.get("env"):
        found.append(Difference("env", inputs["env"], digests["env"]))
    if inputs["code"] != digests.get("code"):
        found.append(Difference("code", inputs["code"], digests["code"]))
    return found


def changed(
    old: Any,
    new: Any,
    prefix: str = "",
    searched: Mapping[str, Any] | None = None,
) -> list[Difference]:
    """The keys of `old` that have another value in `new`.

    Args:
        old: Nested mappings.
        new: Nested mappings; keys that only it has do not count.
        prefix: Of the keys.
        searched: Keys that need not agree.
    """
    found: list[Difference] = []
    for key, value in old.items():
        name = f"{prefix}{key}"
        if searched is not None and name in searched:
            continue
        other = new.get(key) if isinstance(new, Mapping) else None
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += changed(value, other, f"{name}.", searched)
        elif value != other:
            found.append(Difference(name, value, other))
    return found


def differences(
    provenance: Mapping[str, Any],
    trial: Mapping[str, Any],
    here: Mapping[str, Any],
) -> list[Difference]:
    """Inputs of a trial that are not the same here.

    Args:
        provenance: Of the study: ``installed`` and ``code`` say which package, which file.
        trial: The trial's row in the record.
        here: ``threads``, ``capability``, ``device``, ``env``, ``code``, ``installed``, ``files``,
            ``python``, ``weights`` (those that are transferred, as they lie here) and ``splits``
            (None where the data module knows no digests).
    """
    inputs = trial["inputs"]
    compared = ("threads", "capability", "device", "deterministic")
    unequal = [key for key in compared if inputs[key] != here[key]]
    found = [Difference(key, inputs[key], here[key]) for key in unequal]
    recorded_weights = inputs.get("weights")
    present_weights = here.get("weights")
    if recorded_weights != present_weights:
        found.append(Difference("weights", recorded_weights, present_weights))
    if inputs["env"] != here["env"]:
        packages = _differing_packages(provenance, here)
        found += packages or [
            Difference(
                "environment",
                inputs["env"],
                here["env"],
            )
        ]
    if inputs["code"] != here["code"]:
        files = _find_unequal(
            provenance.get("code") or {},
            here["files"] or {},
            "code ",
        )
        found += files or [Difference("code", inputs["code"], here["code"])]
    recorded_splits = trial["split_sha256"]
    present_splits = here["splits"]
    if recorded_splits is not None and present_splits is not None:
        found += _find_unequal(recorded_splits, present_splits, "data ")
    return found


def _differing_packages(provenance: Mapping[str, Any], here: Mapping[str, Any]) -> list[Difference]:
    """Packages, and at the end Python, that are of another version here."""
    installed = provenance.get("installed") or {}
    found = _find_unequal(installed, here["installed"], "package ")
    if provenance.get("python") != here["python"]:
        found.append(
            Difference(
                "python",
                provenance.get("python"),
                here["python"],
            )
        )
    return found


def _find_unequal(
    then: Mapping[str, Any],
    now: Mapping[str, Any],
    prefix: str = "",
) -> list[Difference]:
    """The keys that have another value in `now`, in order, each with a prefix."""
    found: list[Difference] = []
    for key in sorted({*then, *now}):
        before = then.get(key)
        after = now.get(key)
        if before != after:
            found.append(Difference(f"{prefix}{key}", before, after))
    return found
