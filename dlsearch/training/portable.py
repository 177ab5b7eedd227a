"""A trained net as files that load without dlsearch: written by the process that trained or scored it.

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
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf

from dlsearch.core.files.disk import is_full
from dlsearch.tracking import layout

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from numpy.typing import NDArray
    from omegaconf import DictConfig


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
        try:
            about = _write_model(task, data, cfg, fresh)
        except Exception as error:
            if is_full(error):
                raise
            if not isinstance(error, NotPortableError):
                traceback.print_exc()
            about = {
                "error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:500]}"
            }
        text = json.dumps({"schema": 1, **about}, allow_nan=False)
        (fresh / layout.MODEL_ABOUT).write_text(text, encoding="utf-8")
        target = folder / layout.MODEL_FOLDER
        shutil.rmtree(target, ignore_errors=True)
        fresh.replace(target)
    except Exception:  # the disk is full, say
        traceback.print_exc()
        shutil.rmtree(fresh, ignore_errors=True)


def _write_model(
    task: Any,
    data: Any,
    cfg: DictConfig,
    folder: Path,
) -> dict[str, Any]:
    net = getattr(task, "net", None)
    net = copy.deepcopy(net if isinstance(net, torch.nn.Module) else task).cpu().eval()
    spec = {} if data is None else data.state_dict().get("input")
    spec = dict(spec) if isinstance(spec, dict) else {}
    inputs = _example_inputs(net, cfg, task if data is None else data, spec)
    example = torch.from_numpy(inputs)
    with torch.no_grad():
        outputs = net(example)
    if not isinstance(outputs, torch.Tensor):
        raise NotPortableError(
            f"a network with one tensor as its output is needed, this one gives {type(outputs).__name__}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        for node in program.graph.nodes:  # paths of this machine are not published
            node.meta.pop("stack_trace", None)
        torch.export.save(program, folder / layout.MODEL_PROGRAM)
    array = outputs.numpy()
    return {
        "torch": str(torch.__version__),
        "inputs": {"dtype": str(inputs.dtype), "shape": [-1, *inputs.shape[1:]]},
        "outputs": {"dtype": str(array.dtype), "shape": [-1, *array.shape[1:]]},
        "example": inputs.tolist(),
        "input": spec,
    }


def _example_inputs(
    net: torch.nn.Module,
    cfg: DictConfig,
    loaders: Any,
    spec: dict[str, Any],
) -> NDArray[Any]:
    """Two inputs: the net's own example, an image or a row of the data's shape, or of a training batch."""
    own = getattr(net, "example_input_array", None)
    if isinstance(own, torch.Tensor):
        return np.concatenate([own.detach().cpu().numpy()] * 2)[: max(2, len(own))]
    shape = OmegaConf.select(cfg, "data.shape", default=None)
    if shape is not None and len(shape) == 3:
        return np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    if spec.get("kind") == "table" and spec.get("shape"):
        return np.random.default_rng(0).standard_normal((2, *spec["shape"]), dtype=np.float32)
    batch = next(iter(loaders.train_dataloader()))
    inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
    if not isinstance(inputs, torch.Tensor):
        raise NotPortableError(
            f"a network that takes one tensor is needed, the batches are of {type(inputs).__name__}"
        )
    found: NDArray[Any] = inputs[:2].detach().cpu().numpy()
    return found
