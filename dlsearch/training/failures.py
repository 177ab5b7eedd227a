"""What an exception of a training was: no memory left, or something else."""

from __future__ import annotations

import torch

from dlsearch.core.text import clean_line, text_of

#: What the allocators say, beside torch's own error: CUDA's context, a library's workspace,
#: the CPU's.
_NO_MEMORY = (
    "out of memory",
    "ALLOC_FAILED",
    "not enough memory",
    "an't allocate memory",
    "annot allocate memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = text_of(error)
    return any(words in text for words in _NO_MEMORY)


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, clean; its type's name where it has none."""
    lines = text_of(error).splitlines() or [""]
    return clean_line(lines[0] or type(error).__name__)
