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

from dlsearch.execution.clients.in_memory_round import InMemoryRound, open_round
from dlsearch.records.record import STATES
from dlsearch.sampling.factory import build_pruner, build_sampler
from dlsearch.sampling.seeds import trial_seed
from dlsearch.space.space import Space
from dlsearch.storage.studies import Budget, budget_columns
from dlsearch.storage.trial_index import params_key
from dlsearch.study.client import AttemptSummary, ClaimRequest, ClaimWatcher, Status, StudyFacts
from dlsearch.study.documents import StudyDocument
from dlsearch.study.models import Claim, ConfirmClaim
from dlsearch.study.states import AttemptKind, AttemptState, Direction, FailureReason

if TYPE_CHECKING:
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import Progress
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
    """An attempt; `closed` is how its holder ended it, with what was recorded."""

    claim: Claim
    holder: Holder
    lease_until: float
    state: AttemptState = AttemptState.RUNNING
    reason: FailureReason | None = None
    progress: Progress = field(default_factory=dict)
    result: Result | None = None
    closed: tuple[Any, ...] | None = None


class InMemoryClient:
    """A study in memory.

    Args:
        document: The study's document, as a database would hold it.
        lease_s: How long an attempt may be silent, seconds.
        clock: The time, seconds since the epoch.
        name: The study's name.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        lease_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        name: str = "s",
    ) -> None:
        """No trial is there but those that the document enqueues."""
        self._lock = threading.RLock()
        self._document = StudyDocument.from_json(document)
        self._settings = self._document.study_settings
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
                self._document.pruner, max_epochs=self._max_epochs, direction=self._directions[0]
            ),
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self._study_id = self._storage.get_study_id_from_name(name)
        self._budget = Budget(
            finished=False, seconds=0.0, **budget_columns(self._settings, 0.0, clock())
        )
        self._counts: Counter[TrialState] = Counter()
        self._states: list[TrialState] = []  # by number
        self._waiting: list[int] = []
        self._proposed: set[int] = set()
        self._tried: dict[str, int] = {}  # the trial that first ran with parameters
        self._duplicates: dict[int, list[int]] = {}  # of a trial that runs
        self._best: tuple[float, int] | None = None
        self._attempts: list[_Attempt] = []
        self._by_token: dict[str, _Attempt] = {}
        self._live: dict[str, _Attempt] = {}
        self._of_row: dict[tuple[AttemptKind, int], list[_Attempt]] = {}
        self._round: InMemoryRound | None = None
        self._ledger: list[tuple[str, dict[str, Any] | None]] = []
        #: Whether workers are asked to stop.
        self.stop = False
        default = document.get("default")
        for params in [] if default is None else [default]:
            self._enqueue(params, {"default": True})
        for params in document.get("enqueue") or []:
            self._enqueue(params, {"enqueued": True})

    def _enqueue(self, params: Mapping[str, Any], attributes: dict[str, Any]) -> None:
        """Add a trial that waits, with parameters that are given."""
        trial = optuna.create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": self._space.encode(dict(params))},
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
        return Status(
            n_trials=self._budget.n_trials,
            counts={STATES[state]: count for state, count in self._counts.items() if count},
            best_number=None if self._best is None else self._best[1],
            best_value=None if self._best is None else self._best[0],
        )

    @_locked
    def attempts(
        self, *, kind: AttemptKind | None = None, number: int | None = None
    ) -> list[AttemptSummary]:
        """The study's attempts, oldest first."""
        return [
            _summary_of(each)
            for each in self._attempts
            if kind in (None, each.claim.kind) and number in (None, each.claim.number)
        ]

    @_locked
    def live_attempts(self) -> list[AttemptSummary]:
        """The attempts that are held now."""
        return [_summary_of(each) for each in self._live.values()]

    @_locked
    def is_overdue(self) -> bool:
        """Whether there is an attempt to reap."""
        now = self._clock()
        return any(attempt.lease_until < now for attempt in list(self._live.values()))

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

    def test_scores(self) -> list[dict[str, Any] | None]:
        """What each opening of the test set showed; None where it showed nothing."""
        return [score for _, score in self._ledger]

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
        return self._is_reached(request.target) or self._is_reached(self._budget.target)

    def _is_reached(self, target: float | None) -> bool:
        if target is None or self._best is None:
            return False
        return self._best[0] >= target if self._maximize else self._best[0] <= target

    def _take_trial(self) -> int | None:
        """The first trial that waits, or a new one; None at the end of the budget."""
        if self._waiting:
            number = self._waiting.pop(0)
            self._storage.set_trial_state_values(self._id_of(number), TrialState.RUNNING)
            self._move(number, TrialState.RUNNING)
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

    def _open(self, kind: AttemptKind, number: int, holder: Holder, **more: Any) -> _Attempt:
        """Open the next attempt at a trial, or at a part of the confirmation."""
        before = self._of_row.setdefault((kind, number), [])
        claim_type = Claim if kind is AttemptKind.TRIAL else ConfirmClaim
        seed = more.pop("seed", None)
        claim = claim_type(
            kind=kind,
            number=number,
            attempt=len(before) + 1,
            token=uuid.uuid4().hex,
            params=more.pop("params", {}),
            seed=trial_seed(self._seed, number) if seed is None else seed,
            trial_timeout_s=self._budget.trial_timeout_s,
            **more,
        )
        attempt = _Attempt(claim, holder, self._clock() + self._lease_s)
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
    def report(self, claim: Claim, epoch: int, value: float) -> bool:
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
    def finish(self, claim: Claim, result: Result, ledger_row: int | None = None) -> bool:
        """Record a result; of a scoring also into the row of the test ledger that it opened."""
        attempt = self._by_token.get(claim.token)
        if not self._end(attempt, result.state, result.reason, result.error, result):
            return _was_closed(attempt, result.state, result.reason, result.error, result)
        assert attempt is not None
        attempt.result = result
        if claim.kind == AttemptKind.TRIAL:
            self._tell(claim.number, result)
        elif claim.kind == AttemptKind.TEST and ledger_row is not None:
            self._ledger[ledger_row] = (claim.token, result.test)
        return True

    def _tell(self, number: int, result: Result) -> None:
        """Give a trial its final state, and those that were proposed with the same parameters."""
        trial_id = self._id_of(number)
        if result.state is AttemptState.COMPLETE:
            assert result.values is not None
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, result.values)
            self._move(number, TrialState.COMPLETE)
            self._note_value(number, result.values[0])
        elif result.state is AttemptState.PRUNED:
            self._storage.set_trial_state_values(trial_id, TrialState.PRUNED)
            self._move(number, TrialState.PRUNED)
        else:
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            self._move(number, TrialState.FAIL)
            trial = self._storage.get_trial(trial_id)
            self._tried.pop(params_key(trial.params), None)  # it may be tried again
        for duplicate in self._duplicates.pop(number, []):
            self._copy(duplicate, number)

    def _copy(self, number: int, original: int) -> None:
        """Give a trial the end of the one that has the same parameters."""
        trial = self._storage.get_trial(self._id_of(original))
        self._storage.set_trial_state_values(self._id_of(number), trial.state, trial.values)
        self._move(number, trial.state)

    def _note_value(self, number: int, value: float) -> None:
        if self._best is None:
            self._best = (value, number)
            return
        known, first = self._best
        better = value > known if self._maximize else value < known
        if better or (value == known and number < first):
            self._best = (value, number)

    @_locked
    def release(
        self,
        claim: Claim,
        reason: FailureReason = FailureReason.INTERRUPTED,
        error: str | None = None,
    ) -> bool:
        """Give an attempt back: the trial waits, and its next attempt goes on from its checkpoint."""
        attempt = self._by_token.get(claim.token)
        if not self._end(attempt, AttemptState.INTERRUPTED, reason, error, None):
            return _was_closed(attempt, AttemptState.INTERRUPTED, reason, error, None)
        if claim.kind == AttemptKind.TRIAL:
            self._requeue(claim.number)
        return True

    @_locked
    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died: its trial waits, or has failed for good."""
        attempt = self._by_token.get(claim.token)
        lost = (AttemptState.LOST, FailureReason.LOST, error, None)
        if not self._end(attempt, *lost):
            return _was_closed(attempt, *lost)
        self._settle_loss(claim)
        return True

    @_locked
    def reap(self, worker: str | None = None) -> list[AttemptSummary]:
        """End as lost the attempts beyond their lease, or all of a worker that is known to be dead."""
        now = self._clock()
        found = []
        for attempt in list(self._live.values()):
            of_worker = attempt.holder.worker == worker
            if of_worker if worker is not None else attempt.lease_until < now:
                self._end(attempt, AttemptState.LOST, FailureReason.LOST, None, None)
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
        self._storage.set_trial_state_values(self._id_of(claim.number), TrialState.FAIL)
        self._move(claim.number, TrialState.FAIL)

    def _requeue(self, number: int) -> None:
        self._storage.set_trial_state_values(self._id_of(number), TrialState.WAITING)
        self._move(number, TrialState.WAITING)
        self._waiting.append(number)
        self._waiting.sort()

    def _end(
        self,
        attempt: _Attempt | None,
        state: AttemptState,
        reason: FailureReason | None,
        error: str | None,
        result: Result | None,
    ) -> bool:
        """End an attempt that is live; False where it is not."""
        if attempt is None or attempt.claim.token not in self._live:
            return False
        del self._live[attempt.claim.token]
        attempt.state = state
        attempt.reason = reason
        attempt.closed = (state, reason, error, result)
        return True

    def _move(self, number: int, state: TrialState) -> None:
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
        for row, (token, _) in enumerate(self._ledger):
            if token == claim.token:
                return row
        self._ledger.append((claim.token, None))
        return len(self._ledger) - 1

    def _claim_confirmation(self, request: ClaimRequest) -> ConfirmClaim | None:
        wanted = self._settings["finalize"] and len(self._directions) == 1
        if not wanted or self._is_searching(request):
            return None
        if self._round is None:
            trials = self._optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._round = open_round(self._document, self._space, trials)
        if self._round is None:
            return None
        scored = any(score is not None for _, score in self._ledger)
        part = self._round.next_part(self._results_of, is_scored=scored)
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

    def _results_of(
        self, kind: AttemptKind, number: int
    ) -> list[tuple[AttemptState, Result | None]]:
        """States and results of the attempts at a part of the confirmation, oldest first."""
        return [(each.state, each.result) for each in self._of_row.get((kind, number), [])]


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


def _was_closed(attempt: _Attempt | None, *end: Any) -> bool:
    """Whether the attempt's holder ended it just so, and has not heard that it is recorded."""
    return attempt is not None and attempt.closed == end
