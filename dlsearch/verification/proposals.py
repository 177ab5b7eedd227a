"""Drawing the proposals of a recorded study again, each from what it saw.

A proposal is a function of the study's seed, the trial's number, and the trials that the sampler
saw. The record has all three, so that it can be drawn again whoever else proposed beside it, and
in whatever order results came.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from dlsearch.config.moved import current_name
from dlsearch.config.progress import training_length
from dlsearch.core.errors import ConfigError
from dlsearch.sampling.factory import build_pruner, build_sampler
from dlsearch.sampling.nodes import CMAES, GRID, HYPERBAND, QMC, TPE
from dlsearch.study.seen import SeenTrials
from dlsearch.study.states import RecordedTrialState
from dlsearch.verification.recorded_study import RecordedStudy, is_given

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from dlsearch.core.types import Params
    from dlsearch.verification.recorded_study import Proposal
    from dlsearch.verification.report_file import ReplayReport, ReplayRow

_RANDOM = "optuna.samplers.RandomSampler"
_GP = "optuna.samplers.GPSampler"
_NSGA2 = "optuna.samplers.NSGAIISampler"
_NSGA3 = "optuna.samplers.NSGAIIISampler"
#: Samplers whose proposals depend on nothing but the study's seed and the trial's number.
_INDEPENDENT = (_RANDOM,)
#: Samplers that go by the trials that they see, and nothing else.
_GO_BY_TRIALS = (TPE, CMAES, _GP, GRID)
#: Samplers that keep something with the trials that later proposals go by: one unknown proposal
#: leaves the others unknown.
_CHAINED = (CMAES, QMC, _NSGA2, _NSGA3)
#: Samplers that keep something with the study, which each proposal reads as it is at that moment.
_GO_BY_STUDY = (QMC, _NSGA2, _NSGA3)
#: What may stand inside of a sampler's config.
_KNOWN_PACKAGES = ("optuna.", "dlsearch.")


@dataclass(frozen=True)
class DifferentProposal:
    """A trial whose recorded parameters are not what the sampler proposes.

    Args:
        number: The trial's.
        recorded: Its parameters in the record.
        again: What was drawn.
    """

    number: int
    recorded: Params
    again: Params


@dataclass(frozen=True)
class ProposalCheck:
    """What came of drawing the proposals again.

    Args:
        drawn: How many were drawn again.
        differs: Those that are not as recorded.
        given: Trials whose parameters were given, not proposed.
        unknown: Numbers of trials of which the record does not say what their proposals saw.
        why_not: Why none could be drawn again; None where they were.
    """

    drawn: int = 0
    differs: list[DifferentProposal] = field(default_factory=list)
    given: int = 0
    unknown: list[int] = field(default_factory=list)
    why_not: str | None = None

    def differences_to_json(self) -> list[dict[str, object]] | None:
        """The proposals that differ, as plain JSON; None where none was drawn."""
        if self.why_not is not None:
            return None
        return [asdict(each) for each in self.differs]


@dataclass(frozen=True)
class _Ask:
    """A proposal that is to be drawn again."""

    row: ReplayRow
    seen: SeenTrials


def draw_again(report: ReplayReport) -> ProposalCheck:
    """Draw all proposals of a study again, and compare.

    Raises:
        ConfigError: What the report says was seen cannot be.
    """
    study = report["study"]
    target = current_name(str(study["sampler"].get("_target_")))
    proposed = [row for row in report["replay"] if _was_proposed(row)]
    given = sum(is_given(row) for row in proposed)
    asks, unknown = _read_asks(report, proposed, target)
    reason = _find_reason(target, report, asks, unknown)
    if reason is not None:
        return ProposalCheck(given=given, unknown=unknown, why_not=reason)
    asks.sort(key=_order_of)
    drawn = 0
    differs = []
    for ask, proposal in _draw(report, asks):
        if is_given(ask.row):
            continue
        drawn += 1
        different = _compare_params(ask.row, proposal)
        if different is not None:
            differs.append(different)
    differs.sort(key=lambda each: each.number)
    return ProposalCheck(drawn, differs, given, unknown)


def _compare_params(row: ReplayRow, proposal: Proposal) -> DifferentProposal | None:
    """What differs; None where the proposal is as recorded, to the last bit."""
    recorded = row["params"]
    text = json.dumps(proposal.params)  # the record went through JSON
    again = json.loads(text)
    if again == recorded:
        return None
    return DifferentProposal(row["number"], recorded, again)


def _was_proposed(row: ReplayRow) -> bool:
    if row["seen"] is not None:
        return True
    # Parameters that were given are in the record before the trial is claimed.
    return bool(row["params"]) and row["state"] != RecordedTrialState.WAITING


def _draw(report: ReplayReport, asks: Sequence[_Ask]) -> Iterator[tuple[_Ask, Proposal]]:
    """Draw proposals, each after those that it saw."""
    study = report["study"]
    recorded = RecordedStudy(study, report["replay"])
    pruner = _build_hyperband(report)
    for ask in asks:
        number = ask.row["number"]
        sampler = build_sampler(
            study["sampler"],
            space=recorded.space,
            study_seed=study["seed"],
            number=number,
            directions=study["directions"],
            arm=recorded.open_arm(number, pruner),
        )
        try:
            trials = recorded.see(ask.seen)
        except ValueError as error:
            raise _bad_record(number, error) from error
        proposal = recorded.propose(number, trials, sampler, pruner)
        recorded.note(number, proposal.system_attrs)
        yield ask, proposal


def _order_of(ask: _Ask) -> tuple[int, int, int]:
    """A proposal comes after all that it saw: these had their parameters."""
    return ask.seen.settled_count, ask.seen.count, ask.row["number"]


def _build_hyperband(report: ReplayReport) -> BasePruner | None:
    """The study's pruner where it is a Hyperband, by which Optuna shows a sampler fewer trials."""
    study = report["study"]
    node = study.get("pruner")
    if node is None or current_name(str(node.get("_target_"))) not in HYPERBAND:
        return None
    return build_pruner(
        node,
        max_epochs=training_length(study["config"]["trainer"]).amount,
        direction=study["directions"][0],
    )


