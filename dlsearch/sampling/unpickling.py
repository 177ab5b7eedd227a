"""CMA-ES from the pickle that Optuna keeps in a study's database, without unpickling.

What a pickle names is never imported: each name that occurs in the pickle of an optimizer has a
stand-in here, which takes plain values, and the optimizer is made from these afterwards. numpy's
own functions are not called either: with a type that lies about what it holds they read memory
that is not theirs.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cmaes
import numpy as np

from dlsearch.core.errors import ConfigError

#: Optuna's has some kilobytes; of a space with 500 dimensions one megabyte and a half.
MAX_BYTES = 64_000_000
#: The largest whole number in an optimizer is how often it tries to stay within its bounds.
MAX_WHOLE = 1_000_000
#: Characters of an attribute's name.
_MAX_NAME_LENGTH = 50
#: Characters of what is shown of a pickle.
_SHOWN_NAME_LENGTH = 100
_SHOWN_REASON_LENGTH = 150
#: The attribute in which an optimizer with a margin has another optimizer.
_INNER = "_cma"
_NUMBER_TYPES = {"f8", "f4", "i8", "i4", "b1"}
_BYTE_ORDERS = ("<", ">", "|", "=")

Array = np.ndarray[Any, Any]
#: Types of an optimizer's values, beside int and array.
_PLAIN_TYPES = (
    bool,
    float,
    np.number,
    np.bool_,
)
_Callable = Callable[..., Any]


# -- stand-ins for optimizers ----------------------------------------------------------------------
class _OptimizerStandIn:
    """Stands for an optimizer; it takes the pickled state, and does nothing with it."""

    optimizer: type
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _CMA(_OptimizerStandIn):
    optimizer = cmaes.CMA


class _SepCMA(_OptimizerStandIn):
    optimizer = cmaes.SepCMA


class _CMAwM(_OptimizerStandIn):
    optimizer = cmaes.CMAwM


# -- stand-ins for numpy ---------------------------------------------------------------------------
class _ArrayType:
    """Stands for ``numpy.ndarray`` where a pickle names the class."""


class _NumberType:
    """Stands for a type of numbers."""

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in _NUMBER_TYPES:
            raise pickle.UnpicklingError("an array of no numbers")
        self.name = name
        self.byte_order = "<"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2:
            raise pickle.UnpicklingError("an array of no numbers")
        byte_order = state[1]
        if byte_order not in _BYTE_ORDERS:
            raise pickle.UnpicklingError("an array of no numbers")
        self.byte_order = byte_order

    def as_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.byte_order + self.name)


class _ArrayStandIn:
    """Stands for an array."""

    value: Array | None = None

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _, shape, number_type, is_fortran, content = state
        order = "F" if is_fortran else "C"
        self.value = _read_array(content, number_type, shape, order)


def _read_array(
    content: Any,
    number_type: Any,
    shape: Any,
    order: Any,
) -> Array:
    """The array of these bytes, after a check that its size is theirs."""
    is_content = isinstance(content, (bytes, bytearray))
    is_number_type = isinstance(number_type, _NumberType)
    if not is_number_type or not is_content or not _is_shape(shape):
        raise pickle.UnpicklingError("an array that is none")
    dtype = number_type.as_dtype()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise pickle.UnpicklingError("an array of another size than its content's")
    flat = np.frombuffer(content, dtype=dtype)
    array = flat.reshape(shape, order="F" if order == "F" else "C")
    return array.astype(dtype.newbyteorder("="))


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, tuple):
        return False
    # Not isinstance: a class of its own, or a bool, is no size.
    return all(type(size) is int and size >= 0 for size in shape)


def _read_scalar(
    number_type: Any,
    content: Any,
) -> Any:
    """Stands for numpy's ``scalar``."""
    array = _read_array(content, number_type, (), "C")
    return array[()]


def _read_buffer(
    content: Any,
    number_type: Any,
    shape: Any,
    order: Any,
    *_: Any,
) -> _ArrayStandIn:
    """Stands for numpy's ``_frombuffer``."""
    stand_in = _ArrayStandIn()
    stand_in.value = _read_array(content, number_type, shape, order)
    return stand_in


