"""A trained model in memory: its network, what its inputs must be like, and what its outputs mean.

Weights are read with ``weights_only``; a program that was exported is read only where its archive
holds nothing that would be unpickled. Lightning is imported only for a module that has no separate
network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.build import check_groups
from dlsearch.config.resolved import check_expansion
from dlsearch.core.bounded import load_yaml, read_json
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import Damaged, check
from dlsearch.core.files.inside import inside
from dlsearch.inference import memory
from dlsearch.inference.archive import load_program
from dlsearch.inference.onnx_file import check_onnx
from dlsearch.training.loading import WeightsMismatchError, load_made, load_plain, load_strictly

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from dlsearch.study.kept_model import Kept

SPEC = "model.json"
PROGRAM = "model.pt2"
ONNX = "model.onnx"
_CHANGED = "the code has changed since; use the commit that trained it, or its export"
#: Numbers of one input.
_MAX_INPUT = 1 << 26
_MAX_SPEC = 4_000_000


@dataclass(frozen=True)
class Model:
    """What predictions are made with.

    Args:
        run: From a standardised batch, (B, *shape), to the outputs, (B, …).
        input: How an input of one's own becomes that (see ``docs/using-models.md``).
        output: ``{"kind": "classes", "names", "probabilities"}`` or ``{"kind": "numbers",
            "targets"}``.
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
        ConfigError: The checkpoint is damaged or not of this configuration, or the network's class
            is gone.
    """
    from omegaconf import OmegaConf

    cfg = load_yaml(kept.config)
    check_expansion(OmegaConf.to_container(cfg, resolve=False))  # type: ignore[arg-type]
    check_groups({group: OmegaConf.select(cfg, group) for group in ("model", "task")})
    try:
        check(kept.checkpoint)
    except Damaged as error:
        hint = "dlsearch verify trains it again from its record, or take another trial's model"
        raise ConfigError("study.name", f"cannot be read as a checkpoint: {error}", hint) from error
    try:
        saved = load_plain(kept.checkpoint)
        state = saved["state_dict"]
    except Exception as error:  # torch has many ways to say that a file is none of its own
        raise ConfigError(
            "study.name", f"{kept.checkpoint} cannot be read as a checkpoint: {_first_line(error)}"
        ) from error
    net = _build_network(cfg, state).eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    spec = _input_spec(saved, cfg)
    check_input(spec, str(kept.checkpoint))
    output = _output_spec(net, spec, cfg)
    about = {**kept.about, "title": kept.title}
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
        built = build(
            {"_target_": "dlsearch.systems.shared.views.Views", **views}, "task.test_time"
        )
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
    averaged = functools.partial(built.averaged, plain, probabilities=_gives_softmax(model))
    shown = {key: value for key, value in views.items() if key != "_target_"}
    return dataclasses.replace(
        model,
        run=averaged,
        plain=plain,
        views=shown,
    )


def _gives_softmax(model: Model) -> bool:
    return model.output["kind"] == "classes" and model.output["probabilities"] == "softmax"


def _build_network(cfg: Any, state: dict[str, Any]) -> nn.Module:
    from omegaconf import OmegaConf

    from dlsearch.config.build import build

    inner = {
        key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")
    }
    refused = None
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
            shown = f"{name} is {tuple(kept.shape)} in the checkpoint, and {tuple(value.shape)} in the network"
            raise ConfigError(
                "model", f"the checkpoint does not fit the network: {shown}", _CHANGED
            )


def _input_spec(saved: dict[str, Any], cfg: Any) -> dict[str, Any]:
    """What the data module put into the checkpoint; from the configuration where it put nothing."""
    from omegaconf import OmegaConf

    stored = _stored_input(saved)
    if stored:
        return stored
    data: Any = {}
    if OmegaConf.select(cfg, "data") is not None:
        data = OmegaConf.to_container(cfg.data, resolve=True)
    assert isinstance(data, dict)
    shape = data.get("shape")
    if shape and len(shape) == 3 and data.get("mean") and data.get("std"):
        known = {"shape": shape, "mean": data["mean"], "std": data["std"]}
        return {"kind": "image", **known, "classes": []}
    return {"kind": "tensor", "shape": list(shape) if shape else None, "classes": []}


def _stored_input(saved: Mapping[str, Any]) -> dict[str, Any]:
    """What the data module's state in a checkpoint says of inputs; empty where it says nothing."""
    for state in saved.values():
        if isinstance(state, dict) and isinstance(state.get("input"), dict):
            return dict(state["input"])
    return {}


