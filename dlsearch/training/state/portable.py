"""A trained net as files that load without dlsearch.

They are written by the process that trained or scored it.

The shipper copies them to MLflow (:mod:`dlsearch.tracking.mlflow.model`) and builds nothing itself:
what a journal, a config or a checkpoint names may be foreign code.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from omegaconf import OmegaConf

from dlsearch.core.files.disk import is_full
from dlsearch.tracking import layout

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from numpy.typing import NDArray
    from omegaconf import DictConfig

    from dlsearch.core.types import JsonObject


#: Characters of an error that the description holds.
_MAX_ERROR_CHARACTERS = 500


class ArraySpec(TypedDict):
    """What an input or an output is.

    Args:
        dtype: NumPy's name of the type.
        shape: Sizes; -1 is the batch's.
    """

    dtype: str
    shape: list[int]


class Description(TypedDict):
    """What is said of a program beside it.

    Args:
        torch: Version that wrote it.
        inputs: Of the program.
        outputs: Of the program.
        example: Inputs that it was tried with.
        input: How an input of one's own becomes one of these, as the data module says it.
    """

    torch: str
    inputs: ArraySpec
    outputs: ArraySpec
    example: list[Any]
    input: JsonObject


class NoProgram(TypedDict):
    """Why there is no program.

    Args:
        error: One line.
    """

    error: str


class NotPortableError(TypeError):
    """A net that no file describes: it does not go from one tensor to another."""


def write(
    task: pl.LightningModule,
    data: pl.LightningDataModule | None,
    cfg: DictConfig,
    folder: Path,
) -> None:
    """Describe a trained net in the folder of its training.

    A failure here must not fail the scoring that it belongs to: where a net cannot be traced, the
    traceback is printed and the description says so.

    Args:
        task: With its weights, and no trainer. The net is ``task.net`` where it has one, and the
            task itself otherwise.
        data: Its data module, set up for fitting; None where the task brings its own loaders.
        cfg: What was trained.
        folder: Of the training; what is written lies in its folder ``model``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{layout.MODEL_FOLDER}.", dir=folder))
    try:
        about: Description | NoProgram
        try:
            about = _write_program(task, data, cfg, fresh)
        except Exception as error:
            if is_full(error):
                raise
            if not isinstance(error, NotPortableError):
                traceback.print_exc()
            about = _explain_absence(error)
        text = json.dumps({"schema": 1, **about}, allow_nan=False)
        (fresh / layout.MODEL_ABOUT).write_text(text, encoding="utf-8")
        target = folder / layout.MODEL_FOLDER
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    except Exception:  # the disk is full, say
        traceback.print_exc()
        shutil.rmtree(fresh, ignore_errors=True)


def _explain_absence(error: Exception) -> NoProgram:
    lines = str(error).splitlines() or [""]
    line = lines[0][:_MAX_ERROR_CHARACTERS]
    return {"error": f"{type(error).__name__}: {line}"}


def _write_program(
    task: Any,
    data: Any,
    cfg: DictConfig,
    folder: Path,
) -> Description:
    net = getattr(task, "net", None)
    if not isinstance(net, torch.nn.Module):
        net = task
    net = copy.deepcopy(net).cpu().eval()
    spec = _input_spec_of(data)
    inputs = _example_inputs(net, cfg, task if data is None else data, spec)
    example = torch.from_numpy(inputs)
    with torch.no_grad():
        outputs = net(example)
    if not isinstance(outputs, torch.Tensor):
        raise NotPortableError(
            "a network with one tensor as its output is needed,"
            f" this one gives {type(outputs).__name__}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            net,
            (example,),
            dynamic_shapes=({0: torch.export.Dim.AUTO},),
        )
        for node in program.graph.nodes:  # paths of this machine are not published
            node.meta.pop("stack_trace", None)
        torch.export.save(program, folder / layout.MODEL_PROGRAM)
    return {
        "torch": str(torch.__version__),
        "inputs": _describe_array(inputs),
        "outputs": _describe_array(outputs.numpy()),
        "example": inputs.tolist(),
        "input": spec,
    }


def _input_spec_of(data: Any) -> JsonObject:
    """What a data module says of an input; empty where it says nothing."""
    spec = None if data is None else data.state_dict().get("input")
    return dict(spec) if isinstance(spec, dict) else {}


def _describe_array(array: NDArray[Any]) -> ArraySpec:
    return {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]}


def _example_inputs(
    net: torch.nn.Module,
    cfg: DictConfig,
    loaders: Any,
    spec: JsonObject,
) -> NDArray[Any]:
    """Two inputs.

    They are the net's own example, an image or a row of the data's shape, or of a training batch.
    """
    own = getattr(net, "example_input_array", None)
    if isinstance(own, torch.Tensor):
        array = own.detach().cpu().numpy()
        return np.concatenate([array, array])[: max(2, len(array))]
    rng = np.random.default_rng(0)
    shape = OmegaConf.select(cfg, "data.shape", default=None)
    if shape is not None and len(shape) == 3:
        return rng.random((2, *shape), dtype=np.float32)
    if spec.get("kind") == "table" and spec.get("shape"):
        return rng.standard_normal((2, *spec["shape"]), dtype=np.float32)
    batch = next(iter(loaders.train_dataloader()))
    inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
    if not isinstance(inputs, torch.Tensor):
        raise NotPortableError(
            f"a network that takes one tensor is needed, the batches are of {type(inputs).__name__}"
        )
    found: NDArray[Any] = inputs[:2].detach().cpu().numpy()
    return found
