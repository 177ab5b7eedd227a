"""Judging the trials of a recorded study again, each by what its pruner compared it with.

Of each trial the last verdict is recorded: the one that stopped it, or let it go on for the last
time. A pruner compares what other trials had reported by then; halving also keeps with a trial
which rungs it has passed, which follows from what it reported.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from dlsearch.config.moved import current_name
from dlsearch.config.progress import training_length
from dlsearch.core.errors import ConfigError
from dlsearch.sampling.factory import build_pruner
from dlsearch.sampling.nodes import HYPERBAND
from dlsearch.study.seen import PrunerVerdict, SeenTrials
from dlsearch.study.states import RecordedTrialState
from dlsearch.verification.recorded_study import Attributes, RecordedStudy

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from dlsearch.core.types import ConfigTree
    from dlsearch.verification.report_file import ReplayReport, ReplayRow

_HALVING = (
    "optuna.pruners.SuccessiveHalvingPruner",
    "dlsearch.sampling.pruners.SuccessiveHalving",
    *HYPERBAND,
)
_PATIENT = "optuna.pruners.PatientPruner"
#: Pruners that go by what was reported, and nothing else.
_GO_BY_REPORTS = (
    "optuna.pruners.MedianPruner",
    "optuna.pruners.PercentilePruner",
    "optuna.pruners.ThresholdPruner",
    _PATIENT,
    *_HALVING,
)
_NO_PRUNER = "optuna.pruners.NopPruner"
#: An argument of a pruner that is measured in the first trial that completes.
_AUTO = "auto"
#: Arguments of halving pruners that measure where nothing is given.
_MEASURED = {
    "optuna.pruners.SuccessiveHalvingPruner": "min_resource",
    "dlsearch.sampling.pruners.SuccessiveHalving": "min_resource",
    **dict.fromkeys(HYPERBAND, "max_resource"),
}


@dataclass(frozen=True)
class DifferentVerdict:
    """A trial of which the pruner says something else now.

    Args:
        number: The trial's.
        epoch: After which epoch it was judged.
        recorded: Whether it was to stop, as recorded.
        again: Whether it is to stop now.
    """

    number: int
    epoch: int
    recorded: bool
    again: bool


@dataclass(frozen=True)
class VerdictCheck:
    """What came of judging the trials again.

    Args:
        judged: How many verdicts were repeated.
        stops: How many of these stopped their trial, as recorded.
        differs: Those that came out otherwise.
        unknown: Numbers of pruned trials of which the record has no verdict.
        why_not: Why none could be repeated; None where they were, or nothing prunes.
    """

    judged: int = 0
    stops: int = 0
    differs: list[DifferentVerdict] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    why_not: str | None = None


@dataclass(frozen=True)
class _Judged:
    """A verdict that is to be repeated."""

    row: ReplayRow
    verdict: PrunerVerdict
    seen: SeenTrials


def judge_again(report: ReplayReport) -> VerdictCheck:
    """Repeat the recorded verdicts of a study's pruner, and compare.

    Raises:
        ConfigError: What the report says was seen cannot be.
    """
    rows = report["replay"]
    unknown = [row["number"] for row in rows if _lacks_verdict(row)]
    judged = _read_verdicts(rows)
    if not judged and not unknown:
        return VerdictCheck()
    reason = _find_reason(report["study"].get("pruner"), judged, unknown)
    if reason is not None:
        return VerdictCheck(unknown=unknown, why_not=reason)
    differs = _Judge(report).repeat(judged)
    stops = sum(each.verdict.stop for each in judged)
    return VerdictCheck(
        len(judged),
        stops,
        differs,
        unknown,
    )


def _lacks_verdict(row: ReplayRow) -> bool:
    is_pruned = row["state"] == RecordedTrialState.PRUNED
    return is_pruned and row["verdict"] is None and row["duplicate_of"] is None


def _read_verdicts(rows: Sequence[ReplayRow]) -> list[_Judged]:
    """The recorded verdicts, each after those on trials that it saw ended."""
    found = []
    for row in rows:
        if row["verdict"] is None:
            continue
        try:
            verdict = PrunerVerdict.from_json(row["verdict"], len(rows))
        except ValueError as error:
            raise _bad_record(row["number"], error) from error
        if verdict.seen is not None:
            found.append(_Judged(row, verdict, verdict.seen))
    found.sort(key=lambda each: (each.seen.ended_count, each.row["number"]))
    return found


def _find_reason(
    node: ConfigTree | None,
    judged: Sequence[_Judged],
    unknown: Sequence[int],
) -> str | None:
    """Why the verdicts of a pruner cannot be repeated; None where they can."""
    if node is None or _target_of(node) == _NO_PRUNER:
        return "the record names no pruner"
    reason = _find_reason_of_pruner(node)
    if reason is not None:
        return reason
    if not judged:
        return "the record does not say what they saw"
    if unknown and _has_rungs(node):
        listed = ", ".join(map(str, unknown))
        return f"the record has no verdict on trial {listed}"
    return None


def _find_reason_of_pruner(node: ConfigTree) -> str | None:
    """Why no verdict of such a pruner can be repeated; None where one can."""
    target = _target_of(node)
    if target not in _GO_BY_REPORTS:
        return f"nothing is known of what {target} goes by"
    measured = _MEASURED.get(target)
    if measured is not None and node.get(measured, _AUTO) == _AUTO:
        return f"{target} measures {measured} itself, and each worker did so for itself"
    wrapped = _wrapped_in(node)
    return None if wrapped is None else _find_reason_of_pruner(wrapped)


def _has_rungs(node: ConfigTree) -> bool:
    """Whether a pruner goes by the rungs that others passed."""
    if _target_of(node) in _HALVING:
        return True
    wrapped = _wrapped_in(node)
    return wrapped is not None and _has_rungs(wrapped)


def _target_of(node: ConfigTree) -> str:
    return current_name(str(node.get("_target_")))


def _wrapped_in(node: ConfigTree) -> ConfigTree | None:
    """The pruner within another one."""
    wrapped = node.get("wrapped_pruner")
    return dict(wrapped) if isinstance(wrapped, Mapping) else None


class _Judge:
    """Repeats verdicts of one study."""

    def __init__(self, report: ReplayReport) -> None:
        """Rebuild the study."""
        self._study = report["study"]
        self._rows = report["replay"]
        self._recorded = RecordedStudy(self._study, self._rows)
        self._pruner = self._build()
        #: What halving keeps with a trial after each of its reports, by its number and the step.
        self._passed: dict[int, dict[int, Attributes]] = {}

    def _build(self) -> BasePruner:
        return build_pruner(
            self._study["pruner"],
            max_epochs=training_length(self._study["config"]["trainer"]).amount,
            direction=self._study["directions"][0],
        )

    def repeat(self, judged: Sequence[_Judged]) -> list[DifferentVerdict]:
        """Repeat verdicts; those that come out otherwise."""
        with_verdict = {each.row["number"] for each in judged}
        for row in self._rows:
            number = row["number"]
            if number not in with_verdict:
                self._recorded.note(number, self._last_passed(number))
        differs = []
        for each in judged:
            again = self._judge(each)
            if again != each.verdict.stop:
                number = each.row["number"]
                differs.append(
                    DifferentVerdict(number, each.verdict.epoch, each.verdict.stop, again)
                )
        differs.sort(key=lambda each: each.number)
        return differs

    def _judge(self, judged: _Judged) -> bool:
        number = judged.row["number"]
        epoch = judged.verdict.epoch
        try:
            trials = self._recorded.see(judged.seen)
        except ValueError as error:
            raise _bad_record(number, error) from error
        for open_number in judged.seen.open_numbers:
            last_step = judged.seen.steps.get(open_number)
            if last_step is not None:
                trial = trials[open_number]
                passed = self._passed_at(open_number, last_step)
                trial.system_attrs = {**trial.system_attrs, **passed}
        own = self._recorded.with_params(number, TrialState.RUNNING, epoch)
        own.system_attrs = self._passed_before(number, epoch)
        if number < len(trials):
            trials[number] = copy.copy(own)
        stop = self._recorded.judge(own, trials, self._pruner)
        self._recorded.note(number, own.system_attrs)
        return stop

    # -- what halving keeps with a trial -----------------------------------------------------------
    def _passed_at(self, number: int, step: int) -> Attributes:
        return self._all_passed(number).get(step, {})

    def _passed_before(self, number: int, step: int) -> Attributes:
        found: Attributes = {}
        for earlier, passed in self._all_passed(number).items():
            if earlier < step:
                found = passed
        return found

    def _last_passed(self, number: int) -> Attributes:
        found: Attributes = {}
        for passed in self._all_passed(number).values():
            found = passed
        return found

    def _all_passed(self, number: int) -> dict[int, Attributes]:
        """What is kept with a trial after each of its reports, as long as it goes on."""
        if number not in self._passed:
            self._passed[number] = self._follow(number)
        return self._passed[number]

    def _follow(self, number: int) -> dict[int, Attributes]:
        """Report for a trial that is alone in its study: it passes every rung that it reaches."""
        found = {}
        attributes: Attributes = {}
        steps = sorted(int(step) for step, _ in self._rows[number]["intermediate"])
        for step in steps:
            own = self._recorded.with_params(number, TrialState.RUNNING, step)
            own.system_attrs = attributes
            while self._recorded.judge(own, [own], self._pruner):
                if own.system_attrs == attributes:
                    break  # a value that is no number passes nothing
                attributes = own.system_attrs
            attributes = own.system_attrs
            found[step] = attributes
        return found


def _bad_record(number: int, error: ValueError) -> ConfigError:
    return ConfigError("report.json", f"what the verdict on trial {number} saw cannot be: {error}")
