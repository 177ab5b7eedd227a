"""What a study and those who serve it tell each other.

Claims, results and ends, as frozen values with fields.

They are dataclasses of plain data, so that they import nothing heavy, compare by value and can be
sent as JSON (see :mod:`dlsearch.study.wire`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dlsearch.core.failure_cause import FailureCause
from dlsearch.core.text import clean_line, clean_value
from dlsearch.core.types import JsonObject, Params  # noqa: TC001  # dlsearch.study.wire reads the annotations
from dlsearch.study.states import COUNTED_STATES, AttemptKind, AttemptState, FailureReason
from dlsearch.tracking import layout


@dataclass(frozen=True)
class Claim:
    """A trial, or a part of the confirmation, that one worker holds.

    Args:
        kind: What is to be done.
        number: The trial's number; of the attempt's row where it is no trial.
        attempt: Which try this is, from 1.
        token: The fencing token.
        params: Searched values, decoded.
        seed: The trial's seed.
        trial_timeout_s: How long the attempt may take, as the study had it when this one was
            claimed; None for no limit.
    """

    kind: AttemptKind
    number: int
    attempt: int
    token: str
    params: Params
    seed: int
    trial_timeout_s: float | None


@dataclass(frozen=True)
class Finalist:
    """A configuration that is trained again.

    Args:
        trial_number: The trial that found it; None for the default configuration where no trial ran
            it.
        default: Whether it is the default configuration.
        params: Searched values; the config as composed has them where no trial has.
        search_value: What it scored in the search; None where it has no score.
    """

    trial_number: int | None
    default: bool
    params: Params
    search_value: float | None

    @property
    def trained_params(self) -> Params:
        """What is put into the config to train it: nothing, where it is the config as composed."""
        if self.trial_number is None:
            return {}
        return self.params


@dataclass(frozen=True)
class ConfirmClaim(Claim):
    """A part of a round of confirmation that one worker holds.

    Args:
        round: The round, from 1.
        finalist: Whose replica it is, or the winner.
        replica: Which replica; None for the training on train + validation, and for the scoring.
        epochs: How long a training on train + validation lasts.
    """

    round: int
    finalist: Finalist
    replica: int | None
    epochs: int | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        if self.replica is None:
            return f"r{self.round}-{self.kind}"
        return layout.replica_name(
            self.round,
            self.finalist.trial_number,
            self.replica,
        )


@dataclass(frozen=True)
class Result:
    """What the process of an attempt returns; what it does not say is None.

    A training fills it from :class:`dlsearch.training.run.FitResult`, whose fields it has. What
    else that says is kept in `more`, and reaches the storage.

    Args:
        state: ``complete``, ``pruned`` or ``failed``.
        reason: Why it failed.
        error: One line of it.
        values: The objectives, at the best epoch of the first; None unless complete.
        best_epoch: Counted from 0.
        best_step: Global step at the end of that epoch.
        epochs: Epochs trained, those before a resumption included.
        n_params: Trainable parameters.
        summary: The final and best metrics.
        seconds: Of this attempt.
        history: (epoch, first objective) of every validated epoch.
        peak_memory_mib: What torch's allocator held on the GPU at the peak.
        micro_batches: Parts in which each batch was trained.
        halve: Whether it ran out of memory, and might not in twice as many parts.
        test: The test report, where the test set was opened.
        cause: Why it failed, in parts.
        more: What else was said: plain JSON by key.
    """

    state: AttemptState
    reason: FailureReason | None = None
    error: str | None = None
    values: list[float] | None = None
    best_epoch: int | None = None
    best_step: float | None = None
    epochs: int | None = None
    n_params: float | None = None
    summary: JsonObject | None = None
    seconds: float | None = None
    history: list[list[float]] | None = None
    peak_memory_mib: float | None = None
    micro_batches: int | None = None
    halve: bool | None = None
    test: JsonObject | None = None
    cause: FailureCause | None = None
    more: JsonObject = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: Result | Mapping[str, Any]) -> Result:
        """The result that plain JSON describes; one that is a result already is returned as it is.

        Raises:
            KeyError: It names no state.
            TypeError: It is no JSON object.
            ValueError: Its state or its reason is none of the words for it.
        """
        if isinstance(found, Result):
            return found
        if not isinstance(found, Mapping):
            raise TypeError(f"a result is a JSON object, not {type(found).__name__}")
        state = AttemptState(found["state"])
        if state not in COUNTED_STATES:
            raise ValueError(f"no attempt returns that it is {state}")
        reason = found.get("reason")
        known: JsonObject = {}
        more: JsonObject = {}
        for key, value in found.items():
            destination = known if key in _RESULT_FIELDS else more
            destination[key] = value
        known["state"] = state
        known["reason"] = None if reason is None else FailureReason(reason)
        known["cause"] = FailureCause.from_json(found.get("cause"))
        return cls(**known, more=more)

    def to_json(self) -> JsonObject:
        """As plain JSON: what is known, and what else was said."""
        found: JsonObject = {}
        for name in _RESULT_FIELDS:
            value = getattr(self, name)
            if isinstance(value, FailureCause):
                found[name] = value.to_json()
            elif value is not None:
                found[name] = value
        return {**found, **self.more}

    def cleaned(self) -> Result:
        """The same with text that every database takes."""
        clean = clean_value(self.to_json())
        error = clean.get("error")
        if error is not None:
            clean["error"] = clean_line(str(error))
        return Result.from_json(clean)


_RESULT_FIELDS = tuple(each.name for each in fields(Result) if each.name != "more")


@dataclass(frozen=True)
class Ending:
    """The end of an attempt.

    Args:
        state: ``complete pruned failed`` count; after ``interrupted`` and ``lost`` the trial waits.
        reason: Why, where it is not obvious.
        error: One line.
        result: What the study records; None unless it counts. Plain JSON becomes a result.
    """

    state: AttemptState
    reason: FailureReason | None = None
    error: str | None = None
    result: Result | None = None

    def __post_init__(self) -> None:
        """Give words and plain JSON, as files have them, their types."""
        object.__setattr__(self, "state", AttemptState(self.state))
        if self.reason is not None:
            object.__setattr__(self, "reason", FailureReason(self.reason))
        if self.result is not None:
            object.__setattr__(self, "result", Result.from_json(self.result))

    def cleaned(self) -> Ending:
        """The same with text that every database takes: a trial's process says what it likes."""
        error = None if self.error is None else clean_line(self.error)
        result = None if self.result is None else self.result.cleaned()
        return Ending(
            state=self.state,
            reason=self.reason,
            error=error,
            result=result,
        )

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        result = None if self.result is None else self.result.to_json()
        return {
            "state": self.state,
            "reason": self.reason,
            "error": self.error,
            "result": result,
        }
