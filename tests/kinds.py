"""Which of many cases ``make test`` runs; ``make test-storms`` runs the others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest


def quick_if(cases: Iterable[Any], is_quick: Callable[[Any], bool]) -> list[Any]:
    """The cases as parameters of a test, those that are not quick marked as a storm's.

    Args:
        cases: For ``pytest.mark.parametrize``; tuples where a test has several arguments.
        is_quick: Whether ``make test`` runs a case.
    """
    found = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        found.append(pytest.param(*values, marks=() if is_quick(case) else pytest.mark.storm))
    return found


def first_of_each_kind(cases: Iterable[Any], kind_of: Callable[[Any], Hashable]) -> list[Any]:
    """The cases as parameters of a test, all but the first of each kind marked as a storm's.

    Args:
        cases: For ``pytest.mark.parametrize``; tuples where a test has several arguments.
        kind_of: What a case has in common with those that it stands for.
    """
    seen: set[Hashable] = set()

    def is_first(case: Any) -> bool:
        kind = kind_of(case)
        is_new = kind not in seen
        seen.add(kind)
        return is_new

    return quick_if(cases, is_first)
