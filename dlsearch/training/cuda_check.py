"""How torch asks whether there are GPUs."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quick_cuda_check() -> Iterator[None]:
    """Have torch ask the CUDA runtime, not NVML, for GPUs where there are none.

    Lightning's import has it ask NVML, which answers without touching CUDA. Where there is no NVML,
    torch looks for the library again and then asks the runtime after all, and Adam wants to know at
    every step: a quarter of a millisecond.
    """
    key = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(key)
    if before is None or torch.cuda.is_available():
        yield
        return
    os.environ[key] = "0"
    try:
        yield
    finally:
        os.environ[key] = before
