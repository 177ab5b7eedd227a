"""What a training depends on, as its own process met it, and where two such lists differ. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dlsearch.config.compose import resolve
from dlsearch.tracking.provenance import digest

#: Parts of the config that say where and how many, not what is trained.
_APART = ("name", "paths", "pruner", "sampler", "seed", "space", "study", "test", "tracking", "worker")


@dataclass(frozen=True)
class Difference:
    """One input that is not what it was.

    Args:
        input: Its name: a config key, ``seed``, ``threads``, ``capability``, ``device``, ``package torch``,
            ``code dlsearch/…``, ``weights``, ``data train``.
        recorded: What the record says.
        now: What is here.
    """

    input: str
    recorded: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.input}: recorded {_short(self.recorded)}, now {_short(self.now)}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:12]}…"


def config_digest(cfg: Mapping[str, Any]) -> str:
    """SHA-256 of what a trial's config says about its training, interpolations unresolved, without the seed."""
    return digest({key: value for key, value in cfg.items() if key not in _APART})


def met(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the training in this process, by what was sent to it and what it finds.

    Args:
        payload: As :func:`dlsearch.search.trial_process.run_trial` got it.
    """
    import torch

    found = {
        "config": config_digest(payload["cfg"]),
        "params": payload["params"],
        "seed": payload["cfg"]["seed"],
        "threads": torch.get_num_threads(),
        **machine(payload["cfg"]),
        **payload["origin"],
    }
    moved = payload["cfg"].get("transfer") or {}
    if moved.get("weights") is not None:  # the training refuses any others
        found["weights"] = moved["sha256"].get(moved["weights"])
    return {**found, "sha256": digest(found)}


def machine(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """``capability`` of the CPU, ``device``, and whether its operations are ``deterministic``."""
    import torch
    from omegaconf import OmegaConf

    trainer = resolve(OmegaConf.create(dict(cfg)), "trainer")
    on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
        "deterministic": trainer.get("deterministic"),
    }


def tampered(document: Mapping[str, Any], trial: Mapping[str, Any], cfg: Mapping[str, Any]) -> list[Difference]:
    """Where the record contradicts itself: it was changed after the trial had run.

    Args:
        document: The study's document.
        trial: The trial's row in the record.
        cfg: The trial's config, put together from both.
    """
    inputs = trial["inputs"]
    found = []
    if inputs["seed"] != cfg["seed"]:
        found.append(Difference("seed", inputs["seed"], cfg["seed"]))
    found += _unequal(inputs["params"], trial["params"])
    if not found and inputs["config"] != config_digest(cfg):
        keys = changed(document.get("fixed", {}), document["config"], searched=trial["params"])
        found += keys or [Difference("config", inputs["config"], config_digest(cfg))]
    whole = digest({key: value for key, value in inputs.items() if key != "sha256"})
    if not found and inputs["sha256"] != whole:
        threads = document["provenance"].get("threads")
        if threads is not None and threads != inputs["threads"]:
            found.append(Difference("threads", inputs["threads"], threads))
        found += [
            Difference(key, inputs[key], document["sha"][key])
            for key in ("env", "code")
            if inputs[key] != document["sha"].get(key)
        ]
        found = found or [Difference("inputs", inputs["sha256"], whole)]
    return found


def changed(old: Any, new: Any, prefix: str = "", searched: Mapping[str, Any] | None = None) -> list[Difference]:
    """The keys of `old` that have another value in `new`.

    Args:
        old: Nested mappings.
        new: Likewise; what it has besides does not count.
        prefix: Of the keys.
        searched: Keys that need not agree.
    """
    found: list[Difference] = []
    for key, value in old.items():
        name, other = f"{prefix}{key}", new.get(key) if isinstance(new, Mapping) else None
        if name in (searched or {}):
            continue
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += changed(value, other, f"{name}.", searched)
        elif value != other:
            found.append(Difference(name, value, other))
    return found


def differences(provenance: Mapping[str, Any], trial: Mapping[str, Any], here: Mapping[str, Any]) -> list[Difference]:
    """Inputs of a trial that are not the same here.

    Args:
        provenance: Of the study: ``installed`` and ``code`` say which package, which file.
        trial: The trial's row in the record.
        here: ``threads``, ``capability``, ``device``, ``env``, ``code``, ``installed``, ``files``, ``python``,
            ``weights`` (those that are transferred, as they lie here) and ``splits`` (None where the data module knows
            no digests).
    """
    inputs = trial["inputs"]
    found = [
        Difference(key, inputs[key], here[key])
        for key in ("threads", "capability", "device", "deterministic")
        if inputs[key] != here[key]
    ]
    if inputs.get("weights") != here.get("weights"):
        found.append(Difference("weights", inputs.get("weights"), here.get("weights")))
    if inputs["env"] != here["env"]:
        then = {"python": provenance.get("python"), **_prefixed("package ", provenance.get("installed") or {})}
        now = {"python": here["python"], **_prefixed("package ", here["installed"])}
        found += _unequal(then, now) or [Difference("environment", inputs["env"], here["env"])]
    if inputs["code"] != here["code"]:
        then, now = (_prefixed("code ", files or {}) for files in (provenance.get("code"), here["files"]))
        found += _unequal(then, now) or [Difference("code", inputs["code"], here["code"])]
    if trial["split_sha256"] is not None and here["splits"] is not None:
        found += _unequal(_prefixed("data ", trial["split_sha256"]), _prefixed("data ", here["splits"]))
    return found


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in values.items()}


def _unequal(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    keys = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    return [Difference(key, then.get(key), now.get(key)) for key in keys]
