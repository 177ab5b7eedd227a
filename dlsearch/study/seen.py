"""What a proposal, or a pruner's verdict, saw of a study's trials: enough to make it again.

Trials end in one order, and a trial that has ended never changes. So what was seen is how many
trials there were and which of them had not ended: all the others had. That is some ten bytes,
however many trials there are; of the open ones, ranges of numbers are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from optuna.pruners import NopPruner
from optuna.trial import TrialState

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import optuna
    from optuna.trial import FrozenTrial

#: User attribute of a duplicate, of which no attempt is kept: what its proposal saw.
SEEN = "dlsearch:seen"
_OPEN_STATES = (TrialState.RUNNING, TrialState.WAITING)
#: The lists of open trials, by their names in JSON.
_OPEN_LISTS = ("running", "proposing", "waiting", "released")

#: The last step that a trial had reported, by its number as text.
StepsByNumber: TypeAlias = dict[str, int]


class SeenJson(TypedDict, total=False):
    """What was seen, as JSON; a list without trials is left out.

    Numbers of trials are ranges in a text: ``"3,5-7"``.
    """

    trials: int
    running: str
    proposing: str
    waiting: str
    released: str
    steps: StepsByNumber


class VerdictJson(TypedDict, total=False):
    """A verdict, as JSON; ``seen`` is left out where the pruner goes by the trial alone."""

    epoch: int
    stop: bool
    seen: SeenJson


@dataclass(frozen=True)
class SeenTrials:
    """The trials of a study at one moment.

    Args:
        count: How many there were.
        running: Numbers of those that ran, with parameters.
        proposing: Numbers of those that were claimed, and had no parameters yet.
        waiting: Numbers of those that waited for their first claim.
        released: Numbers of those that waited and had parameters: an attempt at them was lost or
            given back.
        steps: The last step that each open trial had reported, by number; of a verdict alone.
    """

    count: int
    running: tuple[int, ...] = ()
    proposing: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    released: tuple[int, ...] = ()
    steps: Mapping[int, int] = field(default_factory=dict)

    @property
    def open_numbers(self) -> set[int]:
        """Numbers of the trials that had not ended."""
        return {*self.running, *self.proposing, *self.waiting, *self.released}

    @property
    def ended_count(self) -> int:
        """How many trials had ended."""
        return self.count - len(self.open_numbers)

    @property
    def settled_count(self) -> int:
        """How many trials had their parameters, or had ended."""
        return self.count - len(self.proposing) - len(self.waiting)

    def to_json(self) -> SeenJson:
        """As plain JSON."""
        found: SeenJson = {"trials": self.count}
        if self.running:
            found["running"] = write_ranges(self.running)
        if self.proposing:
            found["proposing"] = write_ranges(self.proposing)
        if self.waiting:
            found["waiting"] = write_ranges(self.waiting)
        if self.released:
            found["released"] = write_ranges(self.released)
        if self.steps:
            found["steps"] = {str(number): step for number, step in self.steps.items()}
        return found

    @classmethod
    def from_json(cls, found: object, known: int) -> SeenTrials:
        """What plain JSON says was seen.

        Args:
            found: The JSON.
            known: How many trials the study has in all.

        Raises:
            ValueError: It is no such JSON, or names trials that the study does not have.
        """
        if not isinstance(found, Mapping):
            raise ValueError("expected a JSON object")
        count = found.get("trials")
        if type(count) is not int or not 0 <= count <= known:
            raise ValueError(f"expected a number of trials up to {known}, got {count!r}")
        open_lists = {}
        for name in _OPEN_LISTS:
            open_lists[name] = read_ranges(found.get(name, ""), count)
        steps = _read_steps(found.get("steps", {}), count)
        return cls(count, **open_lists, steps=steps)


@dataclass(frozen=True)
class PrunerVerdict:
    """What a pruner said of a trial, and what it compared with.

    Args:
        epoch: After which epoch.
        stop: Whether the trial was to stop.
        seen: The trials of the study then; None where the pruner goes by the trial alone.
    """

    epoch: int
    stop: bool
    seen: SeenTrials | None

    def to_json(self) -> VerdictJson:
        """As plain JSON."""
        found: VerdictJson = {"epoch": self.epoch, "stop": self.stop}
        if self.seen is not None:
            found["seen"] = self.seen.to_json()
        return found

    @classmethod
    def from_json(cls, found: object, known: int) -> PrunerVerdict:
        """The verdict that plain JSON describes.

        Args:
            found: The JSON.
            known: How many trials the study has in all.

        Raises:
            ValueError: It is no such JSON.
        """
        if not isinstance(found, Mapping):
            raise ValueError("expected a JSON object")
        epoch = found.get("epoch")
        stop = found.get("stop")
        if type(epoch) is not int or not isinstance(stop, bool):
            raise ValueError("expected an epoch, and whether to stop")
        seen = found.get("seen")
        return cls(epoch, stop, None if seen is None else SeenTrials.from_json(seen, known))


class SeenNotes:
    """Notes what the proposals and verdicts of one open study saw, until the study writes it.

    Nothing is asked of the database: a proposal and a verdict go by trials that were just read,
    and so do the notes.

    Args:
        enabled: Whether anything is noted. It is not where the trials cannot be held still while
            they are looked at, or where parameters and ends are taken from a record.
    """

    def __init__(self, *, enabled: bool) -> None:
        """Nothing was seen yet."""
        self._enabled = enabled
        #: What the proposal under way sees, as JSON; None where nothing is proposed.
        self.proposal: str | None = None
        self._verdicts: dict[str, str] = {}

    def note_proposal(self, study: optuna.Study, trial: optuna.Trial) -> None:
        """Note what a proposal will see; nothing where the trial has its parameters already.

        Args:
            study: Optuna's study, of which nothing is read anew meanwhile.
            trial: The trial that will be proposed.
        """
        self.proposal = None
        if self._enabled and not trial.params:
            seen = _look_at(study, with_steps=False)
            if trial.number not in seen.open_numbers:  # Optuna's cache does not list it as open yet
                seen = replace(seen, proposing=(*seen.proposing, trial.number))
            self.proposal = _write_json(seen.to_json())

    def has_verdicts(self, study: optuna.Study) -> bool:
        """Whether the study's pruner says anything that is worth noting."""
        return self._enabled and not isinstance(study.pruner, NopPruner)

    def note_verdict(
        self,
        study: optuna.Study,
        still: AbstractContextManager[None],
        token: str,
        epoch: int,
        *,
        stop: bool,
    ) -> None:
        """Note a verdict, with the trials that the pruner has just read.

        Args:
            study: Optuna's study.
            still: Within it, nothing of the study is read anew.
            token: The fencing token of the attempt.
            epoch: After which epoch the trial was judged.
            stop: Whether it is to stop.
        """
        if not self.has_verdicts(study):
            return
        with still:
            seen = _look_at(study, with_steps=True)
        verdict = PrunerVerdict(epoch, stop, seen)
        self._verdicts[token] = _write_json(verdict.to_json())

    def last_verdict(self, token: str) -> str | None:
        """The last verdict on an attempt, as JSON; None where it was never judged here."""
        return self._verdicts.get(token)

    def forget_attempt(self, token: str) -> None:
        """Forget an attempt that has ended."""
        self._verdicts.pop(token, None)


