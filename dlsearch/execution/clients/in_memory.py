"""The client of a study that lives in this process and has no database: for tests and simulations.

It keeps the promises of the database's client by plain bookkeeping, on a clock that a test or a
simulator moves. Proposals and pruning verdicts are those of the study's own sampler and pruner,
over Optuna's storage in memory.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dlsearch.execution.clients.in_memory_round import InMemoryRound, PartEnd, open_round
from dlsearch.records.record import STATES
from dlsearch.sampling.factory import build_pruner, build_sampler
from dlsearch.sampling.seeds import trial_seed
from dlsearch.space.space import Space
from dlsearch.storage.studies import Budget, budget_columns
from dlsearch.storage.trial_index import params_key
from dlsearch.study.client import AttemptSummary, ClaimRequest, ClaimWatcher, Status, StudyFacts
from dlsearch.study.identical_failures import are_alike
from dlsearch.study.models import Claim, ConfirmClaim, Ending
from dlsearch.study.states import AttemptKind, AttemptState, Direction, FailureReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlsearch.core.failure_cause import FailureCause
    from dlsearch.core.types import JsonObject, Params
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import Progress
    from dlsearch.study.documents import StudyDocument
    from dlsearch.study.models import Result


P = ParamSpec("P")
T = TypeVar("T")


def _locked(
    method: Callable[Concatenate[InMemoryClient, P], T],
) -> Callable[Concatenate[InMemoryClient, P], T]:
    """The method, which one thread at a time may be in."""

    @functools.wraps(method)
    def call(self: InMemoryClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._lock:
            return method(self, *args, **kwargs)

    return call


class VirtualClock:
    """A clock that does not go until it is moved."""

    def __init__(self, now: float = 0.0) -> None:
        """Begin at `now`, seconds."""
        self.now = now

    def __call__(self) -> float:
        """The time, seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += seconds


@dataclass(eq=False)
class _Attempt:
    """An attempt.

    Args:
        claim: What it is at.
        holder: Who holds it, or held it.
        lease_until: When its lease runs out, by the client's clock.
        state: Its state.
        reason: Why it ended so.
        progress: How far it is.
        result: What it came to.
        closed: How its holder ended it; None where it was not its holder.
    """

    claim: Claim
    holder: Holder
    lease_until: float
    state: AttemptState = AttemptState.RUNNING
    reason: FailureReason | None = None
    progress: Progress = field(default_factory=dict)
    result: Result | None = None
    closed: Ending | None = None

    def was_closed_by(self, end: Ending) -> bool:
        """Whether its holder ended it just so, and has not heard that it is recorded."""
        return self.closed == end


@dataclass(frozen=True)
class _Best:
    """The best complete trial by the first objective: of equals the first."""

    value: float
    number: int


@dataclass
class _Opening:
    """An opening of the test set.

    Args:
        token: Of the attempt that opened it.
        score: What it showed; None while it has shown nothing.
    """

    token: str
    score: JsonObject | None = None


