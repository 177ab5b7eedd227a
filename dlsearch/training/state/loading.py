"""Weights into modules, strictly.

A name that is missing or unexpected is an error, also where torch lets it pass.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import nn

#: Tensors by name, and whatever a module keeps beside them as its extra state.
StateDict: TypeAlias = dict[str, Any]

#: Names that a message lists.
_SHOWN = 3
#: Bytes of a tensor that is spread out; levels of what a file holds.
_SPREAD = 1 << 28
_DEEP = 200
#: What ``torch.compile`` puts into the names of a net's weights.
_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class OpaqueState:
    """Stands for a module's extra state that is no plain data, and so in no file of weights.

    Args:
        of_class: The name of its class.
    """

    of_class: str


class WeightsMismatchError(RuntimeError):
    """Weights were not loaded, or are not those of this module."""


def load_plain(path: Path, *, mmap: bool = False) -> Any:
    """What ``torch.save`` wrote, of tensors and plain values, on the CPU.

    Nothing is unpickled that could run.

    Args:
        path: The file.
        mmap: Whether tensors stay on the disk until they are used.

    Raises:
        Exception: torch has many ways to say that a file is none of its own.
    """
    import torch

    with warnings.catch_warnings():
        # a foreign file may hold anything; the error says enough
        warnings.simplefilter("ignore")
        found = torch.load(
            path,
            map_location="cpu",
            weights_only=True,
            mmap=mmap,
        )
    _check_sizes(found, 0)
    return found


def load_everything(path: Path, *, mmap: bool = False) -> Any:
    """What ``torch.save`` wrote, with every object in it, on the CPU.

    That runs code which the file names: it is for the process of a training, and for a file that is
    known to be this user's own.

    Args:
        path: The file.
        mmap: Whether tensors stay on the disk until they are used.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(
            path,
            map_location="cpu",
            weights_only=False,
            mmap=mmap,
        )


def _check_sizes(value: Any, depth: int) -> None:
    """Refuse a tensor that spreads a few stored numbers over an unreasonable amount of memory.

    Raises:
        ValueError: There is one.
    """
    import torch

    if depth > _DEEP:
        raise ValueError("it is nested too deeply")
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        size = value.numel() * value.element_size()
        if size > max(_SPREAD, value.untyped_storage().nbytes()):
            raise ValueError(
                f"it holds a tensor that stands for {size >> 20} MiB, and is not stored as such"
            )
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    for each in inner:
        _check_sizes(each, depth + 1)


def check_names(module: nn.Module, state: Iterable[str]) -> None:
    """Check that a module has exactly the weights that a checkpoint has.

    torch passes over the weights of a submodule that is None, however strictly it loads:
    ``self.net = None`` in a constructor, and a net that is made later, is a usual thing.

    Args:
        module: The module.
        state: Names of the checkpoint's weights.

    Raises:
        WeightsMismatchError: A name is only in one of them.
    """
    here = set(module.state_dict())
    there = set(state)
    unexpected = there - here
    missing = here - there
    complaints = []
    if unexpected:
        complaints.append(f"it has no {_list_names(unexpected)}, which the checkpoint has")
    if missing:
        complaints.append(f"the checkpoint has no {_list_names(missing)}, which it has")
    if complaints:
        raise WeightsMismatchError(
            f"the weights do not fit {type(module).__name__}: {'; '.join(complaints)}"
        )


def load_strictly(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load weights; afterwards the module has these, all of them, and no others.

    Raises:
        WeightsMismatchError: A name is missing or unexpected, or a shape is another.
    """
    check_names(module, state)
    _check_extra_state(module, state)
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WeightsMismatchError(
            f"the weights do not fit {type(module).__name__}: {lines[-1]}"
        ) from error


def _check_extra_state(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Refuse extra state that is no plain data, and therefore in the training's checkpoint alone.

    Raises:
        WeightsMismatchError: There is some.
    """
    for name, value in state.items():
        if isinstance(value, OpaqueState):
            raise WeightsMismatchError(
                f"{name} of {type(module).__name__} is a {value.of_class}, which is no plain data:"
                " only a training's own process reads it back"
            )


def load_made(task: Any, state: Mapping[str, Any]) -> None:
    """Load weights into a LightningModule that no trainer holds.

    Where they do not fit, its hooks make the net first.

    Args:
        task: As its constructor left it.
        state: Weights.

    Raises:
        WeightsMismatchError: They do not fit, and ``configure_model`` and ``setup("fit")`` make no
            net that they do.
    """
    state = _without_compiler(task, state)
    try:
        load_strictly(task, state)
    except WeightsMismatchError as mismatch:
        try:
            task.configure_model()
            task.setup("fit")
        except Exception as error:  # user code, which may ask for its trainer or its data
            line = (str(error).splitlines() or [""])[0]
            raise WeightsMismatchError(
                f"{mismatch}; its hooks cannot make them without data"
                f" ({type(error).__name__}: {line})"
            ) from error
        load_strictly(task, state)


def _without_compiler(module: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Weights by the names that they have in a net that is not compiled.

    ``self.net = torch.compile(self.net)`` in a hook puts a part into the names, which a module as
    its constructor left it does not have.
    """
    plain = {name.replace(_COMPILED, ""): value for name, value in state.items()}
    if len(plain) < len(state) or set(plain) != set(module.state_dict()):
        return state
    return plain


def _list_names(names: set[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    text = ", ".join(shown)
    rest = len(names) - len(shown)
    return f"{text} and {rest} more" if rest else text
