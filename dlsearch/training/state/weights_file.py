"""Weights as a ``safetensors`` file: tensors, and plain data beside them. Nothing is unpickled.

The file holds a state dict: each tensor once, with a table of the names that share it (tied
weights), and a module's extra state as JSON where that is plain data. Of an object that is none the
file holds the name of its class alone; only the training's own checkpoint has it.

The digest of the file stands in its header (:mod:`dlsearch.core.files.checksum`).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from dlsearch.core.files.checksum import METADATA, SHA256, Damaged, seal_tensors
from dlsearch.training.state.extra_state import NotPlainError, decode, encode
from dlsearch.training.state.loading import OpaqueState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dlsearch.core.types import JsonObject
    from dlsearch.training.state.loading import StateDict

_FORMAT = 1
#: Types that safetensors knows no name of: they are stored as bytes.
_WITHOUT_NAME = (torch.complex128,)
#: Names of the tensors within extra state begin so; no module's state does.
_INNER = "\x00extra."


@dataclass(frozen=True)
class StoredWeights:
    """What a file of weights holds.

    Args:
        state: Tensors by name, and extra state; of what is no plain data an
            :class:`~dlsearch.training.state.loading.OpaqueState`.
        about: What was said of them: ``epoch``, ``step``, and what makes an input (``input``).
    """

    state: StateDict
    about: JsonObject


@dataclass
class _Contents:
    """A state dict on its way into a file.

    Args:
        tensors: By the name under which each is stored.
        aliases: Names of the state dict that share a tensor which is stored under another name.
        kinds: What is not stored as it is: its layout, its type, or that it has no values yet.
        extra: Extra state as JSON.
        opaque: The classes of extra state that is no plain data.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, JsonObject] = field(default_factory=dict)
    extra: JsonObject = field(default_factory=dict)
    opaque: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """All but the tensors."""
        return {
            "aliases": self.aliases,
            "kinds": self.kinds,
            "extra": self.extra,
            "opaque": self.opaque,
        }


def write(path: Path, state: Mapping[str, Any], about: JsonObject) -> None:
    """Write a state dict.

    Args:
        path: The file; one that is there is replaced.
        state: As ``module.state_dict()`` gives it.
        about: What is said of it, plain JSON.

    Raises:
        OSError: The disk is full, or the like.
    """
    contents = _collect(state)
    placeholder = secrets.token_hex(32)
    document = {
        SHA256: placeholder,
        "format": _FORMAT,
        **contents.to_json(),
        "about": about,
    }
    # Not `save_file`: that leaves a hidden file where it is killed, and nobody else may read what
    # it writes.
    path.write_bytes(save(contents.tensors, metadata={METADATA: json.dumps(document)}))
    seal_tensors(path, placeholder)


def read(path: Path) -> StoredWeights:
    """Read a state dict, on the CPU; whether the file is whole is another's to check.

    A file that another program wrote has tensors alone.

    Raises:
        Damaged: It is no such file.
        FileNotFoundError: There is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get(METADATA)
        document = {} if text is None else json.loads(text)
        return _assemble(tensors, document)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{path} cannot be read as a file of weights: {line}") from error


# -- writing ---------------------------------------------------------------------------------------
def _collect(state: Mapping[str, Any]) -> _Contents:
    found = _Contents()
    stored: dict[tuple[Any, ...], str] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            _put_extra(found, name, value)
            continue
        if is_lazy(value):
            is_parameter = isinstance(value, UninitializedParameter)
            found.kinds[name] = {"uninitialized": str(value.dtype), "parameter": is_parameter}
            continue
        identity = _identity_of(value)
        first = stored.setdefault(identity, name) if identity is not None else name
        if first != name:
            found.aliases[name] = first
            continue
        _put_tensor(found, name, value)
    return found


def _identity_of(value: Tensor) -> tuple[Any, ...] | None:
    """What two names of one tensor have in common; None where nothing can be shared."""
    if value.layout is not torch.strided or not value.numel():
        return None
    return (
        value.untyped_storage().data_ptr(),
        value.storage_offset(),
        tuple(value.shape),
        value.stride(),
        value.dtype,
        value.is_conj(),
        value.is_neg(),
    )


def _put_tensor(found: _Contents, name: str, value: Tensor) -> None:
    plain = value.detach()
    if plain.layout is not torch.strided:
        found.kinds[name] = {"layout": str(plain.layout)}
        plain = plain.to_dense()
    plain = plain.resolve_conj().resolve_neg().cpu().contiguous()
    if plain.dtype in _WITHOUT_NAME:
        found.kinds[name] = {"dtype": str(plain.dtype), "shape": list(plain.shape)}
        plain = plain.reshape(-1).view(torch.uint8)
    if plain.untyped_storage().nbytes() != plain.numel() * plain.element_size():
        plain = plain.clone()  # a part of a storage that another part may be stored of, too
    found.tensors[name] = plain


def _put_extra(found: _Contents, name: str, value: Any) -> None:
    inner: dict[str, Tensor] = {}
    try:
        document = encode(value, inner, f"{_INNER}{name}")
    except NotPlainError as error:
        found.opaque[name] = str(error)
        return
    found.extra[name] = document
    for inner_name, tensor in inner.items():
        _put_tensor(found, inner_name, tensor.clone())


# -- reading ---------------------------------------------------------------------------------------
def _assemble(tensors: dict[str, Tensor], document: JsonObject) -> StoredWeights:
    kinds = document.get("kinds", {})
    restored = {name: _restore(value, kinds.get(name, {})) for name, value in tensors.items()}
    state: StateDict = {}
    for name, value in restored.items():
        if not name.startswith(_INNER):
            state[name] = value
    for alias, name in document.get("aliases", {}).items():
        state[alias] = state[name]
    for name, kind in kinds.items():
        if "uninitialized" in kind:
            state[name] = _make_uninitialized(kind)
    for name, value in document.get("extra", {}).items():
        state[name] = decode(value, restored)
    for name, of_class in document.get("opaque", {}).items():
        state[name] = OpaqueState(of_class)
    return StoredWeights(state, dict(document.get("about", {})))


def _restore(value: Tensor, kind: JsonObject) -> Tensor:
    if "dtype" in kind:
        return value.view(_dtype_of(kind["dtype"])).reshape(kind["shape"])
    if "layout" in kind:
        layout = getattr(torch, kind["layout"].removeprefix("torch."))
        return value.to_sparse(layout=layout)
    return value


def _make_uninitialized(kind: JsonObject) -> Tensor:
    dtype = _dtype_of(kind["uninitialized"])
    made: Any = UninitializedParameter if kind["parameter"] else UninitializedBuffer
    value: Tensor = made(dtype=dtype)
    return value


def _dtype_of(name: str) -> torch.dtype:
    found = getattr(torch, str(name).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no type of numbers")
    return found