def _look_at(study: optuna.Study, *, with_steps: bool) -> SeenTrials:
    count = len(study.get_trials(deepcopy=False))
    lists: dict[str, list[int]] = {name: [] for name in _OPEN_LISTS}
    steps = {}
    for trial in study.get_trials(deepcopy=False, states=_OPEN_STATES):
        lists[_name_list(trial)].append(trial.number)
        if with_steps and trial.intermediate_values:
            steps[trial.number] = max(trial.intermediate_values)
    return SeenTrials(
        count,
        running=tuple(lists["running"]),
        proposing=tuple(lists["proposing"]),
        waiting=tuple(lists["waiting"]),
        released=tuple(lists["released"]),
        steps=steps,
    )


def _name_list(trial: FrozenTrial) -> str:
    """The list to which an open trial belongs."""
    if trial.state is TrialState.RUNNING:
        return "running" if trial.params else "proposing"
    return "released" if trial.params else "waiting"


def _write_json(found: SeenJson | VerdictJson) -> str:
    return json.dumps(found, separators=(",", ":"))


# -- ranges of numbers -----------------------------------------------------------------------------
def write_ranges(numbers: Iterable[int]) -> str:
    """Numbers as a text: ``3,5-7`` for 3, 5, 6 and 7."""
    parts = []
    first = last = None
    for number in sorted(numbers):
        if last is not None and number == last + 1:
            last = number
            continue
        if first is not None:
            parts.append(_write_range(first, last))
        first = last = number
    if first is not None:
        parts.append(_write_range(first, last))
    return ",".join(parts)


def _write_range(first: int, last: int | None) -> str:
    return str(first) if first == last else f"{first}-{last}"


def read_ranges(text: object, count: int) -> tuple[int, ...]:
    """The numbers that :func:`write_ranges` wrote.

    Args:
        text: The ranges.
        count: The numbers lie below it.

    Raises:
        ValueError: It is no such text, or a number lies beyond.
    """
    if not isinstance(text, str):
        raise ValueError(f"expected ranges of numbers, got {text!r}")
    if not text:
        return ()
    numbers: list[int] = []
    next_least = 0
    for part in text.split(","):
        first, last = _read_range(part)
        if not next_least <= first <= last < count:
            raise ValueError(f"expected ascending numbers below {count}, got {part}")
        numbers.extend(range(first, last + 1))
        next_least = last + 1
    return tuple(numbers)


def _read_range(part: str) -> tuple[int, int]:
    first_word, dash, last_word = part.partition("-")
    first = int(first_word)
    last = int(last_word) if dash else first
    return first, last


def _read_steps(found: object, count: int) -> dict[int, int]:
    if not isinstance(found, Mapping):
        raise ValueError("expected steps by the trial's number")
    steps = {}
    for word, step in found.items():
        number = int(word)
        if not 0 <= number < count or type(step) is not int:
            raise ValueError(f"expected the step of a trial below {count}, got {word}: {step!r}")
        steps[number] = step
    return steps
