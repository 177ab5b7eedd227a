"""Which operators a program may call: torch's own on tensors, and arithmetic of sizes."""

from __future__ import annotations

import functools
import math
import operator
import re
from typing import TYPE_CHECKING, Any

import torch

from dlsearch.inference.reading import NotRunError
from dlsearch.inference.stored_tensors import LARGEST

if TYPE_CHECKING:
    from collections.abc import Callable

_ATEN = re.compile(r"torch\.ops\.(aten|torchvision)\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z0-9_]+)")
#: Reads and makes files; would take a tensor's memory away; has no place in a function of its
#: inputs.
_DENIED = frozenset(
    {"from_file", "set_", "set", "set_data", "resize_", "resize", "resize_as_", "record_stream"}
)
#: Operators of torch's that are private by name and stand in graphs that it exports all the same.
_PRIVATE = frozenset(
    {
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "_cdist_forward",
        "_convolution",
        "_embedding_bag",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_local_scalar_dense",
        "_log_softmax",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
        "_native_multi_head_attention",
        "_pdist_forward",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_softmax",
        "_to_copy",
        "_transformer_encoder_layer_fwd",
        "_unsafe_view",
        "_weight_norm",
        "_weight_norm_interface",
    }
)
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "truediv", "neg", "pos", "and_", "or_")
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
#: What sizes are computed with.
_OPERATORS = {
    f"_operator.{name}": getattr(operator, name) for name in (*_ARITHMETIC, *_COMPARISONS)
}
_NUMBERS: dict[str, Callable[..., Any]] = {
    **_OPERATORS,
    "math.trunc": math.trunc,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_ite": lambda condition, one, other: one if condition else other,
    "torch.sym_sqrt": math.sqrt,
}


@functools.cache
def _known_operators() -> frozenset[str]:
    """Operators that torch's dispatcher knows.

    Those of TorchScript, which write files among others, it does not.
    """
    return frozenset(torch._C._dispatch_get_all_op_names())


def find_operator(target: str) -> Callable[..., Any]:
    """The function that a node names.

    Raises:
        NotRunError: It is none of those that are run.
    """
    if target in _NUMBERS:
        return functools.partial(_compute_size, _NUMBERS[target])
    found = _ATEN.fullmatch(target)
    if found is None:
        raise NotRunError(f"asks for {target[:100]!r}, which is not run")
    library, name, overload = found.groups()
    if not _is_run(library, name, overload):
        raise NotRunError(f"asks for {target[:100]!r}, which is not run")
    operators = getattr(torch.ops, library)
    overloads = getattr(operators, name)
    call: Callable[..., Any] = getattr(overloads, overload)
    return call


def _is_run(library: str, name: str, overload: str) -> bool:
    """Whether an operator is among those that are run."""
    is_private = name.startswith("_") and name not in _PRIVATE
    if is_private or name in _DENIED:
        return False
    whole = f"{library}::{name}"
    if overload != "default":
        whole = f"{whole}.{overload}"
    if library == "torchvision":
        import torchvision.ops  # noqa: F401  # registers them

        if whole not in _known_operators():
            _known_operators.cache_clear()
    return whole in _known_operators()


def _compute_size(call: Callable[..., Any], *values: Any) -> Any:
    """Arithmetic of sizes; what is no size any more is refused, before it grows."""
    if not all(isinstance(value, (int, float)) for value in values):
        raise NotRunError("computes a size from something that is no number")
    found = call(*values)
    if isinstance(found, int) and abs(found) > LARGEST:
        raise NotRunError("computes a size that is too large")
    return found