class InMemoryClient:
    """A study in memory.

    Args:
        document: The study's document.
        lease_s: How long an attempt may be silent, seconds.
        clock: The time, seconds since the epoch.
        name: The study's name.
    """

    def __init__(
        self,
        document: StudyDocument,
        *,
        lease_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        name: str = "s",
    ) -> None:
        """No trial is there but those that the document enqueues."""
        self._lock = threading.RLock()
        self._document = document
        self._settings = self._document.study_settings
        assert self._settings.get("compare") is None, "arms are the database's study's alone"
        self._lease_s = lease_s
        self._clock = clock
        self._name = name
        self._space = Space.from_json(self._document.space)
        self._seed = self._document.seed
        self._directions = self._document.directions
        self._maximize = self._directions[0] == Direction.MAXIMIZE
        self._max_epochs = self._document.max_epochs
        self._storage = optuna.storages.InMemoryStorage()
        self._optuna = optuna.create_study(
            study_name=name,
            storage=self._storage,
            directions=[StudyDirection[each.upper()] for each in self._directions],
            pruner=build_pruner(
                self._document.pruner,
                max_epochs=self._max_epochs,
                direction=self._directions[0],
            ),
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self._study_id = self._storage.get_study_id_from_name(name)
        self._budget = Budget(
            finished=False,
            seconds=0.0,
            **budget_columns(self._settings, 0.0, clock()),
        )
        self._counts: Counter[TrialState] = Counter()
        self._states: list[TrialState] = []  # by number
        self._waiting: list[int] = []
        self._proposed: set[int] = set()
        self._tried: dict[str, int] = {}  # the trial that first ran with parameters
        self._duplicates: dict[int, list[int]] = {}  # of a trial that runs
        self._best: _Best | None = None
        self._first_causes: list[FailureCause | None] = []  # of the first ends
        self._attempts: list[_Attempt] = []
        self._by_token: dict[str, _Attempt] = {}
        self._live: dict[str, _Attempt] = {}
        self._of_row: dict[tuple[AttemptKind, int], list[_Attempt]] = {}
        self._round: InMemoryRound | None = None
        self._ledger: list[_Opening] = []
        #: Whether workers are asked to stop.
        self.stop = False
        if document.default is not None:
            self._enqueue(document.default, {"default": True})
        for params in document.enqueue:
            self._enqueue(params, {"enqueued": True})

    def _enqueue(self, params: Params, attributes: dict[str, bool]) -> None:
        """Add a trial that waits, with parameters that are given."""
        encoded = self._space.encode(dict(params))
        trial = optuna.create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": encoded},
            user_attrs=attributes,
        )
        self._storage.create_new_trial(self._study_id, template_trial=trial)
        self._waiting.append(len(self._states))
        self._states.append(TrialState.WAITING)
        self._counts[TrialState.WAITING] += 1

    # -- reading ----------------------------------------------------------------------------------
    def facts(self) -> StudyFacts:
        """What does not change while the study is served."""
        return StudyFacts(
            name=self._name,
            objectives=list(self._document.objectives),
            directions=list(self._directions),
            max_epochs=self._max_epochs,
            lease_s=self._lease_s,
            max_attempts=int(self._settings["max_attempts"]),
            max_halvings=int(self._settings.get("max_halvings", 3)),
        )

    @_locked
    def status(self) -> Status:
        """How the study goes."""
        best = self._best
        present = {state: count for state, count in self._counts.items() if count}
        return Status(
            n_trials=self._budget.n_trials,
            counts={STATES[state]: count for state, count in present.items()},
            best_number=None if best is None else best.number,
            best_value=None if best is None else best.value,
        )

    @_locked
    def attempts(
        self, *, kind: AttemptKind | None = None, number: int | None = None
    ) -> list[AttemptSummary]:
        """The study's attempts, oldest first."""
        found: list[AttemptSummary] = []
        for each in self._attempts:
            is_of_kind = kind is None or kind == each.claim.kind
            is_of_number = number is None or number == each.claim.number
            if is_of_kind and is_of_number:
                found.append(_summary_of(each))
        return found

    @_locked
    def live_attempts(self) -> list[AttemptSummary]:
        """The attempts that are held now."""
        return [_summary_of(each) for each in self._live.values()]

    @_locked
    def is_overdue(self) -> bool:
        """Whether there is an attempt to reap."""
        now = self._clock()
        return any(attempt.lease_until < now for attempt in self._live.values())

    def known_budget(self) -> Budget:
        """The study's budget."""
        return self._budget

    def unconfirmed(self) -> set[str]:
        """What is opened here is always returned."""
        return set()

    @_locked
    def forget_unconfirmed(self, tokens: Iterable[str]) -> None:
        """Remove the attempts of these tokens, where they are live; their trials wait again."""
        for token in tokens:
            attempt = self._live.get(token)
            if attempt is not None:
                self._discard(attempt)
                self._requeue(attempt.claim.number)

    def note_outage(self) -> None:
        """Memory can always be reached."""

    def stop_requested(self) -> bool:
        """Whether workers are asked to stop."""
        return self.stop

    def test_scores(self) -> list[JsonObject | None]:
        """What each opening of the test set showed; None where it showed nothing."""
        return [opening.score for opening in self._ledger]

    def separate(self) -> InMemoryClient:
        """This one: its calls may come from any thread."""
        return self

    def lease_renewer(self) -> InMemoryClient:
        """This one."""
        return self

    def close(self) -> None:
        """There is nothing to close."""

    # -- claiming ---------------------------------------------------------------------------------
    @_locked
    def claim(
        self, request: ClaimRequest, watcher: ClaimWatcher | None = None
    ) -> Claim | ConfirmClaim | None:
        """Claim the next trial, or the next part of the confirmation.

        None where there is none now.
        """
        self.reap()
        while not self._is_over(request):
            number = self._take_trial()
            if number is None:
                break
            attempt = self._open(AttemptKind.TRIAL, number, request.holder)
            if watcher is not None:
                watcher.opened(attempt.claim.token)
            if self._propose(attempt):
                return attempt.claim
        return self._claim_confirmation(request) if request.confirm else None

    def _is_over(self, request: ClaimRequest) -> bool:
        now = self._clock()
        if request.deadline is not None and now >= request.deadline:
            return True
        if self._budget.is_time_over(now):
            return True
        if self._is_failing():
            return True
        return self._is_reached(request.target) or self._is_reached(self._budget.target)

    def _is_failing(self) -> bool:
        """Whether the first trials all failed alike, and no other has a value."""
        limit = int(self._settings.get("max_identical_failures", 0))
        if limit == 0 or len(self._first_causes) < limit:
            return False
        has_value = self._counts[TrialState.COMPLETE] + self._counts[TrialState.PRUNED] > 0
        return not has_value and are_alike(self._first_causes[:limit])

    def _is_reached(self, target: float | None) -> bool:
        if target is None or self._best is None:
            return False
        if self._maximize:
            return self._best.value >= target
        return self._best.value <= target

    def _take_trial(self) -> int | None:
        """The first trial that waits, or a new one; None at the end of the budget."""
        if self._waiting:
            number = self._waiting.pop(0)
            self._set_state(number, TrialState.RUNNING)
            return number
        if len(self._states) >= self._budget.n_trials:
            return None
        self._storage.create_new_trial(self._study_id)
        self._states.append(TrialState.RUNNING)
        self._counts[TrialState.RUNNING] += 1
        return len(self._states) - 1

    def _propose(self, attempt: _Attempt) -> bool:
        """Give the trial its parameters; False where another ran, or runs, with the same."""
        number = attempt.claim.number
        self._optuna.sampler = build_sampler(
            self._document.sampler,
            space=self._space,
            study_seed=self._seed,
            number=number,
            directions=self._directions,
        )
        trial = optuna.Trial(self._optuna, self._id_of(number))
        params = self._space.suggest(trial, self._document.config)
        attempt.claim = replace(attempt.claim, params=params)
        if number in self._proposed:
            return True  # a retry
        self._proposed.add(number)
        original = self._tried.setdefault(params_key(params), number)
        if original == number:
            return True
        self._discard(attempt)
        if self._states[original].is_finished():
            self._copy(number, original)
        else:
            self._duplicates.setdefault(original, []).append(number)
        return False

    def _open(
        self,
        kind: AttemptKind,
        number: int,
        holder: Holder,
        **more: Any,
    ) -> _Attempt:
        """Open the next attempt at a trial, or at a part of the confirmation."""
        before = self._of_row.setdefault((kind, number), [])
        claim_type = Claim if kind is AttemptKind.TRIAL else ConfirmClaim
        seed = more.pop("seed", None)
        if seed is None:
            seed = trial_seed(self._seed, number)
        claim = claim_type(
            kind=kind,
            number=number,
            attempt=len(before) + 1,
            token=uuid.uuid4().hex,
            params=more.pop("params", {}),
            seed=seed,
            trial_timeout_s=self._budget.trial_timeout_s,
            **more,
        )
        lease_until = self._clock() + self._lease_s
        attempt = _Attempt(claim, holder, lease_until)
        before.append(attempt)
        self._attempts.append(attempt)
        self._by_token[claim.token] = attempt
        self._live[claim.token] = attempt
        return attempt

    def _discard(self, attempt: _Attempt) -> None:
        """Remove an attempt of which nothing is to be left."""
        claim = attempt.claim
        del self._live[claim.token]
        del self._by_token[claim.token]
        self._of_row[claim.kind, claim.number].remove(attempt)
        self._attempts.remove(attempt)

    def withdraw(self, token: str) -> bool:
        """A claim is proposed before another call can come: it always has its parameters."""
        return False

    # -- attempts ---------------------------------------------------------------------------------
    @_locked
    def renew(self, progress: Mapping[str, Progress]) -> set[str]:
        """Extend leases, and note how far the attempts are.

        Returns the tokens that are still live.
        """
        alive = {token for token in progress if token in self._live}
        for token in alive:
            attempt = self._live[token]
            attempt.lease_until = self._clock() + self._lease_s
            attempt.progress = dict(progress[token]) or attempt.progress
        return alive

    @_locked
    def report(
        self,
        claim: Claim,
        epoch: int,
        value: float,
    ) -> bool:
        """Report the first objective after an epoch; True when the pruner says to stop."""
        if claim.kind != AttemptKind.TRIAL or len(self._directions) > 1:
            return False
        trial_id = self._id_of(claim.number)
        trial = self._storage.get_trial(trial_id)
        if epoch in trial.intermediate_values:
            return False
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        trial.intermediate_values[epoch] = value
        return bool(self._optuna.pruner.prune(self._optuna, trial))

    @_locked
    def finish(
        self,
        claim: Claim,
        result: Result,
        ledger_row: int | None = None,
    ) -> bool:
        """Record a result; of a scoring also into the row of the test ledger that it opened."""
        attempt = self._by_token.get(claim.token)
        end = Ending(
            result.state,
            result.reason,
            result.error,
            result,
        )
        if attempt is None or not self._end(attempt, end):
            return attempt is not None and attempt.was_closed_by(end)
        attempt.result = result
        if claim.kind == AttemptKind.TRIAL:
            self._tell(claim.number, result)
        elif claim.kind == AttemptKind.TEST and ledger_row is not None:
            self._ledger[ledger_row] = _Opening(claim.token, result.test)
        return True

    def _tell(self, number: int, result: Result) -> None:
        """Give a trial its final state, and those that were proposed with the same parameters."""
        is_exception = result.reason is FailureReason.EXCEPTION
        self._first_causes.append(result.cause if is_exception else None)
        if result.state is AttemptState.COMPLETE:
            assert result.values is not None
            self._set_state(number, TrialState.COMPLETE, result.values)
            self._note_value(number, result.values[0])
        elif result.state is AttemptState.PRUNED:
            self._set_state(number, TrialState.PRUNED)
        else:
            self._set_state(number, TrialState.FAIL)
            trial = self._storage.get_trial(self._id_of(number))
            self._tried.pop(params_key(trial.params), None)  # it may be tried again
        for duplicate in self._duplicates.pop(number, []):
            self._copy(duplicate, number)

    def _copy(self, number: int, original: int) -> None:
        """Give a trial the end of the one that has the same parameters."""
        trial = self._storage.get_trial(self._id_of(original))
        self._set_state(number, trial.state, trial.values)

    def _note_value(self, number: int, value: float) -> None:
        if self._best is None or self._is_better(value, number, self._best):
            self._best = _Best(value, number)

    def _is_better(
        self,
        value: float,
        number: int,
        best: _Best,
    ) -> bool:
        if value == best.value:
            return number < best.number
        return value > best.value if self._maximize else value < best.value

    @_locked
    def release(
        self,
        claim: Claim,
        reason: FailureReason = FailureReason.INTERRUPTED,
        error: str | None = None,
    ) -> bool:
        """Give an attempt back: the trial waits, and goes on from its checkpoint."""
        attempt = self._by_token.get(claim.token)
        end = Ending(AttemptState.INTERRUPTED, reason, error)
        if attempt is None or not self._end(attempt, end):
            return attempt is not None and attempt.was_closed_by(end)
        if claim.kind == AttemptKind.TRIAL:
            self._requeue(claim.number)
        return True

    @_locked
    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died: its trial waits, or has failed for good."""
        attempt = self._by_token.get(claim.token)
        end = Ending(AttemptState.LOST, FailureReason.LOST, error)
        if attempt is None or not self._end(attempt, end):
            return attempt is not None and attempt.was_closed_by(end)
        self._settle_loss(claim)
        return True

    @_locked
    def reap(self, worker: str | None = None) -> list[AttemptSummary]:
        """End as lost the attempts beyond their lease, or all of a worker that is dead."""
        now = self._clock()
        found: list[AttemptSummary] = []
        for attempt in list(self._live.values()):
            if worker is None:
                is_lost = attempt.lease_until < now
            else:
                is_lost = attempt.holder.worker == worker
            if is_lost:
                self._end(attempt, Ending(AttemptState.LOST, FailureReason.LOST))
                attempt.closed = None  # not by its holder
                self._settle_loss(attempt.claim)
                found.append(_summary_of(attempt))
        return found

    def _settle_loss(self, claim: Claim) -> None:
        """Have the trial of a lost attempt wait, or fail after as many losses as it may have."""
        if claim.kind != AttemptKind.TRIAL:
            return
        attempts = self._of_row[claim.kind, claim.number]
        losses = sum(each.state is AttemptState.LOST for each in attempts)
        if losses < int(self._settings["max_attempts"]):
            self._requeue(claim.number)
            return
        self._set_state(claim.number, TrialState.FAIL)

    def _requeue(self, number: int) -> None:
        self._set_state(number, TrialState.WAITING)
        self._waiting.append(number)
        self._waiting.sort()

    def _end(self, attempt: _Attempt, end: Ending) -> bool:
        """End an attempt that is live; False where it is not."""
        if attempt.claim.token not in self._live:
            return False
        del self._live[attempt.claim.token]
        attempt.state = end.state
        attempt.reason = end.reason
        attempt.closed = end
        return True

    def _set_state(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None = None,
    ) -> None:
        self._storage.set_trial_state_values(
            self._id_of(number),
            state,
            values,
        )
        self._counts[self._states[number]] -= 1
        self._counts[state] += 1
        self._states[number] = state

    def _id_of(self, number: int) -> int:
        """Optuna's id of a trial."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    # -- confirmation -----------------------------------------------------------------------------
    @_locked
    def open_test_ledger(self, claim: ConfirmClaim) -> int:
        """Write a row before the test set is opened.

        Returns its number, the same for a repetition.
        """
        for row, opening in enumerate(self._ledger):
            if opening.token == claim.token:
                return row
        self._ledger.append(_Opening(claim.token))
        return len(self._ledger) - 1

    def _claim_confirmation(self, request: ClaimRequest) -> ConfirmClaim | None:
        wanted = self._settings["finalize"] and len(self._directions) == 1
        if not wanted or self._is_searching(request):
            return None
        if self._round is None:
            complete = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._round = open_round(self._document, self._space, complete)
        if self._round is None:
            return None
        is_scored = any(opening.score is not None for opening in self._ledger)
        part = self._round.next_part(self._results_of, is_scored=is_scored)
        if part is None or self._is_held(part.kind, part.number):
            return None
        attempt = self._open(
            part.kind,
            part.number,
            request.holder,
            seed=part.seed,
            params=part.finalist.trained_params,
            round=1,
            finalist=part.finalist,
            replica=part.replica,
            epochs=part.epochs,
        )
        assert isinstance(attempt.claim, ConfirmClaim)
        return attempt.claim

    def _is_searching(self, request: ClaimRequest) -> bool:
        if self._counts[TrialState.RUNNING]:
            return True
        waiting = bool(self._waiting) or len(self._states) < self._budget.n_trials
        return waiting and not self._is_over(request)

    def _is_held(self, kind: AttemptKind, number: int) -> bool:
        attempts = self._of_row.get((kind, number), [])
        return any(each.claim.token in self._live for each in attempts)

    def _results_of(self, kind: AttemptKind, number: int) -> list[PartEnd]:
        """States and results of the attempts at a part of the confirmation, oldest first."""
        attempts = self._of_row.get((kind, number), [])
        return [PartEnd(each.state, each.result) for each in attempts]


def _summary_of(attempt: _Attempt) -> AttemptSummary:
    claim = attempt.claim
    return AttemptSummary(
        kind=claim.kind,
        number=claim.number,
        attempt=claim.attempt,
        token=claim.token,
        state=attempt.state,
        reason=attempt.reason,
        worker=attempt.holder.worker,
        process=attempt.holder.process,
    )
