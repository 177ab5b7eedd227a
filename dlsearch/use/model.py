"""A trained model in memory: its network, what its inputs must be like, and what its outputs mean.

Weights are read with ``weights_only``; a program that was exported is read only where its archive holds nothing that
would be unpickled. Lightning is imported only for a module that has no separate network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.tracking.checksum import Damaged, check
from dlsearch.use.archive import load_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from dlsearch.search.kept import Kept

SPEC = "model.json"
PROGRAM, ONNX = "model.pt2", "model.onnx"


@dataclass(frozen=True)
class Model:
    """What predictions are made with.

    Args:
        run: From a standardised batch, (B, *shape), to the outputs, (B, …).
        input: How an input of one's own becomes that (see ``docs/using-models.md``).
        output: ``{"kind": "classes", "names", "probabilities"}`` or ``{"kind": "numbers", "targets"}``.
        about: Where it comes from.
        net: The network itself; None where it is a program.
        views: What of each image `run` averages over; empty for the image alone.
        plain: `run` without these; None where there are none.
    """

    run: Callable[[Tensor], Tensor]
    input: dict[str, Any]
    output: dict[str, Any]
    about: dict[str, Any]
    net: nn.Module | None = None
    views: dict[str, Any] = field(default_factory=dict)
    plain: Callable[[Tensor], Tensor] | None = None


def load(kept: Kept) -> Model:
    """Rebuild a model from its configuration and its checkpoint.

    Raises:
        ConfigError: The checkpoint is damaged or not of this configuration, or the network's class is gone.
    """
    import torch
    from omegaconf import OmegaConf

    cfg = OmegaConf.load(kept.config)
    extra = list(OmegaConf.select(cfg, "allow_targets") or [])
    try:
        check(kept.checkpoint)
    except Damaged as error:
        hint = "dlsearch verify trains it again from its record, or take another trial's model"
        raise ConfigError("study.name", f"cannot be read as a checkpoint: {error}", hint) from error
    try:
        saved = torch.load(kept.checkpoint, map_location="cpu", weights_only=True)
        state = saved["state_dict"]
    except Exception as error:  # torch has many ways to say that a file is none of its own
        raise ConfigError("study.name", f"{kept.checkpoint} cannot be read as a checkpoint: {_line(error)}") from error
    net = _network(cfg, state, extra).eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    spec = _input_spec(saved, cfg)
    output, about = _output_spec(net, spec, cfg), {**kept.about, "title": kept.title}
    model = Model(net, spec, output, about, net)
    found: Any = OmegaConf.select(cfg, "task.test_time")
    return model if found is None else looking(model, OmegaConf.to_container(found, resolve=True))  # type: ignore[arg-type]


def looking(model: Model, views: dict[str, Any]) -> Model:
    """A model that averages over several views of each image.

    Args:
        model: Any; a model of tables has one view.
        views: As ``task.test_time`` has them: ``crops flip scale pad``.

    Raises:
        ConfigError: A value cannot be meant, or the inputs are no images.
    """
    from dlsearch.config.build import build

    try:
        built = build({"_target_": "dlsearch.tasks.views.Views", **views}, "task.test_time")
    except ValueError as error:
        raise ConfigError("task.test_time", _line(error)) from error
    plain = model.plain or model.run
    if not built:
        return dataclasses.replace(model, run=plain, plain=plain, views={})
    if len(model.input.get("shape") or ()) != 3:
        raise ConfigError("task.test_time", "there are views of images alone", "leave --crops, --flip and --scale out")
    averaged = functools.partial(built.averaged, plain, probabilities=_softmax(model))
    shown = {key: value for key, value in views.items() if key != "_target_"}
    return dataclasses.replace(model, run=averaged, plain=plain, views=shown)


def _softmax(model: Model) -> bool:
    return model.output["kind"] == "classes" and model.output["probabilities"] == "softmax"


def _network(cfg: Any, state: dict[str, Any], extra: list[str]) -> nn.Module:
    from omegaconf import OmegaConf

    from dlsearch.config.build import build

    inner = {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}
    refused = None
    if OmegaConf.select(cfg, "model._target_") and inner:
        try:
            net = build(cfg.model, "model", extra=extra)
            net.load_state_dict(inner)
            return net
        except (RuntimeError, AttributeError) as error:  # the task wraps its net, or changes it
            refused = error
    task = build(OmegaConf.select(cfg, "task"), "task", extra=extra)
    try:
        task.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            "model",
            f"the checkpoint does not fit the network: {_line(refused or error)}",
            "the code has changed since; use the commit that trained it, or its export",
        ) from error
    import torch

    net = getattr(task, "net", None)
    return net if isinstance(net, torch.nn.Module) else task


def _input_spec(saved: dict[str, Any], cfg: Any) -> dict[str, Any]:
    """What the data module put into the checkpoint; from the configuration where it put nothing."""
    from omegaconf import OmegaConf

    found = [v["input"] for v in saved.values() if isinstance(v, dict) and isinstance(v.get("input"), dict)]
    if found and found[0]:
        return dict(found[0])
    data = OmegaConf.to_container(cfg.data, resolve=True) if OmegaConf.select(cfg, "data") is not None else {}
    assert isinstance(data, dict)
    shape = data.get("shape")
    if shape and len(shape) == 3 and data.get("mean") and data.get("std"):
        known = {"shape": shape, "mean": data["mean"], "std": data["std"]}
        return {"kind": "image", **known, "classes": []}
    return {"kind": "tensor", "shape": list(shape) if shape else None, "classes": []}


def _output_spec(net: nn.Module, spec: dict[str, Any], cfg: Any) -> dict[str, Any]:
    """Classes where the outputs are one number a class, with what makes them probabilities; else numbers."""
    import torch
    from omegaconf import OmegaConf

    classes, task = list(spec.get("classes") or []), OmegaConf.select(cfg, "task") or {}
    n = OmegaConf.select(cfg, "data.num_classes")
    if not classes and "Classification" in str(task.get("_target_")) and n:
        classes = [str(i) for i in range(n)]
    if classes and spec.get("shape"):
        with torch.no_grad():
            outputs = net(torch.zeros(2, *spec["shape"]))
        if isinstance(outputs, torch.Tensor) and outputs.shape == (2, len(classes)):
            are = bool((outputs >= 0).all() and torch.allclose(outputs.sum(1), torch.ones(2), atol=1e-4))
            by = "none" if are else "softmax"
            return {"kind": "classes", "names": classes, "probabilities": None if task.get("loss") == "hinge" else by}
    return {"kind": "numbers", "targets": list(spec.get("targets") or [])}


def load_export(folder: Path) -> Model:
    """A model that ``dlsearch export`` wrote: its program, or its ONNX graph.

    Raises:
        ConfigError: The folder holds no such thing, or it was changed since.
    """
    try:
        spec = json.loads((folder / SPEC).read_text())
        about = {key: spec[key] for key in ("study", "trial", "kind", "params", "objective", "test", "sha")}
        files, needed = spec["files"], (spec["input"], spec["output"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(str(folder), f"is no model that dlsearch exported: {_line(error)}") from error
    name = next((n for n in (PROGRAM, ONNX) if n in files and (folder / n).is_file()), None)
    if name is None:
        raise ConfigError(str(folder), f"expected {PROGRAM} or {ONNX} beside {SPEC}")
    if sha256(folder / name) != files[name]:
        raise ConfigError(str(folder / name), f"is not the file that {SPEC} describes", "export the model again")
    run = load_program(folder / name) if name == PROGRAM else onnx_runner(folder / name)
    about["title"] = f"{about['study']['name']}, exported"
    model = Model(run, *needed, about)
    return looking(model, spec["test_time"]) if spec.get("test_time") else model


def onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Runs an ONNX graph on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(str(path), "running ONNX needs onnxruntime", "pip install 'dlsearch[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy()})[0])

    return run


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
