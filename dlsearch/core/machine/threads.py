"""How many threads a process computes with. Imports nothing heavy."""

from __future__ import annotations

import os

#: What OpenMP and the BLAS libraries read when they are loaded, and never again.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(count: int) -> dict[str, str]:
    """The environment variables for a process that has not loaded its libraries yet."""
    return dict.fromkeys(VARIABLES, str(count))


def limit_threads(count: int) -> None:
    """Have this process compute with `count` threads.

    A sum is made in as many parts, so results depend on the number.

    threadpoolctl limits each pool of a library that is loaded already, by the fork server that this
    process comes from. The environment is for libraries that are loaded later, and for the
    processes that this one starts.

    Args:
        count: Threads of each pool.
    """
    import threadpoolctl
    import torch

    os.environ.update(environment(count))
    torch.set_num_threads(count)
    threadpoolctl.threadpool_limits(limits=count)