def check_input(spec: Any, where: str) -> None:
    """Check what a file says of a model's inputs.

    Args:
        spec: ``kind``, ``shape``, ``mean``, ``std``, ``classes``, ``columns``, some of them absent.
        where: What to call the file.

    Raises:
        ConfigError: It is no description of inputs, or one of inputs that are unreasonably large.
    """

    def wrong(what: str) -> ConfigError:
        return ConfigError(where, f"describes no inputs of a model: {what}")

    if not isinstance(spec, Mapping) or spec.get("kind") not in ("image", "table", "tensor"):
        raise wrong("its kind is none that is known")
    shape = spec.get("shape")
    if shape is not None:
        if not _is_shape(shape):
            raise wrong("its shape is no list of sizes")
        if math.prod(shape) > _MAX_INPUT:
            raise wrong(f"one has more than {_MAX_INPUT:,} numbers")
    for key in ("mean", "std"):
        if not _are_numbers(spec.get(key)):
            raise wrong(f"its {key} is no list of numbers")
    for key in ("classes", "columns", "targets"):
        if not isinstance(spec.get(key) or [], (list, tuple)):
            raise wrong(f"its {key} are no list")


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, (list, tuple)):
        return False
    return all(type(size) is int and size > 0 for size in shape)


def _are_numbers(value: Any) -> bool:
    """Whether this is a number, a list of numbers, or nothing."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return all(number is None or isinstance(number, (int, float)) for number in numbers)


def _output_spec(net: nn.Module, spec: dict[str, Any], cfg: Any) -> dict[str, Any]:
    """Classes where the outputs are one number a class, with what makes them probabilities.

    Else numbers.
    """
    import torch
    from omegaconf import OmegaConf

    numbers = {"kind": "numbers", "targets": list(spec.get("targets") or [])}
    classes = _class_names(spec, cfg)
    if not classes or not spec.get("shape"):
        return numbers
    with torch.no_grad():
        outputs = net(torch.zeros(2, *spec["shape"]))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, len(classes)):
        return numbers
    probabilities: str | None = "none" if _are_probabilities(outputs) else "softmax"
    if OmegaConf.select(cfg, "task.loss") == "hinge":
        probabilities = None
    return {"kind": "classes", "names": classes, "probabilities": probabilities}


def _class_names(spec: Mapping[str, Any], cfg: Any) -> list[str]:
    """The classes that the data module stored, or their numbers.

    None of a task that knows no classes.
    """
    from omegaconf import OmegaConf

    stored = list(spec.get("classes") or [])
    if stored:
        return stored
    target = OmegaConf.select(cfg, "task._target_")
    num_classes = OmegaConf.select(cfg, "data.num_classes")
    # by name: importing the class would import Lightning, which a net alone does not need
    if "Classification" not in str(target) or not num_classes:
        return []
    return [str(number) for number in range(num_classes)]


def _are_probabilities(outputs: Tensor) -> bool:
    import torch

    sums = outputs.sum(1)
    return bool((outputs >= 0).all() and torch.allclose(sums, torch.ones(2), atol=1e-4))


def load_export(folder: Path) -> Model:
    """A model that ``dlsearch export`` wrote: its program, or its ONNX graph.

    Raises:
        ConfigError: The folder holds no such thing, or it was changed since.
    """
    try:
        spec = read_json(inside(folder, SPEC), _MAX_SPEC)
        about = {
            key: spec[key]
            for key in ("study", "trial", "kind", "params", "objective", "test", "sha")
        }
        files = spec["files"]
        needed = (spec["input"], spec["output"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            str(folder), f"is no model that dlsearch exported: {_first_line(error)}"
        ) from error
    check_input(spec["input"], str(folder / SPEC))
    name = next((n for n in (PROGRAM, ONNX) if n in files and inside(folder, n).is_file()), None)
    if name is None:
        raise ConfigError(str(folder), f"expected {PROGRAM} or {ONNX} beside {SPEC}")
    if sha256(folder / name) != files[name]:
        raise ConfigError(
            str(folder / name), f"is not the file that {SPEC} describes", "export the model again"
        )
    run = load_program(folder / name) if name == PROGRAM else onnx_runner(folder / name)
    about["title"] = f"{about['study']['name']}, exported"
    model = Model(run, *needed, about)
    return looking(model, spec["test_time"]) if spec.get("test_time") else model


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
            str(path), "running ONNX needs onnxruntime", "pip install 'dlsearch[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        check_onnx(path)
        with memory.bounded(memory.READING + 4 * path.stat().st_size):
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        name = session.get_inputs()[0].name
    except Exception as error:  # onnxruntime has many ways to say that a file is none of its own
        raise ConfigError(
            str(path), f"cannot be read as an ONNX graph: {_first_line(error)}"
        ) from error

    def run(x: Tensor) -> Tensor:
        try:
            with memory.bounded(memory.to_run(len(x))):
                return torch.from_numpy(session.run(None, {name: x.numpy()})[0])
        except Exception as error:  # of operators, and of what memory there is
            raise ConfigError(str(path), f"cannot be run: {_first_line(error)}") from error

    return run


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
