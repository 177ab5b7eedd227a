"""A module's extra state as JSON and tensors, where it is plain data.

Plain data are numbers, texts, bytes, lists, tuples, sets and dictionaries of these, tensors,
NumPy's arrays and numbers, and torch's types, shapes and devices. An object of another class is
none: reading it back would run code that a file names.
"""

from __future__ import annotations

import base64
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: The key of what is written in a form of its own: ``{"$": form, "v": value}``.
_FORM = "$"
#: Nesting that JSON is read back from.
_DEEP = 100
#: The kinds of numbers of NumPy that torch has, too.
_NUMERIC = "?bhilqBHILQefdFD"


class NotPlainError(TypeError):
    """A value is no plain data; the message is the name of its class."""


def encode(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """A value as JSON.

    Args:
        value: What ``get_extra_state`` gave.
        tensors: Takes the tensors in it, by names that begin with `name`.
        name: See there.

    Raises:
        NotPlainError: It holds an object that is no plain data.
    """
    return _Encoder(tensors, name).encode(value, 0)


def decode(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that :func:`encode` made a document of.

    Raises:
        ValueError: It made no such document.
        KeyError: A tensor is not there.
    """
    if isinstance(document, list):
        return [decode(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    if _FORM not in document:
        return {key: decode(item, tensors) for key, item in document.items()}
    form = document[_FORM]
    value = document["v"]
    if form in _OF_TENSORS:
        return _OF_TENSORS[form](tensors[value])
    if form in _OF_ITEMS:
        return _OF_ITEMS[form]([decode(item, tensors) for item in value])
    if form in _OF_TEXT:
        return _OF_TEXT[form](value)
    raise ValueError(f"{form!r} is no form of plain data")


class _Encoder:
    """Encodes one value.

    Args:
        tensors: Takes the tensors.
        name: The beginning of their names.
    """

    def __init__(self, tensors: dict[str, Tensor], name: str) -> None:
        self._tensors = tensors
        self._name = name

    def encode(self, value: Any, depth: int) -> Any:
        """A value as JSON; only of these very classes, because a subclass may be more."""
        if depth > _DEEP:
            raise NotPlainError("a structure that is nested too deeply")
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else _form("float", repr(value))
        if kind is list:
            return [self.encode(item, depth + 1) for item in value]
        if kind in _ITEMS:
            items = sorted(value, key=repr) if kind in (set, frozenset) else value
            return _form(_ITEMS[kind], [self.encode(item, depth + 1) for item in items])
        if kind in (dict, OrderedDict):
            return self._encode_mapping(value, depth)
        return self._encode_other(value)

    def _encode_mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        is_plain = type(value) is dict and all(type(key) is str for key in value)
        if is_plain and _FORM not in value:
            return {key: self.encode(item, depth + 1) for key, item in value.items()}
        pairs = [self.encode(list(pair), depth + 1) for pair in value.items()]
        return _form("dict" if type(value) is dict else "ordered", pairs)

    def _encode_other(self, value: Any) -> Any:
        if isinstance(value, Tensor) and type(value) in (Tensor, torch.nn.Parameter):
            return self._put("tensor", value.detach())
        if isinstance(value, np.ndarray) and value.dtype.char in _NUMERIC:
            return self._put("array", torch.from_numpy(value.copy()))
        if isinstance(value, np.generic) and value.dtype.char in _NUMERIC:
            return self._put("number", torch.from_numpy(np.array(value)))
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            return _form("texts", [value.dtype.str, value.tolist()])
        if type(value) is bytes:
            return _form("bytes", base64.b64encode(value).decode())
        if type(value) is complex:
            return _form("complex", repr(value))
        if isinstance(value, (torch.dtype, torch.device)):
            return _form(type(value).__name__, str(value))
        if isinstance(value, torch.Size):
            return _form("size", list(value))
        raise NotPlainError(f"{type(value).__module__}.{type(value).__qualname__}")

    def _put(self, form: str, tensor: Tensor) -> Any:
        name = f"{self._name}.{len(self._tensors)}"
        self._tensors[name] = tensor
        return _form(form, name)


def _form(name: str, value: Any) -> dict[str, Any]:
    return {_FORM: name, "v": value}


def _dtype_of(text: str) -> torch.dtype:
    found = getattr(torch, text.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{text!r} is no type of numbers")
    return found


def _texts_of(value: list[Any]) -> Any:
    dtype, texts = value
    if not str(dtype).lstrip("<>=").startswith("U"):
        raise ValueError(f"{dtype!r} is no type of texts")
    return np.array(texts, dtype=dtype)


def _number_of(tensor: Tensor) -> Any:
    array = tensor.numpy()
    return array.dtype.type(array[()])


_ITEMS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_OF_TENSORS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda tensor: tensor,
    "array": lambda tensor: tensor.numpy().copy(),
    "number": _number_of,
}
_OF_ITEMS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "ordered": OrderedDict,
}
_OF_TEXT: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": complex,
    "bytes": base64.b64decode,
    "dtype": _dtype_of,
    "device": torch.device,
    "size": torch.Size,
    "texts": _texts_of,
}