def _encode_latin1(
    text: Any,
    encoding: Any,
) -> bytes:
    """Stands for ``_codecs.encode``, by which old protocols keep bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("a text that is no content of an array")
    return text.encode("latin1")


# -- reading ---------------------------------------------------------------------------------------
#: By module and name.
_STAND_INS: dict[tuple[str, str], _Callable] = {
    ("cmaes._cma", "CMA"): _CMA,
    ("cmaes._sepcma", "SepCMA"): _SepCMA,
    ("cmaes._cmawm", "CMAwM"): _CMAwM,
    ("numpy", "dtype"): _NumberType,
    ("numpy", "ndarray"): _ArrayType,
    ("_codecs", "encode"): _encode_latin1,
}
for _core in ("core", "_core"):  # numpy 1 and 2 call their modules differently
    _STAND_INS[f"numpy.{_core}.multiarray", "_reconstruct"] = _ArrayStandIn
    _STAND_INS[f"numpy.{_core}.multiarray", "scalar"] = _read_scalar
    _STAND_INS[f"numpy.{_core}.numeric", "_frombuffer"] = _read_buffer


class _Unpickler(pickle.Unpickler):
    """Finds stand-ins, and nothing else."""

    def find_class(
        self,
        module: str,
        name: str,
    ) -> Any:
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            path = f"{module}.{name}"
            raise pickle.UnpicklingError(path[:_SHOWN_NAME_LENGTH])
        return stand_in


def load_optimizer(content: bytes) -> Any:
    """The optimizer that a pickle holds.

    Raises:
        ConfigError: It holds something else.
    """
    try:
        if len(content) > MAX_BYTES:
            raise pickle.UnpicklingError("too much")
        unpickler = _Unpickler(io.BytesIO(content))
        return _make_optimizer(unpickler.load())
    except Exception as error:  # a broken pickle raises anything
        lines = str(error).splitlines() or [""]
        reason = lines[0][:_SHOWN_REASON_LENGTH]
        raise ConfigError(
            "sampler",
            f"the study's database holds a state of CMA-ES that is not loaded: {reason}",
            "sampler=tpe goes on without it",
        ) from error


def check_states(attributes: Iterable[Mapping[str, Any]]) -> None:
    """Read the optimizers that the trials of a study keep.

    Args:
        attributes: The system attributes of each trial.

    Raises:
        ConfigError: One of them is something else.
    """
    for trial_attributes in attributes:
        for text in _collect_pickles(trial_attributes):
            try:
                content = bytes.fromhex(text)
            except ValueError:
                content = b""  # no pickle either
            load_optimizer(content)


def _collect_pickles(attributes: Mapping[str, Any]) -> list[str]:
    """The pickles in a trial's attributes, in hexadecimal; Optuna keeps each in numbered parts."""
    parts: dict[str, dict[int, str]] = {}
    for key, value in attributes.items():
        name, _, number = key.rpartition(":")
        if name.endswith("optimizer") and number.isdecimal():
            numbered = parts.setdefault(name, {})
            numbered[int(number)] = str(value)
    pickles = []
    for numbered in parts.values():
        in_order = [numbered[number] for number in sorted(numbered)]
        pickles.append("".join(in_order))
    return pickles


def _make_optimizer(stand_in: Any) -> Any:
    """The optimizer of a stand-in's state, each attribute of which is checked."""
    if not isinstance(stand_in, _OptimizerStandIn) or not isinstance(stand_in.state, dict):
        raise pickle.UnpicklingError("no optimizer")
    state = {}
    for name, value in stand_in.state.items():
        _check_attribute_name(name, stand_in.optimizer)
        if name == _INNER and _is_inner(value, stand_in):
            state[name] = _make_optimizer(value)
        else:
            state[name] = _check_value(value)
    optimizer: Any = object.__new__(stand_in.optimizer)
    if hasattr(optimizer, "__setstate__"):
        optimizer.__setstate__(state)
    else:
        optimizer.__dict__.update(state)
    return optimizer


def _is_inner(
    value: Any,
    outer: _OptimizerStandIn,
) -> bool:
    """Whether it is the optimizer inside one with a margin; that one has none inside itself."""
    return type(value) is _CMA and type(outer) is _CMAwM


def _check_attribute_name(
    name: Any,
    optimizer: type,
) -> None:
    """Check that a name hides no method, and no attribute, of the optimizer's class."""
    is_name = isinstance(name, str) and len(name) <= _MAX_NAME_LENGTH
    if not is_name or hasattr(optimizer, name):
        raise pickle.UnpicklingError("an attribute that no optimizer has")


def _check_value(value: Any) -> Any:
    """A plain value of an optimizer: a number, an array, None."""
    if value is None or isinstance(value, _PLAIN_TYPES):
        return value
    if type(value) is int and abs(value) <= MAX_WHOLE:
        return value
    if isinstance(value, _ArrayStandIn) and value.value is not None:
        return value.value
    kind = type(value).__name__.strip("_")
    raise pickle.UnpicklingError(f"a value of the kind {kind}")
