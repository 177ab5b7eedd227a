"""What the figures need of ``report.json`` beside its own types.

The figures read the file's own content, which :mod:`dlsearch.report.facts.contents` describes:
JSON as it was read, in which a row that is a tuple there is a list. The study's document is in it
as the record holds it; what the figures read of that is typed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from dlsearch.core.types import ParamValue
    from dlsearch.report.facts.contents import Report, TrialRow


class SpaceRow(TypedDict, total=False):
    """One dimension of the search space."""

    name: str
    kind: str
    low: float | None
    high: float | None
    step: float | None
    log: bool
    choices: list[ParamValue] | None


def find_trial(report: Report, number: int | None) -> TrialRow | None:
    """The trial of this number."""
    for trial in report["trials"]:
        if trial["number"] == number:
            return trial
    return None


def scored_trials(report: Report) -> list[TrialRow]:
    """The trials that count as results of the search."""
    return [trial for trial in report["trials"] if trial["scored"]]


def standing_of(trial: TrialRow) -> float:
    """The score of a trial that has one."""
    standing = trial["standing"]
    assert standing is not None
    return standing
