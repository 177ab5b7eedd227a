"""A study: claiming trials, telling results, and the invariants that hold whoever dies in between.

A trial is claimed under the study's lock: expired attempts are reaped, the total is compared with `n_trials`, Optuna
is asked, duplicates are settled, the attempt is opened. A result counts only if its attempt is still live (fencing);
it is written to the attempt first and told to Optuna second, and :meth:`Study.reap` mends whatever a death between
the two left behind.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from dlsearch.config.errors import ConfigError
from dlsearch.search.database import Attempt, Storage, StudyRow
from dlsearch.search.leases import Holder, Leases, Ledger
from dlsearch.search.samplers import build_pruner, build_sampler
from dlsearch.search.seeds import trial_seed
from dlsearch.search.space import Space

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
    """

    kind: str
    number: int
    attempt: int
    token: str
    params: dict[str, Any]
    seed: int
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
        self.optuna = optuna.load_study(study_name=name, storage=storage.optuna)
        self.leases = Leases(storage, name, lease_s)
        self.ledger = Ledger(storage, name)
        settings = self.document["config"]["study"]
        self.max_attempts = int(settings["max_attempts"])
        self.finalize = bool(settings["finalize"])
        self.optuna.pruner = build_pruner(
            self.document["pruner"],
            max_epochs=int(self.document["config"]["trainer"]["max_epochs"]),
            direction=self.directions[0],
            extra=self.document["allow_targets"],
        )

    # -- reading -------------------------------------------------------------------------------------------------
    def trials(self) -> list[FrozenTrial]:
        """All trials as Optuna has them, by number."""
        return self.optuna.get_trials(deepcopy=False)

    def row(self) -> StudyRow:
        """The study's row as it is now."""
        row = read_row(self.storage, self.name)
        assert row is not None
        return row

    def best(self) -> FrozenTrial | None:
        """The best complete trial by the first objective; None without one, or with several objectives."""
        if len(self.directions) > 1:
            return None
        done = [t for t in self.trials() if t.state is TrialState.COMPLETE and t.values is not None]
        sign = 1.0 if self.directions[0] == "maximize" else -1.0
        return max(done, key=lambda t: (sign * t.values[0], -t.number), default=None)

    # -- claiming ------------------------------------------------------------------------------------------------
    def claim(self, holder: Holder, *, deadline: float | None = None, target: float | None = None) -> Claim | None:
        """Claim the next trial; None when there is none to claim now.

        Args:
            holder: Who claims.
            deadline: No trial is claimed after this time (``time.time()``).
            target: No trial is claimed once the best value has reached this.
        """
        with self.storage.lock(self.name):
            self._reap()
            if (deadline is not None and time.time() >= deadline) or self.reached(target):
                return None
            n_trials = self.row().n_trials
            while True:
                trials = self.trials()
                waiting = [t.number for t in trials if t.state is TrialState.WAITING]
                if not waiting and len(trials) >= n_trials:
                    return None
                trial, params = self._ask(waiting[0] if waiting else len(trials))
                if not self._duplicates(trial, params, trials):
                    _, attempt, token = self.leases.open("trial", trial.number, holder)
                    seed = trial_seed(self.seed, trial.number)
                    return Claim("trial", trial.number, attempt, token, params, seed, trial)

    def _ask(self, number: int) -> tuple[optuna.Trial, dict[str, Any]]:
        # A fresh sampler, seeded by the trial's number: a reloaded seeded sampler would propose the same points again.
        self.optuna.sampler = build_sampler(
            self.document["sampler"],
            space=self.space,
            study_seed=self.seed,
            number=number,
            directions=self.directions,
            extra=self.document["allow_targets"],
        )
        trial = self.optuna.ask()
        return trial, self.space.suggest(trial, self.document["config"])

    def _duplicates(self, trial: optuna.Trial, params: dict[str, Any], trials: list[FrozenTrial]) -> bool:
        """Settle a trial whose parameters ran, or run, already; False when it is new."""
        if (
            trial.user_attrs.get(DUPLICATE) is not None
            or self.leases.live_numbers("trial").get(trial.number) is not None
        ):
            return False  # it was claimed before: this is a retry
        mine = _key(trial.params)
        for other in trials:
            if other.number == trial.number or _key(other.params) != mine:
                continue
            if other.state in (TrialState.COMPLETE, TrialState.PRUNED):
                trial.set_user_attr(DUPLICATE, other.number)
                self._copy(trial.number, other)
                return True
            if other.state is TrialState.RUNNING and DUPLICATE not in other.user_attrs:
                trial.set_user_attr(DUPLICATE, other.number)
                return True
        return False

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
        if epoch in known:  # a resumed attempt passes epochs that were reported before
            return False
        claim.trial.report(value, epoch)
        return bool(claim.trial.should_prune())

    def finish(self, claim: Claim, result: dict[str, Any]) -> bool:
        """Record the end of an attempt; False when the claim was lost meanwhile, and the result does not count."""
        with self.storage.lock(self.name):
            state, reason, error = result["state"], result.get("reason"), result.get("error")
            if not self.leases.close(claim.token, state, reason=reason, error=error, result=result):
                return False
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
        trials = self.trials()
        original = trials[number]
        for trial in trials:
            if trial.state is TrialState.RUNNING and trial.user_attrs.get(DUPLICATE) == number:
                if original.state is TrialState.FAIL:
                    self.storage.optuna.set_trial_user_attr(
                        trial._trial_id, REASON, original.user_attrs.get(REASON, "exception")
                    )
                self._copy(trial.number, original)

    def release(self, claim: Claim, reason: str = "interrupted", error: str | None = None) -> bool:
        """Give an attempt back: the trial waits, and its next attempt goes on from the last checkpoint."""
        with self.storage.lock(self.name):
            if not self.leases.close(claim.token, reason, reason=reason, error=error, result=None):
                return False
            if claim.kind == "trial":
                self._requeue(claim.number)
        return True

    def lose(self, claim: Claim, error: str) -> bool:
        """Record that the process of an attempt died; its trial waits for another, or has failed for good."""
        with self.storage.lock(self.name):
            if not self.leases.close(claim.token, "lost", reason="lost", error=error, result=None):
                return False
            self._reap()
        return True

    def _requeue(self, number: int) -> None:
        trial_id = self.storage.optuna.get_trial_id_from_study_id_trial_number(self.optuna._study_id, number)
        self.storage.rdb.set_trial_state_values(trial_id, TrialState.WAITING)

    # -- mending -------------------------------------------------------------------------------------------------
    def reap(self, worker: str | None = None) -> list[Attempt]:
        """End attempts that outlived their lease (or those of a dead `worker`), and mend what deaths left behind."""
        with self.storage.lock(self.name):
            return self._reap(worker)

    def _reap(self, worker: str | None = None) -> list[Attempt]:
        lost = self.leases.expire(worker)
        running = [t for t in self.trials() if t.state is TrialState.RUNNING]
        if not running:
            return lost
        live = self.leases.live_numbers("trial")
        for trial in running:
            if live.get(trial.number):
                continue
            original = trial.user_attrs.get(DUPLICATE)
            if original is not None:
                if self.trials()[original].state.is_finished():
                    self._settle_duplicates(original)
                continue
            attempts = [a for a in self.leases.rows(kind="trial") if a.number == trial.number]
            ended = next((a for a in reversed(attempts) if a.state in ("complete", "pruned", "failed")), None)
            if ended is not None:  # its worker died between writing the result and telling Optuna
                values = json.loads(ended.result or "{}").get("values")
                self._tell(trial.number, ended.state, ended.reason, values)
            elif sum(a.state == "lost" for a in attempts) >= self.max_attempts:
                self._tell(trial.number, "failed", "lost", None)
            else:
                self._requeue(trial.number)
        return lost

    # -- the study's own row -------------------------------------------------------------------------------------
    def add_seconds(self, seconds: float) -> None:
        """Add wall time that a driver spent."""
        _update_row(self.storage, self.name, seconds=StudyRow.seconds + seconds)

    def settle(self, *, interrupted: bool, confirmed: bool) -> bool:
        """Note whether the study is finished: nothing left to run, and its leaders confirmed where that is wanted."""
        running = any(t.state is TrialState.RUNNING for t in self.trials())
        finished = not interrupted and not running and confirmed
        _update_row(self.storage, self.name, finished=finished)
        return finished


def _key(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


def read_row(storage: Storage, name: str) -> StudyRow | None:
    """The row of a study."""
    with sa.orm.Session(storage.engine, expire_on_commit=False) as session:
        row = session.get(StudyRow, name)
        session.expunge_all()
    return row


def _update_row(storage: Storage, name: str, **values: Any) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sa.update(StudyRow).where(StudyRow.name == name).values(**values))


def names(storage: Storage) -> list[str]:
    """The studies of a storage, newest first."""
    with storage.engine.connect() as connection:
        return list(connection.execute(sa.select(StudyRow.name).order_by(StudyRow.created.desc())).scalars())
