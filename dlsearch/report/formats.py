"""How the report writes numbers, durations, times and names; one place, so that every page agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

#: Narrow no-break space, set between a number and its unit.
THIN = "\u202f"
#: What stands where there is no value.
NONE = "–"


def number(x: Any, digits: int = 4) -> str:
    """Write `x` with at most `digits` significant digits; integers are grouped by thousands."""
    if x is None:
        return NONE
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, int):
        return f"{x:,}".replace("-", "−")
    if not isinstance(x, float):
        return str(x)
    if not math.isfinite(x):
        return str(x)
    if x == 0:
        return "0"
    if 1e-3 <= abs(x) < 1e6:
        text = f"{x:.{max(0, digits - 1 - math.floor(math.log10(abs(x))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}e{int(exponent)}"
    return ("−" + text[1:]) if text.startswith("-") else text


def score(x: float | None, percent: bool) -> str:
    """Write an objective's value: in per cent with two decimals for a rate, else with decimals that fit its size.

    The decimals are fixed, so that the scores of a column stand under one another.
    """
    if x is None:
        return NONE
    if percent:
        text = f"{100 * x:.2f}{THIN}%"
    elif x == 0 or 0.01 <= abs(x) < 10:
        text = f"{x:.4f}"
    elif 10 <= abs(x) < 1e9:
        text = f"{x:,.0f}" if float(x).is_integer() or abs(x) >= 1e5 else f"{x:,.2f}"
    else:
        text = number(float(x))
    return text.replace("-", "−") if text.startswith("-") else text


def difference(x: float | None, percent: bool, *, bare: bool = False) -> str:
    """Write the difference of two scores with its sign; of two rates, in percentage points (`bare`: the number)."""
    if x is None:
        return NONE
    if percent:
        return f"{100 * x:+.2f}{'' if bare else ' points'}".replace("-", "−")
    text = score(float(x), False)
    return text if text.startswith("−") else f"+{text}"


def interval(ends: Sequence[float] | None, percent: bool) -> str:
    """Write an interval of scores: ``98.96 to 99.32 %``; empty where there is none."""
    if not ends:
        return ""
    low, high = (score(x, percent) for x in ends)
    return f"{low.removesuffix(f'{THIN}%')} to {high}"


def probability(p: float | None) -> str:
    """Write a probability in per cent, and never as certain."""
    if p is None:
        return NONE
    if p > 0.999:
        return f"more than 99.9{THIN}%"
    return f"less than 0.1{THIN}%" if p < 0.001 else f"{100 * p:.1f}{THIN}%"


def percent(x: float | None, digits: int = 1) -> str:
    """Write a share in per cent."""
    return NONE if x is None else f"{100 * x:.{digits}f}{THIN}%"


def duration(seconds: float | None) -> str:
    """Write a length of time in the unit that suits it."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    if seconds < 120:
        return f"{seconds:.0f}{THIN}s"
    if seconds < 7200:
        return f"{seconds / 60:.1f}{THIN}min"
    return f"{seconds / 3600:.1f}{THIN}h"


def when(iso: str | None) -> str:
    """Write an ISO time as UTC to the second."""
    if not iso:
        return NONE
    return datetime.fromtimestamp(epoch(iso), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def epoch(iso: str) -> float:
    """Seconds since 1970 of an ISO time; a time without a zone is UTC.

    Raises:
        ValueError: `iso` is no ISO time.
    """
    moment = datetime.fromisoformat(iso)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def short(text: str, length: int = 28) -> str:
    """Shorten `text` in its middle, where names that share a prefix and a suffix differ least."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def plural(n: int, noun: str, many: str | None = None) -> str:
    """Write a count with its noun: ``1 trial``, ``2 trials``."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def listed(items: list[str]) -> str:
    """Join with commas and a final *and*."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "none"
