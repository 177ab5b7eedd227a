"""The typed view of a study record: trials and their attempts, finalists and their replicas, the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: The states of a trial, in the order in which the report names them.
STATES = ("complete", "pruned", "failed", "running", "waiting")


@dataclass(frozen=True)
class Attempt:
    """One try of a trial on one slot. Times are seconds since 1970."""

    attempt: int
    state: str
    reason: str | None
    slot: str
    device: str | None
    host: str | None
    started: float | None
    ended: float | None
    seconds: float | None
    run_id: str | None


@dataclass(frozen=True)
class Trial:
    """One trial. ``values`` is empty unless it is complete with a finite value for each objective."""

    number: int
    state: str
    reason: str | None
    error: str | None
    params: dict[str, Any]
    values: tuple[float, ...]
    intermediate: tuple[tuple[int, float], ...]
    started: float | None
    seconds: float | None
    seed: int | None
    duplicate_of: int | None
    default: bool
    enqueued: bool
    epochs: int | None
    best_epoch: int | None
    n_params: int | None
    summary: dict[str, float]
    attempts: tuple[Attempt, ...]
    breaches: tuple[tuple[str, str], ...] = ()
    state_sha256: str | None = None

    @property
    def scored(self) -> bool:
        """Whether the trial counts as a result of the search."""
        return self.state == "complete" and bool(self.values)

    @property
    def standing(self) -> float | None:
        """Its (first) objective, or the last score it reported where it was stopped earlier."""
        if self.values:
            return self.values[0]
        return self.intermediate[-1][1] if self.intermediate else None


@dataclass(frozen=True)
class Objective:
    """One objective of the study."""

    name: str
    maximize: bool
    percent: bool


@dataclass(frozen=True)
class Replica:
    """One more training of a configuration, on a fresh seed. ``value`` is None unless it is complete."""

    replica: int
    seed: int | None
    state: str
    reason: str | None
    value: float | None
    epochs: int | None
    best_epoch: int | None
    seconds: float | None
    intermediate: tuple[tuple[int, float], ...]
    summary: dict[str, float]
    state_sha256: str | None
    attempts: tuple[Attempt, ...]
    breaches: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Finalist:
    """A configuration that was trained again; ``trial_number`` is None where no trial of the search ran it."""

    trial_number: int | None
    default: bool
    params: dict[str, Any]
    search_value: float | None
    dropped_after: int | None
    winner: bool
    replicas: tuple[Replica, ...]

    @property
    def values(self) -> list[float]:
        """The scores of its completed replicas, in the order of the seeds."""
        return [r.value for r in self.replicas if r.value is not None]


@dataclass(frozen=True)
class Finalization:
    """The last round of confirmation."""

    round: int
    rounds: int
    top: int | None
    seeds: tuple[int, ...]
    racing: bool
    refit: bool
    state: str
    configurations: tuple[Finalist, ...]
    kept: dict[str, Any] | None
    checkpoint: str | None

    @property
    def winner(self) -> Finalist | None:
        """The configuration that was confirmed."""
        return next((c for c in self.configurations if c.winner), None)


@dataclass(frozen=True)
class View:
    """The typed view of a record that facts and statistics are computed from.

    ``best`` is the best trial of the search. ``winner`` is the configuration that the study names: the confirmed one
    where there was a confirmation, else the best trial; it is None where that configuration was no trial.
    """

    study: dict[str, Any]
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    asked: int
    best: Trial | None
    winner: Trial | None
    pareto: tuple[int, ...]
    default: Trial | None
    finalization: Finalization | None
    test: tuple[dict[str, Any], ...]
    openings: tuple[dict[str, Any], ...] | None
    checks: tuple[dict[str, Any], ...]
    replay: tuple[dict[str, Any], ...] = ()
    again: dict[str, Any] = field(default_factory=dict)

    @property
    def scored(self) -> list[Trial]:
        """The completed trials with a finite value, by number."""
        return [t for t in self.trials if t.scored]

    @property
    def multi(self) -> bool:
        """Whether the study has more than one objective."""
        return len(self.objectives) > 1
