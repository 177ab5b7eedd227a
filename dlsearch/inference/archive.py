"""``torch.export`` programs on disk.

They are written without what is this machine's, and read without torch's own loader.

``torch.export.load`` runs what a file says: it evaluates expressions, compiles names, and
unpickles. What is read here is the graph and the tensors, and :mod:`dlsearch.inference.program`
runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.stored import NotStoredError, open_stored
from dlsearch.inference import memory
from dlsearch.inference.reading import NotRunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn
    from torch.export import ExportedProgram


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
            program = torch.export.export(
                net,
                (example,),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
    except Exception as error:  # the exporter raises what its many parts raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            "model",
            f"torch.export cannot trace this network for any batch size: {line}",
            "forward may not depend on the batch's size or on values",
        ) from error
    for node in program.graph.nodes:  # paths of this machine are not published
        node.meta.pop("stack_trace", None)
    return program


def save_program(program: ExportedProgram, path: Path) -> None:
    """Write a program, and make sure that it can be read again."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about views of one weight, which it then stores as one
        torch.export.save(program, path)
    check(path)


def check(path: Path) -> None:
    """Read a program, and forget it.

    Raises:
        ConfigError: See :func:`load_program`.
    """
    load_program(path)


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Read a program.

    Returns:
        From a batch to its outputs; raises ConfigError where the program cannot be run on it.

    Raises:
        ConfigError: The file is no program, or asks for something that is not run: code of its own,
            objects that would be unpickled, operators that are none of torch's on tensors.
    """
    from dlsearch.inference.program import Program

    try:
        with memory.bounded(memory.READING + 2 * path.stat().st_size), open_stored(path) as archive:
            program = Program(archive)
    except (NotStoredError, NotRunError) as error:
        raise ConfigError(str(path), str(error)) from error
    except Exception as error:  # whatever a wrong file makes of the reader's expectations
        raise ConfigError(
            str(path), "is no torch.export program that can be read without unpickling"
        ) from error

    def run(x: Tensor) -> Tensor:
        try:
            with memory.bounded(memory.to_run(len(x))):
                return program(x)
        except NotRunError as error:
            raise ConfigError(str(path), str(error)) from error

    return run
