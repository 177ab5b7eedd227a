"""Facts of the data: how even the classes are, and how many examples several splits share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import Balance, DataFacts
    from dlsearch.report.study import DataDescription


def describe_data(data: DataDescription) -> DataFacts | None:
    """The balance of each split and the overlap of the splits; None where the data are unknown."""
    if not data.known:
        return None
    balance = {
        split: _measure_balance(counts)
        for split, counts in data.class_counts.items()
        if sum(counts)
    }
    return {
        "balance": balance,
        "overlap_index": data.overlap_index,
        "overlap_content": data.overlap_content,
    }


def _measure_balance(counts: list[int]) -> Balance:
    total = sum(counts)
    smallest = min(counts)
    largest = max(counts)
    return {
        "shares": [count / total for count in counts],
        "smallest": smallest,
        "largest": largest,
        "ratio": largest / smallest if smallest else None,
    }
