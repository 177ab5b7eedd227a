"""``torch.export`` programs on disk: written without what is this machine's, read without unpickling.

``torch.export.load`` falls back to unpickling whatever an archive holds, so an archive is looked through before.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn
    from torch.export import ExportedProgram

#: Parts of an archive that are numbers and text alone.
_PLAIN = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")


def make_program(net: nn.Module, example: Tensor) -> ExportedProgram:
    """Trace a network with a batch of any size.

    Args:
        net: In evaluation mode.
        example: (B, …) with B at least 2.

    Raises:
        ConfigError: The network cannot be traced, or only for one batch size.
    """
    import torch

    try:
        with torch.no_grad():
            program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # the exporter raises what its many parts raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            "model",
            f"torch.export cannot trace this network for any batch size: {line}",
            "forward may not depend on the batch's size or on values",
        ) from error
    for node in program.graph.nodes:  # where the code lies on this machine is nobody's business
        node.meta.pop("stack_trace", None)
    return program


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program, and make sure that it can be read without unpickling."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about views of one weight, which it then stores as one
        torch.export.save(program, path)
    check(path)


def check(path: Path) -> None:
    """Refuse an archive that ``torch.export.load`` would unpickle, or that brings compiled code.

    Raises:
        ConfigError: It would, or it is no such archive.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(set(names)) < len(names):  # two readers may take two different ones
                raise ConfigError(str(path), "holds one name twice, so it is not loaded")
            for name in names:
                inner = name.split("/", 1)[1] if "/" in name else name
                if inner in _PLAIN or inner.startswith(("models/", "extra/")):
                    continue
                if inner.endswith("_config.json"):
                    _check_config(json.loads(archive.read(name)), path)
                elif inner.startswith("data/sample_inputs/"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
                elif not inner.startswith(("data/weights/weight_", "data/constants/tensor_")):
                    raise ConfigError(str(path), f"holds {inner!r}, which is not loaded")
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(str(path), "is no torch.export program that can be read without unpickling") from error


def _check_config(config: dict[str, Any], path: Path) -> None:
    for name, entry in config["config"].items():
        if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
            raise ConfigError(str(path), f"holds {name!r} pickled, which is not loaded")


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Read a program.

    Raises:
        ConfigError: See :func:`check`.
    """
    import torch

    check(path)
    run: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return run
