"""Models as files that need no dlsearch.

A file is a ``torch.export`` program or an ONNX graph, and ``model.json`` lies beside it.

What was written is read back and run on batches of several sizes before it takes its place; where
its outputs differ from the network's, nothing is written.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from dlsearch.core.errors import ConfigError
from dlsearch.inference.archive import load_program, make_program, save_program
from dlsearch.inference.model import ONNX, PROGRAM, SPEC, onnx_runner, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from torch.export import ExportedProgram

    from dlsearch.core.types import JsonObject
    from dlsearch.inference.description import Agreement, ExportedModel
    from dlsearch.inference.model import Model
    from dlsearch.study.kept_model import Kept

#: Largest difference that is let pass, relative to the largest output (or to 1, where that is
#: smaller).
TOLERANCE = {"torch": 1e-6, "onnx": 1e-4}
FORMATS = tuple(TOLERANCE)
#: Batches that are compared: one input, and numbers that no trace has seen.
SIZES = (1, 2, 7)
#: What ONNX needs; each is also the name of its distribution.
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        ConfigError: Some are not.
    """
    if "onnx" not in formats:
        return
    absent = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            "--format",
            f"onnx needs {' and '.join(absent)}",
            "pip install 'dlsearch[onnx]'",
        )


def check_out(out: Path, formats: Sequence[str], *, force: bool) -> None:
    """Refuse to overwrite.

    Raises:
        ConfigError: One of the files is there, or `out` is no folder.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError("--out", f"{out} is no folder")
    names = [SPEC, *(_file_name(form) for form in formats)]
    here = [name for name in names if (out / name).exists()]
    if here and not force:
        raise ConfigError(
            "--out",
            f"{out / here[0]} is there already",
            "--force replaces it",
        )


def export(
    model: Model,
    kept: Kept,
    out: Path,
    *,
    formats: Sequence[str],
) -> ExportedModel:
    """Write a model to a folder in `formats`.

    Args:
        model: The model, with its network.
        kept: Where it comes from.
        out: The folder; files of the same names are replaced, other formats of another model
            removed.
        formats: Of :data:`FORMATS`.

    Returns:
        The content of ``model.json``.

    Raises:
        ConfigError: The network cannot be traced, or what was written computes something else.
    """
    assert model.net is not None
    shape = model.input.get("shape")
    if not shape:
        raise ConfigError(
            "model",
            "the shape of an input is not known",
            "give the data module a `shape` in its config",
        )
    batches = _make_batches(shape)
    spec = _describe_model(model, kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        program = make_program(model.net, batches[1])
        for form in formats:
            path = fresh / _file_name(form)
            if form == "torch":
                save_program(program, path)
                run = load_program(path)
            else:
                _write_onnx(program, path)
                run = onnx_runner(path)
                spec["made_with"] |= {name: version(name) for name in _ONNX_PACKAGES}
            spec["agreement"][form] = _compare_outputs(
                model.net,
                run,
                batches,
                form,
            )
            spec["files"][path.name] = sha256(path)
        text = json.dumps(
            spec,
            indent=1,
            sort_keys=True,
            ensure_ascii=False,
        )
        (fresh / SPEC).write_text(f"{text}\n", encoding="utf-8")
        out.mkdir(exist_ok=True)
        for name in (PROGRAM, ONNX):  # model.json describes the files beside it and no others
            if name not in spec["files"]:
                (out / name).unlink(missing_ok=True)
        for name in (*spec["files"], SPEC):
            (fresh / name).replace(out / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return spec


def _describe_model(model: Model, kept: Kept) -> ExportedModel:
    """The content of ``model.json``, before there are files."""
    about = {key: value for key, value in model.about.items() if key != "title"}
    spec: JsonObject = {
        "schema": 1,
        **about,
        "input": {**model.input, "batch": "any", "dtype": "float32"},
        "output": model.output,
    }
    if model.views:
        spec["test_time"] = model.views
    spec |= {
        "checkpoint_sha256": sha256(kept.checkpoint),
        "files": {},
        "agreement": {},
        "made_with": {"dlsearch": version("dlsearch"), "torch": str(torch.__version__)},
    }
    return cast("ExportedModel", spec)


def _file_name(form: str) -> str:
    return PROGRAM if form == "torch" else ONNX


def _make_batches(shape: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, *shape, generator=generator) for size in SIZES]


def _write_onnx(program: ExportedProgram, path: Path) -> None:
    """Through torch's exporter for programs; names of this machine's files are left out."""
    import logging
    import warnings

    before = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=["output"],
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(before)
    assert made is not None
    graph = made.model.graph
    for each in (graph, *graph):
        each.metadata_props.clear()
    made.save(path, external_data=False)


def _compare_outputs(
    net: Any,
    run: Callable[[Tensor], Tensor],
    batches: list[Tensor],
    form: str,
) -> Agreement:
    """How far the outputs lie from the network's.

    Raises:
        ConfigError: Farther than the tolerance.
    """
    largest = 0.0
    scale = 0.0
    with torch.inference_mode():
        for x in batches:
            expected = net(x)
            found = run(x)
            if found.shape != expected.shape:
                raise ConfigError(
                    "--format",
                    f"{form} gives {tuple(found.shape)}, the network {tuple(expected.shape)}",
                )
            difference = (found - expected).abs()
            largest = max(largest, float(difference.max()))
            scale = max(scale, float(expected.abs().max()))
    limit = TOLERANCE[form] * max(1.0, scale)
    if not largest <= limit:
        raise ConfigError(
            "--format",
            f"{form} differs from the network by {largest:.2g}, more than {limit:.2g}",
            "nothing was written",
        )
    return {
        "largest_difference": largest,
        "tolerance": limit,
        "largest_output": scale,
        "batches": list(SIZES),
    }
