"""How the report writes numbers, durations, times and names.

One place, so that every page agrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

#: Narrow no-break space, set between a number and its unit.
THIN = "\u202f"
#: What is written where there is no value.
NONE = "–"

# A number below or from these sizes is written with an exponent.
_SMALLEST_PLAIN = 1e-3
_LARGEST_PLAIN = 1e6

# A smaller p value is not written out.
_LEAST_P = 0.001

# From these seconds on, a duration is written without decimals, in minutes, in hours.
_WHOLE_SECONDS = 10
_MINUTES = 120
_HOURS = 7200


def number(x: Any, digits: int = 4) -> str:
    """Write `x` with at most `digits` significant digits; integers are grouped by thousands."""
    if x is None:
        return NONE
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, int):
        return f"{x:,}".replace("-", "−")
    if isinstance(x, float) and math.isfinite(x):
        return _with_minus_sign(_write_float(x, digits))
    return str(x)


def _write_float(x: float, digits: int) -> str:
    if x == 0:
        return "0"
    if _SMALLEST_PLAIN <= abs(x) < _LARGEST_PLAIN:
        order = math.floor(math.log10(abs(x)))
        decimals = max(0, digits - 1 - order)
        return _without_trailing_zeros(f"{x:.{decimals}f}")
    with_exponent = f"{x:.{digits - 1}e}"
    mantissa, exponent = with_exponent.split("e")
    short_mantissa = _without_trailing_zeros(mantissa)
    return f"{short_mantissa}e{int(exponent)}"


def _without_trailing_zeros(text: str) -> str:
    if "." not in text:
        return text
    return text.rstrip("0").rstrip(".")


def _with_minus_sign(text: str) -> str:
    """Put the sign minus in the place of a hyphen before the number."""
    if text.startswith("-"):
        return f"−{text[1:]}"
    return text


def score(x: float | None, percent: bool) -> str:
    """Write an objective's value.

    A rate is written in per cent with two decimals, another value with decimals that fit its size.
    The decimals are fixed, so that the scores of a column can be compared digit by digit.
    """
    if x is None:
        return NONE
    if percent:
        return _with_minus_sign(f"{100 * x:.2f}{THIN}%")
    return _with_minus_sign(_write_score(x))


def _write_score(x: float) -> str:
    size = abs(x)
    if size == 0 or 0.01 <= size < 10:
        return f"{x:.4f}"
    if not 10 <= size < 1e9:
        return number(float(x))
    is_whole = float(x).is_integer()
    decimals = 0 if is_whole or size >= 1e5 else 2
    return f"{x:,.{decimals}f}"


def difference(x: float | None, percent: bool, *, bare: bool = False) -> str:
    """Write the difference of two scores with its sign.

    That of two rates is in percentage points; `bare` leaves out the unit.
    """
    if x is None:
        return NONE
    if percent:
        unit = "" if bare else " points"
        return f"{100 * x:+.2f}{unit}".replace("-", "−")
    text = score(float(x), False)
    return text if text.startswith("−") else f"+{text}"


def interval(ends: Sequence[float] | None, percent: bool) -> str:
    """Write an interval of scores: ``98.96 to 99.32 %``; empty where there is none."""
    if not ends:
        return ""
    low, high = (score(end, percent) for end in ends)
    without_unit = low.removesuffix(f"{THIN}%")
    return f"{without_unit} to {high}"


def p_value(p: float | None) -> str:
    """Write a p value with two digits, and never as zero."""
    if p is None:
        return NONE
    return f"< {_LEAST_P}" if p < _LEAST_P else f"{p:.2g}"


def probability(p: float | None) -> str:
    """Write a probability in per cent, and never as certain."""
    if p is None:
        return NONE
    if p > 0.999:
        return f"more than 99.9{THIN}%"
    if p < 0.001:
        return f"less than 0.1{THIN}%"
    return f"{100 * p:.1f}{THIN}%"


def percent(x: float | None, digits: int = 1) -> str:
    """Write a share in per cent."""
    if x is None:
        return NONE
    return f"{100 * x:.{digits}f}{THIN}%"


def duration(seconds: float | None) -> str:
    """Write a length of time in the unit that suits it."""
    if seconds is None:
        return NONE
    if seconds < _WHOLE_SECONDS:
        return f"{seconds:.1f}{THIN}s"
    if seconds < _MINUTES:
        return f"{seconds:.0f}{THIN}s"
    if seconds < _HOURS:
        return f"{seconds / 60:.1f}{THIN}min"
    return f"{seconds / 3600:.1f}{THIN}h"


def when(iso: str | None) -> str:
    """Write an ISO time as UTC to the second."""
    if not iso:
        return NONE
    moment = datetime.fromtimestamp(epoch(iso), UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def epoch(iso: str) -> float:
    """Seconds since 1970 of an ISO time; a time without a zone is UTC.

    Raises:
        ValueError: `iso` is no ISO time.
    """
    moment = datetime.fromisoformat(iso)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def short(text: str, length: int = 28) -> str:
    """Shorten `text` in its middle, where names that share a prefix and a suffix differ least."""
    one_line = " ".join(text.split())
    if len(one_line) <= length:
        return one_line
    n_head = (length - 1) // 2
    n_tail = length - 1 - n_head
    head = one_line[:n_head]
    tail = one_line[len(one_line) - n_tail :]
    return f"{head}…{tail}"


def plural(n: int, noun: str, many: str | None = None) -> str:
    """Write a count with its noun: ``1 trial``, ``2 trials``."""
    if n == 1:
        return f"{n:,} {noun}"
    return f"{n:,} {many or noun + 's'}"


def times(n: int) -> str:
    """Write how often: ``once``, ``twice``, ``3 times``."""
    return {0: "never", 1: "once", 2: "twice"}.get(n, f"{n:,} times")


def listed(items: list[str]) -> str:
    """Join with commas and a final *and*."""
    if not items:
        return "none"
    if len(items) == 1:
        return items[0]
    first = ", ".join(items[:-1])
    return f"{first} and {items[-1]}"
