"""The inputs that a training depends on, as its own process found them, and how two such lists differ.

Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.config.compose import resolve
from dlsearch.config.moved import with_former_names
from dlsearch.core.provenance import digest

if TYPE_CHECKING:
    from dlsearch.training.restoring import Expected

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

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def _short_text(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:12]}…"


def config_digest(cfg: Mapping[str, Any]) -> str:
    """SHA-256 of what a trial's config says about its training, interpolations unresolved, without the seed."""
    return digest({key: value for key, value in cfg.items() if key not in _APART})


def met(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the training in this process: what was sent to it, and what it finds here.

    Args:
        payload: As :func:`dlsearch.execution.trial_main.run_trial` got it.
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


def expected_of(objective: str, result: Mapping[str, Any], cfg: Mapping[str, Any]) -> Expected:
    """What a training's result says that must be found again when its weights are loaded.

    Args:
        objective: The first objective.
        result: With ``values``, ``best_epoch``, ``state_sha256`` and ``inputs``, as far as they are
            known.
        cfg: What was trained.
    """
    import torch

    from dlsearch.training.restoring import Expected

    here = {"threads": torch.get_num_threads(), **machine(cfg)}
    there = result.get("inputs") or {}
    alike = here["device"] == "cpu" and all(
        there.get(key) == here[key] for key in ("device", "threads", "capability")
    )
    value = result["values"][0] if result.get("values") else None
    return Expected(
        objective, value, result.get("best_epoch"), result.get("state_sha256"), same_machine=alike
    )


def tampered(
    document: Mapping[str, Any], trial: Mapping[str, Any], cfg: Mapping[str, Any]
) -> list[Difference]:
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
    found += _find_unequal(inputs["params"], trial["params"])
    accepted = (config_digest(cfg), config_digest(with_former_names(cfg)))
    if not found and inputs["config"] not in accepted:
        keys = changed(document.get("fixed", {}), document["config"], searched=trial["params"])
        found += keys or [Difference("config", inputs["config"], config_digest(cfg))]
    whole = digest({key: value for key, value in inputs.items() if key != "sha256"})
    if not found and inputs["sha256"] != whole:
        found += _contradicted(document, inputs)
        found = found or [Difference("inputs", inputs["sha256"], whole)]
    return found


def _contradicted(document: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[Difference]:
    """Inputs of a trial that are not those of its study."""
    found = [
        Difference(key, inputs[key], document["sha"][key])
        for key in ("env", "code")
        if inputs[key] != document["sha"].get(key)
    ]
    threads = document["provenance"].get("threads")
    if threads is not None and threads != inputs["threads"]:
        found.insert(0, Difference("threads", inputs["threads"], threads))
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
        other = new.get(key) if isinstance(new, Mapping) else None
        if name in (searched or {}):
            continue
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += changed(value, other, f"{name}.", searched)
        elif value != other:
            found.append(Difference(name, value, other))
    return found


def differences(
    provenance: Mapping[str, Any], trial: Mapping[str, Any], here: Mapping[str, Any]
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
    found = [
        Difference(key, inputs[key], here[key])
        for key in ("threads", "capability", "device", "deterministic")
        if inputs[key] != here[key]
    ]
    if inputs.get("weights") != here.get("weights"):
        found.append(Difference("weights", inputs.get("weights"), here.get("weights")))
    if inputs["env"] != here["env"]:
        found += _of_environment(provenance, here) or [
            Difference("environment", inputs["env"], here["env"])
        ]
    if inputs["code"] != here["code"]:
        then = _add_prefix("code ", provenance.get("code") or {})
        now = _add_prefix("code ", here["files"] or {})
        found += _find_unequal(then, now) or [Difference("code", inputs["code"], here["code"])]
    if trial["split_sha256"] is not None and here["splits"] is not None:
        found += _find_unequal(
            _add_prefix("data ", trial["split_sha256"]), _add_prefix("data ", here["splits"])
        )
    return found


def _of_environment(provenance: Mapping[str, Any], here: Mapping[str, Any]) -> list[Difference]:
    """Python and packages that are of another version here."""
    then = _add_prefix("package ", provenance.get("installed") or {})
    now = _add_prefix("package ", here["installed"])
    then["python"] = provenance.get("python")
    now["python"] = here["python"]
    return _find_unequal(then, now)


def _add_prefix(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in values.items()}


def _find_unequal(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    keys = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    return [Difference(key, then.get(key), now.get(key)) for key in keys]
