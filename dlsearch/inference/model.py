"""A trained model in memory: its network, what its inputs must be like, and what its outputs mean.

Weights are read with ``weights_only``; a program that was exported is read only where its archive
holds nothing that would be unpickled. Lightning is imported only for a module that has no separate
network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from dlsearch.config.build import check_groups
from dlsearch.config.resolved import check_expansion
from dlsearch.core.bounded import load_yaml, read_json
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import Damaged, check
from dlsearch.core.files.inside import inside
from dlsearch.inference import memory
from dlsearch.inference.archive import load_program
from dlsearch.inference.description import ViewSettings, check_input
from dlsearch.inference.onnx_file import check_onnx
from dlsearch.training.evaluation.kinds import Kind, kind_of
from dlsearch.training.state.loading import WeightsMismatchError, load_made, load_strictly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from dlsearch.inference.description import (
        ExportedModel,
        InputSpec,
        NumbersOutput,
        Origin,
        OutputSpec,
    )
    from dlsearch.study.kept_model import Kept
    from dlsearch.training.state.loading import StateDict
    from dlsearch.training.state.weights_file import StoredWeights

SPEC = "model.json"
PROGRAM = "model.pt2"
ONNX = "model.onnx"
_CHANGED = "the code has changed since; use the commit that trained it, or its export"
#: Bytes of ``model.json``.
_MAX_SPEC = 4_000_000
_VIEWS = "dlsearch.systems.shared.views.Views"
#: What :data:`SPEC` must say of where a model comes from.
_ORIGIN = ("study", "trial", "kind", "params", "objective", "test", "sha")


@dataclass(frozen=True)
class Model:
    """What predictions are made with.

    Args:
        run: From a standardised batch, (B, *shape), to the outputs, (B, …).
        input: How an input of one's own becomes that (see ``docs/using-models.md``).
        output: What the outputs mean: classes, or numbers.
        about: Where it comes from.
        net: The network itself; None where it is a program.
        views: What of each image `run` averages over; empty for the image alone.
        plain: `run` without these; None where there are none.
    """

    run: Callable[[Tensor], Tensor]
    input: InputSpec
    output: OutputSpec
    about: Origin
    net: nn.Module | None = None
    views: ViewSettings = field(default_factory=ViewSettings)
    plain: Callable[[Tensor], Tensor] | None = None


def load(kept: Kept) -> Model:
    """Rebuild a model from its configuration and its checkpoint.

    Raises:
        ConfigError: The checkpoint is damaged or not of this configuration, or the network's class
            is gone.
    """
    from omegaconf import OmegaConf

    cfg = load_yaml(kept.config)
    check_expansion(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    check_groups({group: OmegaConf.select(cfg, group) for group in ("model", "task")})
    stored = _read_weights(kept.checkpoint)
    net = _build_network(cfg, stored.state)
    net.eval()
    net.requires_grad_(False)
    spec = _input_spec(stored, cfg)
    check_input(spec, str(kept.checkpoint))
    output = _output_spec(net, spec, cfg)
    about = cast("Origin", {**kept.about, "title": kept.title})
    model = Model(net, spec, output, about, net)
    views: Any = OmegaConf.select(cfg, "task.test_time")
    if views is None:
        return model
    plain: Any = OmegaConf.to_container(views, resolve=True)
    return looking(model, plain)


def _read_weights(path: Path) -> StoredWeights:
    """The weights, and what the data module said of its inputs; nothing is unpickled.

    Raises:
        ConfigError: The file is damaged, or none of weights.
    """
    from dlsearch.training.state import checkpoints

    try:
        check(path)
    except Damaged as error:
        raise ConfigError(
            "study.name",
            f"cannot be read as a checkpoint: {error}",
            "dlsearch verify trains it again from its record, or take another trial's model",
        ) from error
    try:
        return checkpoints.read_weights(path)
    except Exception as error:  # torch has many ways to say that a file is none of its own
        raise ConfigError(
            "study.name",
            f"{path} cannot be read as a checkpoint: {_first_line(error)}",
        ) from error


def looking(model: Model, views: ViewSettings) -> Model:
    """A model that averages over several views of each image.

    Args:
        model: Any; a model of tables has one view.
        views: As ``task.test_time`` has them.

    Raises:
        ConfigError: A value cannot be meant, or the inputs are no images.
    """
    from dlsearch.config.build import build

    try:
        built = build({"_target_": _VIEWS, **views}, "task.test_time")
    except ValueError as error:
        raise ConfigError("task.test_time", _first_line(error)) from error
    plain = model.plain or model.run
    if not built:
        return dataclasses.replace(
            model,
            run=plain,
            plain=plain,
            views={},
        )
    if len(model.input.get("shape") or ()) != 3:
        raise ConfigError(
            "task.test_time",
            "there are views of images alone",
            "leave --crops, --flip and --scale out",
        )
    averaged = functools.partial(
        built.averaged,
        plain,
        probabilities=gives_softmax(model),
    )
    shown = {key: value for key, value in views.items() if key != "_target_"}
    return dataclasses.replace(
        model,
        run=averaged,
        plain=plain,
        views=cast("ViewSettings", shown),
    )


def gives_softmax(model: Model) -> bool:
    """Whether a softmax makes probabilities of a model's outputs."""
    return model.output["kind"] == "classes" and model.output["probabilities"] == "softmax"


