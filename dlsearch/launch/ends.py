"""What the ends of jobs mean for the study that they served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.errors import AWAY, DatabaseAwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hydra.core.utils import JobReturn

#: Exit codes of a worker: nothing is left to do; it was asked to stop.
DONE = 0
FAILED = 1
INTERRUPTED = 130


def was_interrupted(
    returns: Sequence[JobReturn],
    is_done: Callable[[], bool],
    patience_s: float,
) -> bool:
    """Whether jobs that have ended were asked to.

    Args:
        returns: Of the launcher. The return value of each is an exit code, or raises what ended it.
        is_done: Whether nothing is left of the study.
        patience_s: How long the workers waited for the database.

    Raises:
        DatabaseAwayError: It was away for longer.
        RuntimeError: No job served the study to its end.
    """
    codes, failure = _exit_codes(returns)
    if DONE in codes:  # a worker leaves when nothing is left to do
        return False
    if AWAY in codes:
        raise DatabaseAwayError(patience_s, "as its workers say")
    if INTERRUPTED in codes:
        return not is_done()
    if failure is not None and len(codes) == 1:
        raise failure
    if not is_done():
        ended = ", ".join(str(code) for code in sorted(set(codes)))
        raise RuntimeError(
            f"no worker served the study to its end: exit codes {ended}; what they said is above"
        )
    return False


def _exit_codes(returns: Sequence[JobReturn]) -> tuple[list[int], Exception | None]:
    """The exit code of each job, and the last exception that one of them raised."""
    codes = []
    failure = None
    for each in returns:
        try:
            codes.append(int(each.return_value or DONE))
        except Exception as error:  # what the other jobs did counts nevertheless
            codes.append(AWAY if isinstance(error, DatabaseAwayError) else FAILED)
            failure = error
    return codes, failure
