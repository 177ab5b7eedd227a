"""Rounds of confirmation: which replicas are left to run, who runs them, and what came of them.

In the storage.

A round is opened when the search is over. Its replicas are attempts like those of trials (leases,
fencing, retries), and so is the scoring of its winner. The choice of the winner is written down
before the test set is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.confirmation import racing
from dlsearch.confirmation.racing import Candidate, Race
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.sampling.seeds import refit_seed, replica_seed
from dlsearch.storage.database import Attempt, RoundRow
from dlsearch.storage.trial_index import is_feasible
from dlsearch.study.models import Claim, ConfirmClaim, Finalist, Result
from dlsearch.study.states import AttemptKind, AttemptState, Direction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import AttemptSummary
    from dlsearch.study.study import Study

# an attempt's number is made of round, finalist and replica; there are fewer of either
_STRIDE = 1000


CONFIRM = AttemptKind.CONFIRM
REFIT = AttemptKind.REFIT
TEST = AttemptKind.TEST
SETTINGS = {
    "top": 3,
    "seeds": 5,
    "racing": True,
    "refit": False,
}


@dataclass
class Round:
    """A round of confirmation, as the storage has it.

    Args:
        number: From 1.
        document: What was written when it was opened, with the choice and the outcome once there
            are such.
        finished: Whether nothing is left to do.
        field: The finalists.
        attempts: Those at each replica, by (finalist, replica).
        refits: Attempts at the training on train + validation.
        tests: Attempts at the scoring, without those that a later session gave up.
        race: What is left to run, or who won.
        ends: How each replica ended; absent where it has not.
    """

    number: int
    document: dict[str, Any]
    finished: bool
    field: list[Finalist]
    attempts: dict[tuple[int, int], list[Attempt]]
    refits: list[Attempt]
    tests: list[Attempt]
    race: Race
    ends: dict[tuple[int, int], AttemptState]

    @property
    def seeds(self) -> list[int]:
        """One for each replica."""
        return list(self.document["seeds"])

    def result(self, finalist: int, replica: int) -> dict[str, Any]:
        """What the replica's training came to; empty where it has not ended."""
        return result_of(self.attempts.get((finalist, replica), []))

    def of(self, attempt: Attempt | AttemptSummary) -> dict[str, Any]:
        """What an attempt of this round is about.

        ``number`` (of the trial), ``default`` and ``replica``.
        """
        f = self.race.winner or 0
        replica = None
        number = attempt.number
        if attempt.kind == CONFIRM:
            number, rest = divmod(number, _STRIDE**2)
            f, replica = divmod(rest, _STRIDE)
        if number != self.number:  # of a round that was given up
            return {"number": None, "default": False, "replica": replica}
        each = self.field[f]
        return {"number": each.trial_number, "default": each.default, "replica": replica}

    def values(self, finalist: int) -> dict[int, float | None]:
        """Its replicas' values: None where it failed."""
        return {
            i: self.result(f, i)["values"][0] if state is AttemptState.COMPLETE else None
            for (f, i), state in sorted(self.ends.items())
            if f == finalist
        }

    @property
    def scoring_error(self) -> str | None:
        """Why the winner has no test score, in one line.

        None where it has one, or may yet get one.
        """
        if not self.finished or self.document["scored"]:
            return None
        return next((attempt.error for attempt in reversed(self.tests) if attempt.error), None)

    def refit_epochs(self) -> int:
        """Mean length to the best epoch of the winner's replicas, rounded; at least 1."""
        winner = self.race.winner
        found = [
            self.result(f, i)
            for (f, i), end in self.ends.items()
            if f == winner and end is AttemptState.COMPLETE
        ]
        return max(1, round(sum(r["best_epoch"] + 1 for r in found) / len(found)))

    def to_score(self, max_attempts: int) -> tuple[list[ConfirmClaim], int]:
        """The trainings of the winner that are scored on the test set, and which of them is its best replica."""
        winner = self.race.winner
        kept = self.race.kept
        assert winner is not None
        assert kept is not None
        finalist = self.field[winner]
        params = finalist.trained_params
        runs = [
            ConfirmClaim(CONFIRM, 0, 0, "", params, seed, None, self.number, finalist, i)
            for i, seed in enumerate(self.seeds)
            if self.ends.get((winner, i)) is AttemptState.COMPLETE
        ]
        index = next(n for n, run in enumerate(runs) if run.replica == kept)
        if end_of(self.refits, max_attempts) is AttemptState.COMPLETE:
            epochs = self.refit_epochs()
            seed = self.document["refit_seed"]
            runs.append(
                ConfirmClaim(
                    REFIT, 0, 0, "", params, seed, None, self.number, finalist, None, epochs
                )
            )
        return runs, index