def _build_network(cfg: Any, state: StateDict) -> nn.Module:
    from omegaconf import OmegaConf

    from dlsearch.config.build import build

    inner: StateDict = {}
    for name, value in state.items():
        if name.startswith("net."):
            inner[name.removeprefix("net.")] = value
    refused: Exception | None = None
    if OmegaConf.select(cfg, "model._target_") and inner:
        _check_shapes(cfg, inner)
        try:
            net = build(cfg.model, "model")
            load_strictly(net, inner)
            return net
        except (RuntimeError, AttributeError) as error:  # the task wraps its net, or changes it
            refused = error
    task = build(OmegaConf.select(cfg, "task"), "task")
    try:
        load_made(task, state)
    except WeightsMismatchError as error:
        raise ConfigError(
            "model",
            f"the checkpoint does not fit the network: {_first_line(refused or error)}",
            _CHANGED,
        ) from error
    import torch

    net = getattr(task, "net", None)
    return net if isinstance(net, torch.nn.Module) else task


def _check_shapes(cfg: Any, state: Mapping[str, Any]) -> None:
    """Compare the net with its weights before it takes memory: a config can ask for any width.

    Raises:
        ConfigError: A weight has another shape.
    """
    import torch

    from dlsearch.config.build import build

    try:
        with torch.device("meta"):
            there = build(cfg.model, "model").state_dict()
    except (ConfigError, RuntimeError, NotImplementedError):  # some nets cannot be made so
        return
    for name, value in there.items():
        kept = state.get(name)
        if isinstance(kept, torch.Tensor) and kept.shape != value.shape:
            raise ConfigError(
                "model",
                f"the checkpoint does not fit the network: {name} is {tuple(kept.shape)}"
                f" in the checkpoint, and {tuple(value.shape)} in the network",
                _CHANGED,
            )


def _input_spec(stored: StoredWeights, cfg: Any) -> InputSpec:
    """What the data module said of its inputs; from the configuration where it said nothing."""
    from omegaconf import OmegaConf

    said = stored.about.get("input")
    if said and isinstance(said, dict):
        return cast("InputSpec", dict(said))
    data: Any = {}
    if OmegaConf.select(cfg, "data") is not None:
        data = OmegaConf.to_container(cfg.data, resolve=True)
    assert isinstance(data, dict)
    shape = data.get("shape")
    mean = data.get("mean")
    std = data.get("std")
    is_image = shape and len(shape) == 3
    if is_image and mean and std:
        return {
            "kind": "image",
            "shape": shape,
            "mean": mean,
            "std": std,
            "classes": [],
        }
    return {"kind": "tensor", "shape": list(shape) if shape else None, "classes": []}


def _output_spec(net: nn.Module, spec: InputSpec, cfg: Any) -> OutputSpec:
    """Classes where the outputs are one number a class, with what makes them probabilities.

    Else numbers.
    """
    import torch
    from omegaconf import OmegaConf

    numbers: NumbersOutput = {"kind": "numbers", "targets": list(spec.get("targets") or [])}
    classes = _class_names(spec, cfg)
    shape = spec.get("shape")
    if not classes or not shape:
        return numbers
    with torch.no_grad():
        outputs = net(torch.zeros(2, *shape))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, len(classes)):
        return numbers
    probabilities: str | None = "none" if _are_probabilities(outputs) else "softmax"
    if OmegaConf.select(cfg, "task.loss") == "hinge":
        probabilities = None
    return {"kind": "classes", "names": classes, "probabilities": probabilities}