# -- what can be drawn again -----------------------------------------------------------------------
def _read_asks(
    report: ReplayReport,
    proposed: Sequence[ReplayRow],
    target: str,
) -> tuple[list[_Ask], list[int]]:
    """The proposals to draw, and the numbers of those of which it is not known what they saw."""
    known = len(report["replay"])
    asks = []
    unknown = []
    for row in proposed:
        number = row["number"]
        if target in _INDEPENDENT:
            asks.append(_Ask(row, SeenTrials(0)))
        elif row["seen"] is None:
            if target in _CHAINED or not is_given(row):
                unknown.append(number)
        else:
            try:
                asks.append(_Ask(row, SeenTrials.from_json(row["seen"], known)))
            except ValueError as error:
                raise _bad_record(number, error) from error
    return asks, unknown


def _find_reason(
    target: str,
    report: ReplayReport,
    asks: Sequence[_Ask],
    unknown: Sequence[int],
) -> str | None:
    """Why the proposals of a study cannot be drawn again; None where they can."""
    if target in _INDEPENDENT:
        return None
    if target not in (*_GO_BY_TRIALS, *_GO_BY_STUDY):
        return f"nothing is known of what {target} goes by"
    foreign = _find_foreign(report["study"]["sampler"])
    if foreign is not None:
        return f"nothing is known of what {foreign} goes by"
    if not asks:
        return "the record does not say what they saw"
    if unknown and target in _CHAINED:
        listed = ", ".join(map(str, unknown))
        return f"each goes by those before, and the record does not say what trial {listed} saw"
    if target == GRID and any(row["enqueued"] for row in report["replay"]):
        return "the record does not say which values of a trial were given"
    if target in _GO_BY_STUDY and not _was_alone(asks, target):
        return f"{target} goes by what workers wrote at the same time, which is not recorded"
    return None


def _find_foreign(node: object) -> str | None:
    """A target within a sampler's config that belongs to another package."""
    if isinstance(node, list):
        inner = list(node)
    elif isinstance(node, Mapping):
        target = str(node.get("_target_", _RANDOM))
        if not current_name(target).startswith(_KNOWN_PACKAGES):
            return target
        inner = list(node.values())
    else:
        return None
    for value in inner:
        foreign = _find_foreign(value)
        if foreign is not None:
            return foreign
    return None


def _was_alone(asks: Sequence[_Ask], target: str) -> bool:
    """Whether nothing was written to the study between a proposal's look and its end.

    Quasi-random sequences are drawn under the study's lock; others only where one worker with one
    slot ran.
    """
    for ask in asks:
        seen = ask.seen
        others = {*seen.running, *seen.proposing} - {ask.row["number"]}
        if seen.released or (others and target != QMC):
            return False
    return True


def _bad_record(number: int, error: ValueError) -> ConfigError:
    return ConfigError("report.json", f"what trial {number} saw cannot be: {error}")
