"""A study: claims, results, and the invariants that hold whichever process dies in between.

A trial is claimed in two transactions under the study's lock. In the first, one question tells
whether there is anything to mend or a trial that waits; most often there is neither, the total is
compared with `n_trials`, a number is taken and an attempt opened. Then the trials are read and the
sampler is asked, which can take as long as it likes: no lock is held. In the second, the parameters
are written, if the attempt is still live, and one question tells whether others may have the same;
only then are trials read under the lock, and duplicates settled. A result counts only if its
attempt is live; it is written to the attempt and to Optuna's trial in one transaction.
:meth:`Study.reap` mends whatever a death in between, or an older version, left half done.
"""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dlsearch.config.schema import StudyConfig
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.core.errors import ConfigError
from dlsearch.core.names import check_name
from dlsearch.core.versions import is_compared
from dlsearch.sampling.arm_study import ArmSampler, ArmStudies
from dlsearch.sampling.arms import Arms
from dlsearch.sampling.factory import build_pruner, build_sampler, goes_by_others
from dlsearch.sampling.seeds import trial_seed
from dlsearch.space.space import Space
from dlsearch.storage.attempts import Holder, Leases
from dlsearch.storage.availability import is_away
from dlsearch.storage.location import patience
from dlsearch.storage.outlook import Outlook, read_outlook
from dlsearch.storage.studies import Budget, end_session, names, read_budget, read_row, update_row
from dlsearch.storage.test_ledger import Ledger, digest_of_test_split
from dlsearch.storage.trial_index import (
    TrialIndex,
    begin_directly,
    best_numbers,
    counts,
    end_directly,
    is_feasible,
    may_be_tried,
    params_key,
    running_with,
)
from dlsearch.study.documents import StudyDocument, study_document
from dlsearch.study.identical_failures import FailureWatch
from dlsearch.study.models import Claim, Result
from dlsearch.study.pareto import pareto_front
from dlsearch.study.seen import SEEN, SeenNotes
from dlsearch.study.states import (
    COUNTED_STATES,
    AttemptKind,
    AttemptState,
    Direction,
    FailureReason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from dlsearch.storage.database import Attempt, Storage, StudyRow

optuna.logging.set_verbosity(optuna.logging.WARNING)

DUPLICATE = "duplicate_of"
REASON = "reason"
#: Stands where Optuna wants a sampler and nothing is sampled.
_NOBODY = optuna.samplers.RandomSampler(seed=0)


@dataclass(frozen=True)
class _Taken:
    """A trial that is being proposed: its number is taken, its attempt open.

    Args:
        number: The trial's number.
        attempt: Which try this is, from 1.
        token: The fencing token.
        budget: The study's, when it was taken.
        is_seen: Whether the index has seen it.
        trial: With what was drawn of its parameters already; None where nothing was.
    """

    number: int
    attempt: int
    token: str
    budget: Budget
    is_seen: bool
    trial: optuna.Trial | None


class Study:
    """An open study.

    Args:
        storage: The open storage.
        name: Its name.
        lease_s: Lease of the attempts that are claimed through this handle, seconds.

    Raises:
        ConfigError: There is no such study in the storage.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        *,
        lease_s: float = 30.0,
    ) -> None:
        """Read the study's document."""
        self.storage = storage
        self.name = check_name(name)  # somebody may have renamed it in the database
        row = read_row(storage, name)
        if row is None:
            known = ", ".join(names(storage)[:8]) or "none yet"
            raise ConfigError(
                "study.name", f"there is no study {name!r} in this storage", f"there is: {known}"
            )
        self.document: dict[str, Any] = study_document(row.document)
        #: The same, with its types.
        self.typed = StudyDocument.from_json(self.document)
        self.space = Space.from_json(self.typed.space)
        self.seed = self.typed.seed
        self.directions = self.typed.directions
        settings = self.typed.study_settings
        #: What is compared; None where nothing is.
        self.arms = Arms.of_study(self.space, settings)
        self._load(storage.optuna)
        #: How long its workers wait while the database cannot be reached; studies of earlier
        #: versions say nothing.
        self.patience_s = (
            patience(settings) if "storage_patience" in settings else storage.patience_s
        )
        self.leases = Leases(
            storage,
            name,
            lease_s,
            self.patience_s,
        )
        self.ledger = Ledger(
            storage,
            name,
            uuid=self.typed.uuid,
            test_digest=digest_of_test_split(self.document.get("data")),
        )
        self._goes_by_others = goes_by_others(self.typed.sampler)
        self._proposes_under_lock = self._goes_by_others and self.space.function is None
        #: Whether a new trial is made without Optuna, and without reading the others first.
        self._takes_directly = is_compared("optuna") and not self._goes_by_others
        self.max_attempts = int(settings["max_attempts"])
        self.max_halvings = int(settings.get("max_halvings", StudyConfig.max_halvings))
        self.finalize = bool(settings["finalize"])
        is_replay = self.document.get("replay_of") is not None
        #: Whether its first trials all failed alike. Studies of earlier versions do not ask; one
        #: that repeats another runs all its trials.
        self.failure_watch = FailureWatch(
            storage,
            name,
            0 if is_replay else int(settings.get("max_identical_failures", 0)),
            self.document.get("sessions", []),
        )
        #: The budget as it was when it was last asked for.
        self.known_budget = self.budget()
        #: By token: the epoch that is being reported, and whether it is known to be recorded; else
        #: it is reported again.
        self._reporting: dict[str, tuple[int, bool]] = {}
        self._notes = SeenNotes(enabled=is_compared("optuna") and not is_replay)

    @property
    def confirms(self) -> bool:
        """Whether the best are trained again, and the winner is scored on the test set."""
        return self.finalize and len(self.directions) == 1

    def _load(self, storage: optuna.storages.BaseStorage) -> None:
        self.optuna = optuna.load_study(study_name=self.name, storage=storage)
        self.id = storage.get_study_id_from_name(self.name)
        self.optuna.sampler = _NOBODY
        self.optuna.pruner = self._build_pruner()
        self._arm_studies: ArmStudies | None = None
        if self.arms is not None:
            self._arm_studies = ArmStudies(
                storage,
                self.name,
                self.arms,
                self._build_pruner,
            )
        self._index = TrialIndex()
        self._void = False

    def _build_pruner(self) -> optuna.pruners.BasePruner:
        return build_pruner(
            self.typed.pruner,
            max_epochs=self.typed.max_epochs,
            direction=self.directions[0],
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction; the caller holds the study's lock."""
        try:
            with self.storage.transaction():
                yield
        except BaseException:
            self._void = True  # what was taken back may stand in Optuna's cache, and in ours
            raise

    @contextmanager
    def _section(self) -> Iterator[None]:
        """The study's critical section, as one transaction."""
        try:
            with self.storage.section(self.name):
                yield
        except BaseException:
            self._void = True  # see above
            raise

    # -- reading ----------------------------------------------------------------------------------
    def trials(self) -> list[FrozenTrial]:
        """All trials as Optuna has them, by number."""
        if self._void:
            self._load(self.storage.fresh())
        return self.optuna.get_trials(deepcopy=False)

    def row(self) -> StudyRow:
        """The study's row as it is now."""
        row = read_row(self.storage, self.name)
        assert row is not None
        return row

    def budget(self) -> Budget:
        """The study's budget as it is now."""
        self.known_budget = read_budget(self.storage, self.name)
        return self.known_budget

    def counts(self) -> dict[TrialState, int]:
        """How many trials are in each state."""
        return counts(self.storage, self.id)

    def best(self) -> FrozenTrial | None:
        """The best complete and feasible trial by the first objective.

        None without one, or with several objectives.
        """
        if len(self.directions) > 1:
            return None
        found = best_numbers(
            self.storage,
            self.id,
            self.directions[0],
            1,
        )
        return self.storage.optuna.get_trial(self._id_of(found[0])) if found else None

    def front(self) -> list[int]:
        """Numbers of the complete and feasible trials that no other dominates."""
        trials = [t for t in self.trials() if t.state is TrialState.COMPLETE and is_feasible(t)]
        return pareto_front(
            [(t.number, t.values) for t in trials],
            [d == Direction.MAXIMIZE for d in self.directions],
        )

    def _id_of(self, number: int) -> int:
        """Optuna's id of a trial."""
        return self.storage.optuna.get_trial_id_from_study_id_trial_number(self.id, number)

    # -- claiming ---------------------------------------------------------------------------------
    def claim(
        self,
        holder: Holder,
        *,
        deadline: float | None = None,
        target: float | None = None,
        opened: Callable[[str], object] | None = None,
        give_up: Callable[[], bool] | None = None,
    ) -> Claim | None:
        """Claim the next trial; None when there is none to claim now.

        The trial's number is taken, and its attempt opened, in one short transaction; its
        parameters are proposed from what had ended by then, without any lock, for as long as that
        takes; and they are written in another.

        Args:
            holder: Who claims.
            deadline: Of the claimant's own, where the study's is later (``time.time()``).
            target: Of the claimant's own, where the study's is harder to reach.
            opened: Told the token of the attempt while its parameters are proposed: its lease is to
                be renewed.
            give_up: Whether the claim is not wanted any more.
        """
        if not self._index.seen:
            # all trials, once: seconds for thousands, and nobody shall wait for the lock meanwhile
            self._look()
        limits = (deadline, target)
        if not self._proposes_under_lock:
            return self._claim(
                holder,
                limits,
                self._section,
                opened,
                give_up,
            )
        with self.storage.lock(self.name):
            return self._claim(
                holder,
                limits,
                self._writing,
                opened,
                give_up,
            )

    def _claim(
        self,
        holder: Holder,
        limits: tuple[float | None, float | None],
        section: Callable[[], AbstractContextManager[None]],
        opened: Callable[[str], object] | None,
        give_up: Callable[[], bool] | None,
    ) -> Claim | None:
        taken: _Taken | None = None
        while True:
            if taken is None:
                if give_up is not None and give_up():
                    return None
                with section():
                    taken = self._take(holder, limits)
                self.leases.unsure = set() if taken is None else {taken.token}
            if taken is None:
                return None
            try:
                if opened is not None:
                    opened(taken.token)
                trial, params = self._propose(taken)
                with section():
                    claim, following = self._settle(
                        taken,
                        trial,
                        params,
                        holder,
                        limits,
                    )
            except BaseException as error:
                if not is_away(error):  # else the next claim does it, once the database is back
                    self._withdraw(taken, section)
                raise
            taken = following
            self.leases.unsure = set() if taken is None else {taken.token}
            if claim is not None:
                return claim

    def _take(self, holder: Holder, limits: tuple[float | None, float | None]) -> _Taken | None:
        """Mend what is left of the dead, and take the next trial, where there is one to run.

        It has an attempt then.
        """
        self.leases.forget()
        if self._takes_directly:
            outlook = read_outlook(self.storage, self.name, self.id)
            self.leases.contact.note_answer(outlook.now)
            if outlook.is_clear:
                return self._take_new(holder, limits, outlook)
        self.leases.expire()
        if self._mend():
            self._look()
        budget = self.budget()
        if self._is_over(budget, *limits):
            return None
        self._begin_session(budget)
        return self._next(holder, budget)

    def _take_new(
        self,
        holder: Holder,
        limits: tuple[float | None, float | None],
        outlook: Outlook,
    ) -> _Taken | None:
        """Take a new trial, where the study has room for one; nothing else waits to be done."""
        budget = outlook.budget
        self.known_budget = budget
        if self._is_over(budget, *limits):
            return None
        self._begin_session(budget)
        if outlook.trials >= budget.n_trials:
            return None
        number = begin_directly(self.storage, self.optuna, self.id)
        _, attempt, token = self.leases.open(
            AttemptKind.TRIAL,
            number,
            holder,
            proposed=False,
        )
        return _Taken(
            number,
            attempt,
            token,
            budget,
            is_seen=False,
            trial=None,
        )

    def _next(self, holder: Holder, budget: Budget) -> _Taken | None:
        """Take the first trial that waits, or a new one, as the index has them.

        None at the end of the budget.
        """
        waiting = self._index.open(TrialState.WAITING)
        if not waiting and self._index.seen >= budget.n_trials:
            return None
        # What goes by the others' numbers is drawn with the lock; where a user's function goes on,
        # that is all of it.
        early = self._goes_by_others and not self._proposes_under_lock
        number = waiting[0].number if waiting else self._index.seen
        self.optuna.sampler = self._sampler(number) if early else _NOBODY
        with self.storage.optuna.still():
            asked = self.optuna.ask()
            if early:
                _ = asked.relative_params
        _, attempt, token = self.leases.open(
            AttemptKind.TRIAL, asked.number, holder, proposed=False
        )
        drawn = asked if early else None
        return _Taken(
            asked.number,
            attempt,
            token,
            budget,
            is_seen=True,
            trial=drawn,
        )

    def _propose(self, taken: _Taken) -> tuple[optuna.Trial, dict[str, Any]]:
        """Ask the sampler, while nobody waits for it.

        It goes by the trials that were read when the number was taken, or now, where none were.
        """
        if not taken.is_seen:
            self._look()
        trial = taken.trial
        if trial is None:
            self.optuna.sampler = self._sampler(taken.number)
        with self.storage.optuna.still():
            trial = trial or optuna.Trial(self.optuna, self._id_of(taken.number))
            self._notes.note_proposal(self.optuna, trial)
            params = self.space.suggest(trial, self.typed.config)
        return trial, params

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A fresh one, seeded by the trial's number.

        A reloaded seeded sampler would propose the same points again. In a comparison it sees the
        trial's arm alone.
        """
        return build_sampler(
            self.typed.sampler,
            space=self.space,
            study_seed=self.seed,
            number=number,
            directions=self.directions,
            arm=None if self._arm_studies is None else self._arm_studies.of(number),
        )

    def seed_of_trial(self, number: int) -> int:
        """The seed with which a trial trains; arms of a comparison have the same seeds."""
        if self.arms is not None:
            number = self.arms.number_within(number)
        return trial_seed(self.seed, number)

    def _withdraw(
        self,
        taken: _Taken,
        section: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Have a trial wait again whose proposal failed.

        Where that fails too, the next claim does it.
        """
        with suppress(Exception), section():
            if self.leases.withdraw(taken.token):
                self.leases.unsure.discard(taken.token)
                self._requeue(taken.number)

    def _settle(
        self,
        taken: _Taken,
        trial: optuna.Trial,
        params: dict[str, Any],
        holder: Holder,
        limits: tuple[float | None, float | None],
    ) -> tuple[Claim | None, _Taken | None]:
        """Give the trial its parameters, where it was not lost meanwhile.

        Returns:
            The claim; or, where it is a duplicate, what is taken instead of it; or neither.
        """
        if not self.leases.propose(taken.token, self._notes.proposal):
            return None, None
        with self.storage.begin() as connection:
            self.storage.optuna.write_params(connection)
        if self._duplicates(trial, taken):
            self.leases.discard(taken.token)
            self._look()
            budget = self.budget()  # the proposal may have taken long
            return None, None if self._is_over(budget, *limits) else self._next(holder, budget)
        if taken.budget.finished:  # it is not, any more
            update_row(self.storage, self.name, finished=False)
        seed = self.seed_of_trial(taken.number)
        claim = Claim(
            AttemptKind.TRIAL,
            taken.number,
            taken.attempt,
            taken.token,
            params,
            seed,
            taken.budget.trial_timeout_s,
        )
        return claim, None

    def withdraw(self, token: str) -> bool:
        """Take back a claim that is being proposed, whatever its sampler does.

        False where it has its parameters.

        The trial waits again, at once where nobody holds the study's lock for a proposal.
        """
        if not self.leases.withdraw(token):
            return False
        if not self._proposes_under_lock:
            with self._section():
                self._mend()
        return True

    def take_back(self, token: str) -> None:
        """Take back a claim that was never confirmed, where the database has it.

        Its trial waits again.

        It is safe to repeat. An attempt that has ended stays as it is.
        """
        with self._section():
            self.leases.unsure.add(token)
            self.leases.forget()
            self.leases.unsure.discard(token)
            self._mend()

    def _look(self) -> None:
        trials = self.trials()  # first: where the caches are void, it begins a new index
        self._index.update(trials)

    def _begin_session(self, budget: Budget) -> None:
        """Set the deadline, where the study has a timeout and no driver that has set it.

        Its wall time goes on now.
        """
        if budget.timeout_s is not None and budget.deadline is None:
            update_row(self.storage, self.name, deadline=budget.deadline_from(self._now()))

    def _now(self) -> float:
        with self.storage.begin() as connection:
            return self.storage.now(connection)

    def _is_over(
        self,
        budget: Budget,
        deadline: float | None,
        target: float | None,
    ) -> bool:
        """Whether no trial may be claimed any more.

        By the study's budget, by one of the claimant's own, or because the first all failed alike.
        """
        if deadline is not None and time.time() >= deadline:
            return True
        if budget.timeout_s is not None and budget.is_time_over(self._now()):
            return True
        if self.failure_watch.look() is not None:
            return True
        return self.reached(target) or self.reached(budget.target)

    def _duplicates(self, trial: optuna.Trial, taken: _Taken) -> bool:
        """Settle a trial whose parameters ran, or run, already; False when it is new."""
        is_retry = taken.attempt > 1 and self._was_proposed(taken)
        if is_retry or trial.user_attrs.get(DUPLICATE) is not None:
            return False  # it was claimed before
        mine = params_key(trial.params)
        if not self._may_be_tried(trial, mine):
            return False

        self._look()
        tried = self._index.tried(mine)
        beside = self._running_with(mine, trial.number)
        if tried is None and beside is None:
            return False
        if self._notes.proposal is not None:  # its attempt is discarded
            trial.set_user_attr(SEEN, self._notes.proposal)
        if tried is not None and (beside is None or tried < beside):
            trial.set_user_attr(DUPLICATE, tried)
            self._copy(trial.number, self._index.trials[tried])
        else:
            trial.set_user_attr(DUPLICATE, beside)
        return True

    def _running_with(self, key: str, own_number: int) -> int | None:
        """The first other trial that runs with these parameters; None where there is none."""
        for other in self._index.open(TrialState.RUNNING):
            is_proposed = bool(other.params)
            if other.number == own_number or not is_proposed or DUPLICATE in other.user_attrs:
                continue
            if params_key(other.params) == key:
                return other.number
        return None

    def _may_be_tried(self, trial: optuna.Trial, mine: str) -> bool:
        """Whether another trial may have these parameters.

        One question about those that the index does not know, where reading them is two.
        """
        if self._index.has_any_with(mine):
            return True
        internal_values = {
            name: distribution.to_internal_repr(trial.params[name])
            for name, distribution in trial.distributions.items()
        }
        unknown = [n for n in self._index.unproposed() if n != trial.number]
        return may_be_tried(
            self.storage,
            self._id_of(trial.number),
            self._id_of(self._index.seen - 1) if self._index.seen else -1,
            [self._id_of(number) for number in unknown],
            internal_values,
        )

    def _was_proposed(self, taken: _Taken) -> bool:
        """Whether an earlier attempt came as far as its parameters."""
        earlier = self.leases.rows(kind=AttemptKind.TRIAL, number=taken.number)
        return any(attempt.proposed for attempt in earlier if attempt.token != taken.token)

    def _copy(self, number: int, other: FrozenTrial) -> None:
        if other.state is TrialState.COMPLETE:
            self._end(number, other.state, other.values)
        else:
            self.optuna.tell(number, state=other.state)

    def _end(
        self,
        number: int,
        state: TrialState,
        values: list[float] | None,
    ) -> None:
        """End a trial that is complete or pruned; by Optuna, where its sampler is told of it."""
        if not self._is_sampler_told and end_directly(
            self.storage,
            self._id_of(number),
            state,
            values,
            len(self.directions),
        ):
            return
        if state is TrialState.COMPLETE:
            self.optuna.tell(number, values=values)
        else:
            self.optuna.tell(number, state=state)

    @functools.cached_property
    def _is_sampler_told(self) -> bool:
        """Whether the sampler has something to do at the end of a trial."""
        sampler = self._sampler(0)
        if isinstance(sampler, ArmSampler):
            sampler = sampler.inner
        method = type(sampler).after_trial
        if method is optuna.samplers.TPESampler.after_trial:
            return "constraints_func" in self.typed.sampler
        return method is not optuna.samplers.BaseSampler.after_trial

    def searching(self, deadline: float | None = None, target: float | None = None) -> bool:
        """Whether a trial runs, or one may yet be claimed: until the confirmation can begin.

        Args:
            deadline: Of the asker's own, where the study's is later (``time.time()``).
            target: Of the asker's own, where the study's is harder to reach.
        """
        trials = self.trials()
        if any(t.state is TrialState.RUNNING for t in trials):
            return True
        budget = self.budget()
        waiting = len(trials) < budget.n_trials or any(
            t.state is TrialState.WAITING for t in trials
        )
        return waiting and not self._is_over(budget, deadline, target)

    def params_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's searched values, decoded."""
        return self.space.values_of(trial)

    def others_running(self) -> bool:
        """Whether any attempt is live: one that another worker may yet lose."""
        return bool(self.leases.live())

    def reached(self, target: float | None) -> bool:
        """Whether the best value is at least as good as `target`."""
        best = self.best() if target is not None else None
        if best is None or target is None:
            return False
        return (
            best.values[0] >= target
            if self.directions[0] == Direction.MAXIMIZE
            else best.values[0] <= target
        )

    # -- results ----------------------------------------------------------------------------------
    def report(
        self,
        claim: Claim,
        epoch: int,
        value: float,
    ) -> bool:
        """Report the first objective after an epoch; True when the pruner says stop."""
        if claim.kind != AttemptKind.TRIAL or len(self.directions) > 1:
            return False
        # Not by Optuna's handle: that belongs to the storage, and the thread, that claimed it.
        trial_id = self._id_of(claim.number)
        trial = self.storage.optuna.get_trial(trial_id)
        reporting = self._reporting.get(claim.token)
        begun = reporting is not None and reporting[0] == epoch
        if (
            epoch in trial.intermediate_values and not begun
        ):  # a resumed attempt passes epochs that were reported before
            return False
        if reporting != (epoch, True):
            self._reporting[claim.token] = epoch, False
            self.storage.optuna.set_trial_intermediate_value(trial_id, epoch, float(value))
            self._reporting[claim.token] = epoch, True
        trial.intermediate_values[epoch] = float(value)
        if self._notes.has_verdicts(self.optuna) and not self._index.seen:
            self._look()
        prune = self._judge(trial)
        still = self.storage.optuna.still()
        self._notes.note_verdict(
            self.optuna,
            still,
            claim.token,
            epoch,
            stop=prune,
        )
        del self._reporting[claim.token]
        return prune

    def _judge(self, trial: FrozenTrial) -> bool:
        """Whether the pruner says that a trial is to stop; of a comparison, that of its arm."""
        if self._arm_studies is not None:
            return self._arm_studies.of(trial.number).prune(trial)
        return bool(self.optuna.pruner.prune(self.optuna, trial))

    def finish(self, claim: Claim, result: Result | Mapping[str, Any]) -> bool:
        """Record the end of an attempt.

        False when the claim was lost meanwhile, and the result does not count.
        """
        result = Result.from_json(result)
        self._reporting.pop(claim.token, None)
        is_told = claim.kind == AttemptKind.TRIAL and self._is_sampler_told
        if is_told and self.optuna.sampler is _NOBODY:
            self.optuna.sampler = self._sampler(claim.number)  # Optuna tells it of the end
        with self._section():
            state = result.state
            reason = result.reason
            end: dict[str, Any] = {
                "reason": reason,
                "error": result.error,
                "result": result.to_json(),
            }
            verdict = self._notes.last_verdict(claim.token)
            if not self.leases.close(
                claim.token,
                state,
                **end,
                verdict=verdict,
            ):
                return self.leases.was_closed(claim.token, state, **end)
            if claim.kind == AttemptKind.TRIAL:
                self._tell(
                    claim.number,
                    state,
                    reason,
                    result.values,
                )
        self._notes.forget_attempt(claim.token)
        return True

    def _tell(
        self,
        number: int,
        state: AttemptState,
        reason: str | None,
        values: list[float] | None,
    ) -> None:
        if state is AttemptState.COMPLETE:
            self._end(number, TrialState.COMPLETE, values)
        elif state is AttemptState.PRUNED:
            self._end(number, TrialState.PRUNED, None)
        else:
            self.storage.optuna.set_trial_user_attr(self._id_of(number), REASON, reason)
            self.optuna.tell(number, state=TrialState.FAIL)
        self._settle_duplicates(number)

    def _settle_duplicates(self, number: int) -> None:
        duplicates = running_with(
            self.storage,
            self.id,
            DUPLICATE,
            number,
        )
        if not duplicates:
            return
        trials = self.trials()
        original = trials[number]
        for duplicate in duplicates:
            if original.state is TrialState.FAIL:
                self.storage.optuna.set_trial_user_attr(
                    self._id_of(duplicate),
                    REASON,
                    original.user_attrs.get(REASON, FailureReason.EXCEPTION),
                )
            self._copy(duplicate, original)

    def release(
        self,
        claim: Claim,
        reason: str = FailureReason.INTERRUPTED,
        error: str | None = None,
    ) -> bool:
        """Give an attempt back: the trial waits.

        Its next attempt goes on from the last checkpoint.
        """
        with self._section():
            end: dict[str, Any] = {"reason": reason, "error": error, "result": None}
            if not self.leases.close(claim.token, AttemptState.INTERRUPTED, **end):
                return self.leases.was_closed(claim.token, "interrupted", **end)
            if claim.kind == AttemptKind.TRIAL:
                self._requeue(claim.number)
        return True

    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died.

        Its trial waits for another, or has failed for good.
        """
        with self._section():
            end: dict[str, Any] = {"reason": FailureReason.LOST, "error": error, "result": None}
            if not self.leases.close(claim.token, AttemptState.LOST, **end):
                return self.leases.was_closed(claim.token, AttemptState.LOST, **end)
            self._reap()
        return True

    def _requeue(self, number: int) -> None:
        self.storage.rdb.set_trial_state_values(self._id_of(number), TrialState.WAITING)

    # -- mending ----------------------------------------------------------------------------------
    def reap(self, worker: str | None = None) -> list[Attempt]:
        """End attempts that outlived their lease, and mend what deaths left behind.

        Args:
            worker: A dead one, all of whose attempts are ended.
        """
        with self._section():
            return self._reap(worker)

    def _reap(self, worker: str | None = None) -> list[Attempt]:
        lost = self.leases.expire(worker)
        self._mend()
        return lost

    def _mend(self) -> bool:
        """Requeue or end the running trials that nobody holds.

        Whether anything was changed since the index looked.
        """
        self._look()
        running = self._index.open(TrialState.RUNNING)
        if not running:
            return False
        changed = False
        live = self.leases.live_numbers(AttemptKind.TRIAL)
        for trial in running:
            if trial.number in live:
                continue
            original = trial.user_attrs.get(DUPLICATE)
            if original is None:
                self._mend_trial(trial.number)
                changed = True
            elif self.trials()[original].state.is_finished():
                self._settle_duplicates(original)
                changed = True
        return changed

    def _mend_trial(self, number: int) -> None:
        """Requeue or end a running trial that nobody holds, by what its attempts came to."""
        losses = 0
        ended: Attempt | None = None
        for attempt in self.leases.rows(kind=AttemptKind.TRIAL, number=number):
            if attempt.state in COUNTED_STATES:
                ended = attempt
            elif attempt.state == AttemptState.LOST:
                losses += 1
        if ended is not None:  # its worker died between writing the result and telling Optuna
            values = parse_json(ended.result or "{}", IN_DATABASE).get("values")
            self._tell(
                number,
                AttemptState(ended.state),
                ended.reason,
                values,
            )
        elif losses >= self.max_attempts:
            self._tell(
                number,
                AttemptState.FAILED,
                FailureReason.LOST,
                None,
            )
        else:
            self._requeue(number)

    # -- the study's own row ----------------------------------------------------------------------
    def add_seconds(self, seconds: float) -> None:
        """Add wall time that a driver spent, whose session is over.

        As a sum, which may be written twice.
        """
        total = self.storage.surely(self.budget).seconds + seconds
        self.storage.surely(lambda: end_session(self.storage, self.name, total))

    def is_stopped_by_failures(self) -> bool:
        """Whether trials are left that nobody may claim, because the first all failed alike."""
        if self.failure_watch.look() is None:
            return False
        trials = self.trials()
        is_any_left = any(trial.state is TrialState.WAITING for trial in trials)
        return is_any_left or len(trials) < self.budget().n_trials

    def settle(self, *, interrupted: bool, confirmed: bool) -> bool:
        """Note whether the study is finished.

        Nothing left to run, and its leaders confirmed where that is wanted.

        One that was finished before, and of which nothing more was asked, stays so.
        """
        running = any(t.state is TrialState.RUNNING for t in self.trials())
        is_served = not interrupted and not running and confirmed
        is_stopped = is_served and self.is_stopped_by_failures()
        finished = self.row().finished or (is_served and not is_stopped)
        update_row(self.storage, self.name, finished=finished)
        return finished


__all__ = ["DUPLICATE", "REASON", "Claim", "Study"]