def _class_names(spec: InputSpec, cfg: Any) -> list[str]:
    """The classes that the data module stored, or their numbers.

    None of a task that knows no classes.
    """
    from omegaconf import OmegaConf

    stored = spec.get("classes")
    if stored:
        return list(stored)
    num_classes = OmegaConf.select(cfg, "data.num_classes") or 0
    # the cheap questions first: a task imports Lightning, which a net alone does not need
    if num_classes < 2 or spec.get("targets"):
        return []
    if _kind_of_task(cfg) is not Kind.CLASSIFICATION:
        return []
    return [str(number) for number in range(num_classes)]


def _kind_of_task(cfg: Any) -> Kind:
    """What the configuration's task does. It is made to be asked, without memory where it can."""
    import torch
    from omegaconf import OmegaConf

    from dlsearch.config.build import build

    node = OmegaConf.select(cfg, "task")
    if node is None:
        return Kind.CUSTOM
    try:
        with torch.device("meta"):
            task = build(node, "task")
    except (ConfigError, RuntimeError, NotImplementedError):  # some nets cannot be made so
        task = build(node, "task")
    return kind_of(task)


def _are_probabilities(outputs: Tensor) -> bool:
    import torch

    sums = outputs.sum(1)
    return bool(
        (outputs >= 0).all()
        and torch.allclose(
            sums,
            torch.ones(2),
            atol=1e-4,
        )
    )


def load_export(folder: Path) -> Model:
    """A model that ``dlsearch export`` wrote: its program, or its ONNX graph.

    Raises:
        ConfigError: The folder holds no such thing, or it was changed since.
    """
    spec = _read_description(folder)
    check_input(spec["input"], str(folder / SPEC))
    path = _exported_file(folder, spec)
    run = load_program(path) if path.name == PROGRAM else onnx_runner(path)
    described: Mapping[str, Any] = spec
    origin = {key: described[key] for key in _ORIGIN}
    origin["title"] = f"{spec['study']['name']}, exported"
    model = Model(run, spec["input"], spec["output"], cast("Origin", origin))
    views = spec.get("test_time")
    return looking(model, views) if views else model


def _read_description(folder: Path) -> ExportedModel:
    """The content of ``model.json``, which is trusted no further than that it has these keys."""
    try:
        spec = read_json(inside(folder, SPEC), _MAX_SPEC)
        for key in (*_ORIGIN, "files", "input", "output"):
            spec[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            str(folder),
            f"is no model that dlsearch exported: {_first_line(error)}",
        ) from error
    return cast("ExportedModel", spec)


def _exported_file(folder: Path, spec: ExportedModel) -> Path:
    """The program, or else the graph, as ``model.json`` describes it."""
    files = spec["files"]
    here = [name for name in (PROGRAM, ONNX) if name in files and inside(folder, name).is_file()]
    if not here:
        raise ConfigError(str(folder), f"expected {PROGRAM} or {ONNX} beside {SPEC}")
    path = folder / here[0]
    if sha256(path) != files[path.name]:
        raise ConfigError(
            str(path),
            f"is not the file that {SPEC} describes",
            "export the model again",
        )
    return path


def onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Runs an ONNX graph on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed, or the file is no self-contained graph.
    """
    import torch

    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            str(path),
            "running ONNX needs onnxruntime",
            "pip install 'dlsearch[onnx]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        check_onnx(path)
        with memory.bounded(memory.READING + 4 * path.stat().st_size):
            session = onnxruntime.InferenceSession(
                path,
                options,
                providers=["CPUExecutionProvider"],
            )
        name = session.get_inputs()[0].name
    except Exception as error:  # onnxruntime has many ways to say that a file is none of its own
        raise ConfigError(
            str(path),
            f"cannot be read as an ONNX graph: {_first_line(error)}",
        ) from error

    def run(x: Tensor) -> Tensor:
        try:
            with memory.bounded(memory.to_run(len(x))):
                outputs = session.run(None, {name: x.numpy()})
                return torch.from_numpy(outputs[0])
        except Exception as error:  # of operators, and of what memory there is
            raise ConfigError(str(path), f"cannot be run: {_first_line(error)}") from error

    return run


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