def result_of(attempts: list[Attempt]) -> dict[str, Any]:
    """The result of the last attempt that has one."""
    return dict(
        parse_json(next((a.result for a in reversed(attempts) if a.result), "{}"), IN_DATABASE)
    )


def end_of(attempts: list[Attempt], max_attempts: int) -> AttemptState | None:
    """``complete``, ``failed``, or ``lost`` for good; None where it may yet become something."""
    states = [a.state for a in attempts]
    for state in (AttemptState.COMPLETE, AttemptState.FAILED):
        if state in states:
            return state
    return AttemptState.LOST if states.count(AttemptState.LOST) >= max_attempts else None


class Rounds:
    """The confirmation of one study.

    Args:
        study: The open study.
    """

    def __init__(self, study: Study) -> None:
        """Read nothing yet."""
        self.study = study
        self.storage = study.storage
        self.wanted = study.finalize and len(study.directions) == 1
        self.maximize = study.directions[0] == Direction.MAXIMIZE

    # -- reading ----------------------------------------------------------------------------------
    def last(self) -> Round | None:
        """The newest round; None before the first."""
        query = (
            sa.select(RoundRow)
            .where(RoundRow.study == self.study.name)
            .order_by(RoundRow.round.desc())
            .limit(1)
        )
        with self.storage.begin() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else self._read(row)

    def _read(self, row: Any) -> Round:
        document = parse_json(row.document, IN_DATABASE)
        field = [Finalist(**each) for each in document["finalists"]]
        attempts: dict[tuple[int, int], list[Attempt]] = {}
        for attempt in self.study.leases.rows(kind=CONFIRM):
            number, rest = divmod(attempt.number, _STRIDE**2)
            if number == row.round:
                attempts.setdefault(divmod(rest, _STRIDE), []).append(attempt)
        most = self.study.max_attempts
        ends = {at: end for at, rows in attempts.items() if (end := end_of(rows, most)) is not None}
        refits, tests = (
            [a for a in self.study.leases.rows(kind=k) if a.number == row.round]
            for k in (REFIT, TEST)
        )
        tests = [a for a in tests if a.attempt > document.get("given_up", 0)]
        undecided = Race({}, [], None, None, False)
        found = Round(
            row.round,
            document,
            row.finished is not None,
            field,
            attempts,
            refits,
            tests,
            undecided,
            ends,
        )
        choice = document.get("choice")
        if choice is not None:
            dropped = {int(f): seeds for f, seeds in choice["dropped"].items()}
            found.race = Race(dropped, [], choice["winner"], choice["kept"], True)
        else:
            values = [found.values(f) for f in range(len(field))]
            found.race = racing.race(
                field,
                values,
                len(found.seeds),
                maximize=self.maximize,
                racing=document["racing"],
            )
        return found

    def done(self) -> bool:
        """Whether there is nothing to confirm, or it has been done and scored, or the study was left as finished."""
        wanted = self._document() if self.wanted and not self.study.budget().finished else None
        if wanted is None:
            return True
        last = self.last()
        return (
            last is not None
            and last.finished
            and _covers(last.document, wanted)
            and last.document["scored"]
        )

    # -- claiming ---------------------------------------------------------------------------------
    def claim(
        self,
        holder: Holder,
        *,
        deadline: float | None = None,
        target: float | None = None,
    ) -> ConfirmClaim | None:
        """Claim the next part of the confirmation, once no trial is left to run.

        None where there is none now.

        Args:
            holder: Who claims.
            deadline: Of the claimant's own, after which it claims no trial, so that waiting ones do
                not count.
            target: Of the claimant's own: it claims no trial once the best value has reached this.
        """
        if not self.wanted:
            return None
        with self.storage.lock(self.study.name):
            self.study.leases.forget()
            self.study._reap()
            self.study.leases.unsure.clear()
            now = self._current(deadline, target)
            return None if now is None or now.finished else self._next(now, holder)

    def _current(self, deadline: float | None, target: float | None) -> Round | None:
        # Finished is finished, also where other leaders would be chosen today: the test set is not
        # opened for that.
        if self.study.searching(deadline, target) or self.study.budget().finished:
            return None
        wanted = self._document()
        if wanted is None:
            return None
        last = self.last()
        if last is None or not _covers(last.document, wanted):
            self._open(1 if last is None else last.number + 1, wanted)
            last = self.last()
        return last

    def _document(self) -> dict[str, Any] | None:
        """The round as it would be opened now; None without a completed and feasible trial."""
        study = self.study
        settings = {**SETTINGS, **(study.typed.study_settings.get("confirm") or {})}
        complete = [
            t for t in study.trials() if t.state is TrialState.COMPLETE and t.values is not None
        ]
        trials = [t for t in complete if is_feasible(t)]
        if not trials:
            return None
        defaults = study.typed.defaults
        outside = [t for t in complete if not is_feasible(t)]
        found = racing.finalists(
            [
                Candidate(
                    t.number, study.params_of(t), t.values[0], bool(t.user_attrs.get("default"))
                )
                for t in trials
            ],
            top=int(settings["top"]),
            maximize=self.maximize,
            defaults=defaults,
            with_default=not any(
                t.user_attrs.get("default") or study.params_of(t) == defaults for t in outside
            ),
        )
        return {**settings, "finalists": [vars(each) for each in found], "scored": False}

    def _open(self, number: int, document: dict[str, Any]) -> None:
        seeds = [replica_seed(self.study.seed, number, i) for i in range(int(document["seeds"]))]
        with self.storage.begin() as connection:
            connection.execute(
                sa.insert(RoundRow).values(
                    study=self.study.name,
                    round=number,
                    opened=self.storage.now(connection),
                    document=json.dumps(
                        {
                            **document,
                            "seeds": seeds,
                            "refit_seed": refit_seed(self.study.seed, number),
                        }
                    ),
                )
            )

    def _next(self, now: Round, holder: Holder) -> ConfirmClaim | None:
        if not now.race.decided:
            for f, i in now.race.wanted:
                if not any(a.state == AttemptState.RUNNING for a in now.attempts.get((f, i), [])):
                    number = (now.number * _STRIDE + f) * _STRIDE + i
                    return self._claim(now, holder, CONFIRM, number, f, i, now.seeds[i])
            return None
        race = now.race
        if "choice" not in now.document:  # before the test set is opened
            dropped = {str(f): seeds for f, seeds in race.dropped.items()}
            now.document["choice"] = {"winner": race.winner, "kept": race.kept, "dropped": dropped}
            self._write(now)
        if race.winner is None or race.kept is None:
            self._finish(now)
            return None
        most = self.study.max_attempts
        if now.document["refit"] and end_of(now.refits, most) is None:
            seed = now.document["refit_seed"]
            epochs = now.refit_epochs()
            return self._claim(now, holder, REFIT, now.number, race.winner, None, seed, epochs)
        if end_of(now.tests, most) is None and not self._is_scored(now.number):
            return self._claim(
                now, holder, TEST, now.number, race.winner, None, now.seeds[race.kept]
            )
        self._finish(now)
        return None

    def _claim(
        self,
        now: Round,
        holder: Holder,
        kind: AttemptKind,
        number: int,
        f: int,
        replica: int | None,
        seed: int,
        epochs: int | None = None,
    ) -> ConfirmClaim | None:
        if any(
            a.state == AttemptState.RUNNING
            for a in (now.refits if kind == REFIT else now.tests if kind == TEST else [])
        ):
            return None
        finalist = now.field[f]
        _, attempt, token = self.study.leases.open(kind, number, holder)
        self.study.leases.unsure.clear()
        params = finalist.trained_params
        return ConfirmClaim(
            kind,
            number,
            attempt,
            token,
            params,
            seed,
            self.study.known_budget.trial_timeout_s,
            now.number,
            finalist,
            replica,
            epochs,
        )

    # -- ending -----------------------------------------------------------------------------------
    def score(
        self,
        claim: Claim,
        result: Result | Mapping[str, Any],
        ledger_row: int | None,
    ) -> bool:
        """Record what the test set showed.

        False when the claim was lost meanwhile, and it does not count.

        The ledger gets it before the attempt ends: a death in between leaves a score that the next
        worker finds, and the test set stays closed.
        """
        leases = self.study.leases
        result = Result.from_json(result)
        test = result.test
        end: dict[str, Any] = {
            "reason": result.reason,
            "error": result.error,
            "result": replace(result, test=None).to_json(),
        }
        with self.storage.lock(self.study.name):
            live = [
                a
                for a in leases.rows(kind=TEST, state=AttemptState.RUNNING)
                if a.token == claim.token
            ]
            if not live:
                return leases.was_closed(claim.token, result.state, **end)
            now = self.last()
            if (
                result.state is AttemptState.COMPLETE
                and test
                and ledger_row is not None
                and now is not None
            ):
                self.study.ledger.scored(ledger_row, self._scores(now, test))
            leases.close(claim.token, result.state, **end)
        return True

    def _scores(self, now: Round, test: dict[str, Any]) -> dict[str, Any]:
        """The ledger's document: the report of the kept replica, and the metrics of all."""
        runs, _ = now.to_score(self.study.max_attempts)
        replicas = []
        refit = {}
        for run, metrics in zip(runs, test["each"], strict=True):
            if run.replica is None:
                refit = {"refit": {"seed": run.seed, "epochs": run.epochs, "metrics": metrics}}
            else:
                replicas.append({"replica": run.replica, "seed": run.seed, "metrics": metrics})
        value = racing.mean(now.values(now.race.winner or 0))
        test = {key: value for key, value in test.items() if key != "each"}
        return {
            **test,
            "round": now.number,
            "value": value,
            "replicas": replicas,
            **refit,
        }

    def _is_scored(self, number: int) -> bool:
        return any(row.get("round") == number for row in self.study.ledger.documents())

    def _finish(self, now: Round) -> None:
        """Note that nothing is left of the round."""
        now.document["scored"] = self._is_scored(now.number)
        now.finished = True
        self._write(now)

    def _write(self, now: Round) -> None:
        with self.storage.begin() as connection:
            values: dict[str, Any] = {"document": json.dumps(now.document)}
            if now.finished:
                values["finished"] = self.storage.now(connection)
            where = (RoundRow.study == self.study.name, RoundRow.round == now.number)
            connection.execute(sa.update(RoundRow).where(*where).values(**values))

    def reopen(self) -> bool:
        """Have the newest round scored again where its scoring failed for good; whether it did.

        Its replicas stand, and so does the choice of its winner, which was written down before the
        test set was opened.
        """
        with self.storage.lock(self.study.name):
            now = self.last()
            if now is None or not now.finished or now.document["scored"] or now.race.winner is None:
                return False
            now.document["given_up"] = max((a.attempt for a in now.tests), default=0)
            with self.storage.begin() as connection:
                where = (RoundRow.study == self.study.name, RoundRow.round == now.number)
                values = {"document": json.dumps(now.document), "finished": None}
                connection.execute(sa.update(RoundRow).where(*where).values(**values))
        return True

    def close(self) -> Round | None:
        """Finish the newest round where nothing is left of it; returns it where it is finished."""
        with self.storage.lock(self.study.name):
            now = self.last()
            if now is None:
                return None
            most = self.study.max_attempts
            if not now.finished and (
                self._is_scored(now.number) or end_of(now.tests, most) is not None
            ):
                self._finish(now)
            return now if now.finished else None


def _covers(document: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a round has all that is wanted now.

    The finalists, as many seeds, the training on train + validation.
    """
    have = {racing.key(each["params"]) for each in document["finalists"]}
    need = {racing.key(each["params"]) for each in wanted["finalists"]}
    enough = len(document["seeds"]) >= int(wanted["seeds"]) and document["refit"] >= wanted["refit"]
    return need <= have and enough


__all__ = [
    "CONFIRM",
    "REFIT",
    "SETTINGS",
    "TEST",
    "ConfirmClaim",
    "Round",
    "Rounds",
    "end_of",
    "result_of",
]
