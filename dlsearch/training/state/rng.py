"""The state of every random number generator, taken and put back."""

from __future__ import annotations

import random
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor


class RngState(TypedDict):
    """The state of every random number generator, of types that ``weights_only`` loads.

    Args:
        python: Of the module ``random``: version, internal state, next Gaussian number.
        numpy: Of the global generator: its kind, keys as int64, position, whether a Gaussian number
            is kept, and this number.
        torch: Of the CPU.
        cuda: Of each GPU, where CUDA is in use.
    """

    python: tuple[Any, ...]
    numpy: tuple[str, Tensor, int, int, float]
    torch: Tensor
    cuda: NotRequired[list[Tensor]]


def rng_state() -> RngState:
    """Take the state of every random number generator."""
    # user code draws from NumPy's global generator
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, cached = numpy_state
    numpy_keys = torch.from_numpy(np.asarray(keys).astype(np.int64))
    state: RngState = {
        "python": random.getstate(),
        "numpy": (str(kind), numpy_keys, position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: RngState) -> None:
    """Put back what :func:`rng_state` took."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy_keys = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, numpy_keys, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        on_cpu = [each.cpu() for each in state["cuda"]]
        torch.cuda.set_rng_state_all(on_cpu)
