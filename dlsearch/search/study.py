"""A study: claiming trials, telling results, and the invariants that hold whoever dies in between.

A trial is claimed under the study's lock: expired attempts are reaped, the total is compared with `n_trials`, Optuna
is asked, duplicates are settled, the attempt is opened. A result counts only if its attempt is still live (fencing);
it is written to the attempt and told to Optuna in one transaction. A claim is one too, but for the trial's own row,
which is written before the sampler runs: that can take seconds, and must not hold up who else writes.
:meth:`Study.reap` mends whatever a death in between, or an older version, left half done.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from dlsearch.config.errors import ConfigError
from dlsearch.config.schema import StudyConfig
from dlsearch.search.index import TrialIndex, best_id, counts, params_key, running_with
from dlsearch.search.leases import Holder, Leases, Ledger
from dlsearch.search.samplers import build_pruner, build_sampler
from dlsearch.search.seeds import trial_seed
from dlsearch.search.space import Space
from dlsearch.search.study_rows import budget, names, read_row, update_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlsearch.search.database import Attempt, Storage, StudyRow

optuna.logging.set_verbosity(optuna.logging.WARNING)

DUPLICATE = "duplicate_of"
REASON = "reason"


@dataclass
class Claim:
    """A trial, or a part of the confirmation, held by one worker.

    Args:
        kind: ``trial``; ``confirm``, ``refit`` or ``test``.
        number: The trial's number; of the attempt's row where it is no trial.
        attempt: Which try this is, from 1.
        token: The fencing token.
        params: Searched values, decoded.
        seed: The trial's seed.
        trial: Optuna's handle, for reports; None where it is no trial.
        reporting: The epoch that is being reported, and whether that is known to stand: else it is reported again.
    """

    kind: str
    number: int
    attempt: int
    token: str
    params: dict[str, Any]
    seed: int
    trial: optuna.Trial | None
    reporting: tuple[int, bool] | None = field(default=None, init=False, compare=False)


class Study:
    """An open study.

    Args:
        storage: The open storage.
        name: Its name.
        lease_s: Lease of the attempts that are claimed through this handle, seconds.

    Raises:
        ConfigError: There is no such study in the storage.
    """

    def __init__(self, storage: Storage, name: str, *, lease_s: float = 30.0) -> None:
        """Read the study's document."""
        self.storage, self.name = storage, name
        row = read_row(storage, name)
        if row is None:
            known = ", ".join(names(storage)[:8]) or "none yet"
            raise ConfigError("study.name", f"there is no study {name!r} in this storage", f"there is: {known}")
        self.document: dict[str, Any] = json.loads(row.document)
        self.space = Space.from_json(self.document["space"])
        self.seed = int(self.document["seed"])
        self.directions: list[str] = self.document["directions"]
        self._load(storage.optuna)
        self.leases = Leases(storage, name, lease_s)
        self.ledger = Ledger(storage, name)
        settings = self.document["config"]["study"]
        self.max_attempts = int(settings["max_attempts"])
        self.max_halvings = int(settings.get("max_halvings", StudyConfig.max_halvings))
        self.finalize = bool(settings["finalize"])

    def _load(self, storage: optuna.storages.BaseStorage) -> None:
        self.optuna = optuna.load_study(study_name=self.name, storage=storage)
        self.optuna.pruner = build_pruner(
            self.document["pruner"],
            max_epochs=int(self.document["config"]["trainer"]["max_epochs"]),
            direction=self.directions[0],
            extra=self.document["allow_targets"],
        )
        self._index, self._void = TrialIndex(), False

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
        with self.storage.lock(self.name), self._writing():
            yield

    # -- reading -------------------------------------------------------------------------------------------------
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

    def counts(self) -> dict[TrialState, int]:
        """How many trials are in each state."""
        with self.storage.begin() as connection:
            return counts(connection, self.optuna._study_id)

    def best(self) -> FrozenTrial | None:
        """The best complete trial by the first objective; None without one, or with several objectives."""
        if len(self.directions) > 1:
            return None
        with self.storage.begin() as connection:
            found = best_id(connection, self.optuna._study_id, self.directions[0])
        return None if found is None else self.storage.optuna.get_trial(found)

    # -- claiming ------------------------------------------------------------------------------------------------
    def claim(self, holder: Holder, *, deadline: float | None = None, target: float | None = None) -> Claim | None:
        """Claim the next trial; None when there is none to claim now.

        Args:
            holder: Who claims.
            deadline: No trial is claimed after this time (``time.time()``).
            target: No trial is claimed once the best value has reached this.
        """
        if not self._index.seen:
            self._look()  # all trials, once: seconds for thousands, and nobody shall wait for the lock meanwhile
        with self.storage.lock(self.name):
            with self._writing():
                self.leases.forget()
                self.leases.expire()
                if self._mend():
                    self._look()
                if (deadline is not None and time.time() >= deadline) or self.reached(target):
                    return None
                n_trials, finished = budget(self.storage, self.name)
                trial = self._next(n_trials)
            self.leases.unsure = None
            while trial is not None:
                with self._writing():  # its first write, which keeps others from writing, follows the sampler's work
                    claim = self._take(trial, holder, finished)
                if claim is not None:
                    self.leases.unsure = None
                    return claim
                with self._writing():
                    self._look()
                    trial = self._next(n_trials)
        return None

    def _take(self, trial: optuna.Trial, holder: Holder, finished: bool) -> Claim | None:
        """Give a trial its parameters and open an attempt at it; None where it was settled as a duplicate."""
        with self.storage.optuna.still():
            params = self.space.suggest(trial, self.document["config"])
        with self.storage.begin() as connection:
            self.storage.optuna.write_params(connection)
        if self._duplicates(trial):
            return None
        if finished:  # it is not, any more
            update_row(self.storage, self.name, finished=False)
        _, attempt, token = self.leases.open("trial", trial.number, holder)
        return Claim("trial", trial.number, attempt, token, params, trial_seed(self.seed, trial.number), trial)

    def _look(self) -> None:
        trials = self.trials()  # first: where the caches are void, it begins a new index
        self._index.update(trials)

    def _next(self, n_trials: int) -> optuna.Trial | None:
        """Take the first trial that waits, or a new one, as the index has them; None at the end of the budget."""
        waiting = self._index.open(TrialState.WAITING)
        if not waiting and self._index.seen >= n_trials:
            return None
        number = waiting[0].number if waiting else self._index.seen
        # A fresh sampler, seeded by the trial's number: a reloaded seeded sampler would propose the same points again.
        self.optuna.sampler = build_sampler(
            self.document["sampler"],
            space=self.space,
            study_seed=self.seed,
            number=number,
            directions=self.directions,
            extra=self.document["allow_targets"],
        )
        with self.storage.optuna.still():
            return self.optuna.ask()

    def _duplicates(self, trial: optuna.Trial) -> bool:
        """Settle a trial whose parameters ran, or run, already; False when it is new."""
        if trial.number < self._index.seen and (  # it waited
            trial.user_attrs.get(DUPLICATE) is not None or self.leases.rows(kind="trial", number=trial.number)
        ):
            return False  # it was claimed before: this is a retry
        mine = params_key(trial.params)
        running = (
            other.number
            for other in self._index.open(TrialState.RUNNING)
            if other.number != trial.number and DUPLICATE not in other.user_attrs and params_key(other.params) == mine
        )
        tried, beside = self._index.tried(mine), next(running, None)
        if tried is None and beside is None:
            return False
        if tried is not None and (beside is None or tried < beside):
            trial.set_user_attr(DUPLICATE, tried)
            self._copy(trial.number, self._index.trials[tried])
        else:
            trial.set_user_attr(DUPLICATE, beside)
        return True

    def _copy(self, number: int, other: FrozenTrial) -> None:
        if other.state is TrialState.COMPLETE:
            self.optuna.tell(number, values=other.values)
        else:
            self.optuna.tell(number, state=other.state)

    def searching(self, deadline: float | None = None, target: float | None = None) -> bool:
        """Whether a trial runs, or one may yet be claimed: until the confirmation can begin."""
        trials = self.trials()
        stopped = (deadline is not None and time.time() >= deadline) or self.reached(target)
        waiting = len(trials) < self.row().n_trials or any(t.state is TrialState.WAITING for t in trials)
        return any(t.state is TrialState.RUNNING for t in trials) or (waiting and not stopped)

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
        return best.values[0] >= target if self.directions[0] == "maximize" else best.values[0] <= target

    # -- telling -------------------------------------------------------------------------------------------------
    def report(self, claim: Claim, epoch: int, value: float) -> bool:
        """Report the first objective after an epoch; True when the pruner says stop."""
        if claim.trial is None or len(self.directions) > 1:
            return False
        known = self.storage.optuna.get_trial(claim.trial._trial_id).intermediate_values
        begun = claim.reporting is not None and claim.reporting[0] == epoch
        if epoch in known and not begun:  # a resumed attempt passes epochs that were reported before
            return False
        if claim.reporting != (epoch, True):
            claim.reporting = epoch, False
            claim.trial.report(value, epoch)
            claim.reporting = epoch, True
        prune = bool(claim.trial.should_prune())
        claim.reporting = None
        return prune

    def finish(self, claim: Claim, result: dict[str, Any]) -> bool:
        """Record the end of an attempt; False when the claim was lost meanwhile, and the result does not count."""
        with self._section():
            state, reason = result["state"], result.get("reason")
            end: dict[str, Any] = {"reason": reason, "error": result.get("error"), "result": result}
            if not self.leases.close(claim.token, state, **end):
                return self.leases.was_closed(claim.token, state, **end)
            if claim.kind == "trial":
                self._tell(claim.number, state, reason, result.get("values"))
        return True

    def _tell(self, number: int, state: str, reason: str | None, values: list[float] | None) -> None:
        if state == "complete":
            self.optuna.tell(number, values=values)
        elif state == "pruned":
            self.optuna.tell(number, state=TrialState.PRUNED)
        else:
            trial_id = self.storage.optuna.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
            self.storage.optuna.set_trial_user_attr(trial_id, REASON, reason)
            self.optuna.tell(number, state=TrialState.FAIL)
        self._settle_duplicates(number)

    def _settle_duplicates(self, number: int) -> None:
        with self.storage.begin() as connection:
            duplicates = running_with(connection, self.optuna._study_id, DUPLICATE, number)
        if not duplicates:
            return
        trials = self.trials()
        original = trials[number]
        for duplicate in duplicates:
            if original.state is TrialState.FAIL:
                self.storage.optuna.set_trial_user_attr(
                    trials[duplicate]._trial_id, REASON, original.user_attrs.get(REASON, "exception")
                )
            self._copy(duplicate, original)

    def release(self, claim: Claim, reason: str = "interrupted", error: str | None = None) -> bool:
        """Give an attempt back: the trial waits, and its next attempt goes on from the last checkpoint."""
        with self._section():
            end: dict[str, Any] = {"reason": reason, "error": error, "result": None}
            if not self.leases.close(claim.token, "interrupted", **end):
                return self.leases.was_closed(claim.token, "interrupted", **end)
            if claim.kind == "trial":
                self._requeue(claim.number)
        return True

    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died; its trial waits for another, or has failed for good."""
        with self._section():
            end: dict[str, Any] = {"reason": "lost", "error": error, "result": None}
            if not self.leases.close(claim.token, "lost", **end):
                return self.leases.was_closed(claim.token, "lost", **end)
            self._reap()
        return True

    def _requeue(self, number: int) -> None:
        trial_id = self.storage.optuna.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        self.storage.rdb.set_trial_state_values(trial_id, TrialState.WAITING)

    # -- mending -------------------------------------------------------------------------------------------------
    def reap(self, worker: str | None = None) -> list[Attempt]:
        """End attempts that outlived their lease (or those of a dead `worker`), and mend what deaths left behind."""
        with self._section():
            return self._reap(worker)

    def _reap(self, worker: str | None = None) -> list[Attempt]:
        lost = self.leases.expire(worker)
        self._mend()
        return lost

    def _mend(self) -> bool:
        """Requeue or end the running trials that nobody holds; whether anything was changed since the index looked."""
        self._look()
        running = self._index.open(TrialState.RUNNING)
        if not running:
            return False
        changed = False
        live = self.leases.live_numbers("trial")
        for trial in running:
            if trial.number in live:
                continue
            original = trial.user_attrs.get(DUPLICATE)
            if original is not None:
                if self.trials()[original].state.is_finished():
                    self._settle_duplicates(original)
                    changed = True
                continue
            changed = True
            attempts = self.leases.rows(kind="trial", number=trial.number)
            ended = next((a for a in reversed(attempts) if a.state in ("complete", "pruned", "failed")), None)
            if ended is not None:  # its worker died between writing the result and telling Optuna
                values = json.loads(ended.result or "{}").get("values")
                self._tell(trial.number, ended.state, ended.reason, values)
            elif sum(a.state == "lost" for a in attempts) >= self.max_attempts:
                self._tell(trial.number, "failed", "lost", None)
            else:
                self._requeue(trial.number)
        return changed

    # -- the study's own row -------------------------------------------------------------------------------------
    def add_seconds(self, seconds: float) -> None:
        """Add wall time that a driver spent; as a sum, which may be written twice."""
        total = self.storage.surely(self.row).seconds + seconds
        self.storage.surely(lambda: update_row(self.storage, self.name, seconds=total))

    def settle(self, *, interrupted: bool, confirmed: bool) -> bool:
        """Note whether the study is finished: nothing left to run, and its leaders confirmed where that is wanted.

        One that was finished before, and of which nothing more was asked, stays so.
        """
        running = any(t.state is TrialState.RUNNING for t in self.trials())
        finished = self.row().finished or (not interrupted and not running and confirmed)
        update_row(self.storage, self.name, finished=finished)
        return finished
