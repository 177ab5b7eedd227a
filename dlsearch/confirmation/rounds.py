"""Rounds of confirmation: which replicas are left to run, who runs them, and what came of them.

In the storage.

A round is opened when the search is over. Its replicas are attempts like those of trials (leases,
fencing, retries), and so is the scoring of its winner. The choice of the winner is written down
before the test set is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.confirmation import racing
from dlsearch.confirmation.arms import finalists_of_arms
from dlsearch.confirmation.carrying import Source, find_carried, sources_of
from dlsearch.confirmation.racing import Candidate, Part, Race
from dlsearch.confirmation.round_document import (
    Choice,
    ConfirmSettings,
    RoundDocument,
    WantedRound,
    rule_of,
)
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.sampling.seeds import refit_seed, replica_seed
from dlsearch.storage.database import Attempt, RoundRow
from dlsearch.storage.trial_index import is_feasible
from dlsearch.study.models import Claim, ConfirmClaim, Finalist, Result
from dlsearch.study.states import AttemptKind, AttemptState, Direction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import FrozenTrial

    from dlsearch.core.types import JsonObject
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import AttemptSummary
    from dlsearch.study.study import Study

# an attempt's number is made of round, finalist and replica; there are fewer of either
_STRIDE = 1000


CONFIRM = AttemptKind.CONFIRM
REFIT = AttemptKind.REFIT
TEST = AttemptKind.TEST


class AttemptSubject(TypedDict):
    """What an attempt of a round is about.

    ``number`` is the trial's; null where the default configuration was run by no trial, and where
    the attempt's round was given up.
    """

    number: int | None
    default: bool
    replica: int | None


@dataclass
class Round:
    """A round of confirmation, as the storage has it.

    Args:
        number: From 1.
        document: What was written when it was opened, with the choice and the outcome once there
            are such.
        finished: Whether nothing is left to do.
        field: The finalists.
        attempts: Those at each replica.
        refits: Attempts at the training on train + validation.
        tests: Attempts at the scoring, without those that a later session gave up.
        race: What is left to run, or who won.
        ends: How each replica ended; absent where it has not.
        carried: Replicas that an earlier round trained.
    """

    number: int
    document: RoundDocument
    finished: bool
    field: list[Finalist]
    attempts: dict[Part, list[Attempt]]
    refits: list[Attempt]
    tests: list[Attempt]
    race: Race
    ends: dict[Part, AttemptState]
    carried: set[Part]

    @property
    def seeds(self) -> list[int]:
        """One for each replica."""
        return list(self.document["seeds"])

    def result(
        self,
        finalist: int,
        replica: int,
    ) -> JsonObject:
        """What the replica's training came to; empty where it has not ended."""
        return result_of(self.attempts.get(Part(finalist, replica), []))

    def round_of(self, finalist: int, replica: int) -> int:
        """The round that trained a replica: this one, or an earlier one whose folder it has."""
        part = Part(finalist, replica)
        if part not in self.carried:
            return self.number
        complete = [
            attempt for attempt in self.attempts[part] if attempt.state == AttemptState.COMPLETE
        ]
        return _split_number(complete[-1].number)[0]

    def of(self, attempt: Attempt | AttemptSummary) -> AttemptSubject:
        """What an attempt of this round is about."""
        finalist = self.race.winner or 0
        replica = None
        number = attempt.number
        if attempt.kind == CONFIRM:
            number, part = _split_number(attempt.number)
            finalist = part.finalist
            replica = part.replica
        if number != self.number:  # of a round that was given up
            return AttemptSubject(number=None, default=False, replica=replica)
        each = self.field[finalist]
        return AttemptSubject(
            number=each.trial_number,
            default=each.default,
            replica=replica,
        )

    def values(self, finalist: int) -> dict[int, float | None]:
        """Its replicas' values: None where it failed."""
        found: dict[int, float | None] = {}
        for part, state in sorted(self.ends.items()):
            if part.finalist != finalist:
                continue
            if state is not AttemptState.COMPLETE:
                found[part.replica] = None
                continue
            result = self.result(finalist, part.replica)
            found[part.replica] = result["values"][0]
        return found

    @property
    def scoring_error(self) -> str | None:
        """Why the winner has no test score, in one line.

        None where it has one, or may yet get one.
        """
        if not self.finished or self.document["scored"]:
            return None
        for attempt in reversed(self.tests):
            if attempt.error:
                return attempt.error
        return None

    def refit_epochs(self) -> int:
        """Mean length to the best epoch of the winner's replicas, rounded; at least 1."""
        lengths = []
        for part, end in self.ends.items():
            if part.finalist != self.race.winner:
                continue
            if end is AttemptState.COMPLETE:
                result = self.result(part.finalist, part.replica)
                lengths.append(result["best_epoch"] + 1)
        mean_length = sum(lengths) / len(lengths)
        return max(1, round(mean_length))

    def to_score(self, max_attempts: int) -> tuple[list[ConfirmClaim], int]:
        """The trainings of the winner that are scored on the test set.

        Returns:
            The trainings, and which of them is the winner's best replica.
        """
        winner = self.race.winner
        assert winner is not None
        assert self.race.kept is not None
        finalist = self.field[winner]
        runs: list[ConfirmClaim] = []
        best = None
        for replica, seed in enumerate(self.seeds):
            end = self.ends.get(Part(winner, replica))
            if end is not AttemptState.COMPLETE:
                continue
            if replica == self.race.kept:
                best = len(runs)
            run = self._describe_run(CONFIRM, finalist, seed, replica)
            runs.append(replace(run, round=self.round_of(winner, replica)))
        assert best is not None
        if end_of(self.refits, max_attempts) is AttemptState.COMPLETE:
            run = self._describe_run(REFIT, finalist, self.document["refit_seed"])
            runs.append(replace(run, epochs=self.refit_epochs()))
        return runs, best

    def _describe_run(
        self,
        kind: AttemptKind,
        finalist: Finalist,
        seed: int,
        replica: int | None = None,
    ) -> ConfirmClaim:
        """A training that is over: a claim that nobody holds."""
        return ConfirmClaim(
            kind=kind,
            number=0,
            attempt=0,
            token="",
            params=finalist.trained_params,
            seed=seed,
            trial_timeout_s=None,
            round=self.number,
            finalist=finalist,
            replica=replica,
        )


def result_of(attempts: Sequence[Attempt]) -> JsonObject:
    """The result of the last attempt that has one."""
    for attempt in reversed(attempts):
        if attempt.result:
            return dict(parse_json(attempt.result, IN_DATABASE))
    return {}


def end_of(
    attempts: Sequence[Attempt],
    max_attempts: int,
) -> AttemptState | None:
    """``complete``, ``failed``, or ``lost`` for good; None where it may yet become something."""
    states = [attempt.state for attempt in attempts]
    for state in (AttemptState.COMPLETE, AttemptState.FAILED):
        if state in states:
            return state
    if states.count(AttemptState.LOST) >= max_attempts:
        return AttemptState.LOST
    return None


def _number_of(
    round_number: int,
    part: Part,
) -> int:
    """The number of the attempts at a replica."""
    return (round_number * _STRIDE + part.finalist) * _STRIDE + part.replica


def _split_number(number: int) -> tuple[int, Part]:
    """The round and the replica that an attempt's number is made of."""
    round_number, rest = divmod(number, _STRIDE**2)
    return round_number, Part(*divmod(rest, _STRIDE))


def _any_running(attempts: Sequence[Attempt]) -> bool:
    return any(attempt.state == AttemptState.RUNNING for attempt in attempts)


@dataclass(frozen=True)
class _Task:
    """A part of a round that can be claimed.

    Args:
        kind: What is to be done.
        number: Of its attempts.
        finalist: Whose it is, by place in the field.
        seed: Its seed.
        replica: Which replica; None for the refit and the scoring.
        epochs: How long a refit lasts.
    """

    kind: AttemptKind
    number: int
    finalist: int
    seed: int
    replica: int | None = None
    epochs: int | None = None


class Rounds:
    """The confirmation of one study.

    Args:
        study: The open study.
    """

    def __init__(self, study: Study) -> None:
        """Read nothing yet."""
        self.study = study
        self.storage = study.storage
        self.wanted = study.confirms
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
        if row is None:
            return None
        return self._read(row)

    def _read(self, row: sa.Row[Any]) -> Round:
        document: RoundDocument = parse_json(row.document, IN_DATABASE)
        attempts = self._read_replicas(row.round)
        carried = self._read_carried(document)
        for part, before in carried.items():
            attempts[part] = [*before, *attempts.get(part, [])]
        ends: dict[Part, AttemptState] = {}
        for part, at_part in attempts.items():
            end = end_of(at_part, self.study.max_attempts)
            if end is not None:
                ends[part] = end
        given_up = document.get("given_up", 0)
        tests = self._read_attempts(TEST, row.round)
        found = Round(
            number=row.round,
            document=document,
            finished=row.finished is not None,
            field=[Finalist(**each) for each in document["finalists"]],
            attempts=attempts,
            refits=self._read_attempts(REFIT, row.round),
            tests=[attempt for attempt in tests if attempt.attempt > given_up],
            race=Race({}, [], winner=None, kept=None, decided=False),
            ends=ends,
            carried=set(carried),
        )
        found.race = self._race_of(found)
        return found

    def _read_replicas(self, round_number: int) -> dict[Part, list[Attempt]]:
        """The attempts at each replica of a round."""
        found: dict[Part, list[Attempt]] = {}
        for attempt in self.study.leases.rows(kind=CONFIRM):
            number, part = _split_number(attempt.number)
            if number == round_number:
                found.setdefault(part, []).append(attempt)
        return found

    def _read_carried(self, document: RoundDocument) -> dict[Part, list[Attempt]]:
        """The attempts at the replicas that earlier rounds trained whole, as parts of this one.

        Those that failed then are tried again.
        """
        sources = sources_of(document)
        places = {each: place for place, of_place in sources.items() for each in of_place}
        if not places:
            return {}
        found: dict[Part, list[Attempt]] = {}
        for attempt in self.study.leases.rows(kind=CONFIRM):
            number, part = _split_number(attempt.number)
            place = places.get(Source(number, part.finalist))
            if place is not None and part.replica < len(document["seeds"]):
                found.setdefault(Part(place, part.replica), []).append(attempt)
        most = self.study.max_attempts
        return {
            part: attempts
            for part, attempts in found.items()
            if end_of(attempts, most) is AttemptState.COMPLETE
        }

    def _read_attempts(
        self,
        kind: AttemptKind,
        round_number: int,
    ) -> list[Attempt]:
        """The attempts at a refit, or at a scoring."""
        rows = self.study.leases.rows(kind=kind)
        return [attempt for attempt in rows if attempt.number == round_number]

    def _race_of(self, found: Round) -> Race:
        """What is left to run of a round, or who has won it: as it was chosen, where it was."""
        choice = found.document.get("choice")
        if choice is not None:
            dropped = {int(finalist): seeds for finalist, seeds in choice["dropped"].items()}
            return Race(
                dropped,
                [],
                winner=choice["winner"],
                kept=choice["kept"],
                decided=True,
            )
        return racing.race(
            found.field,
            [found.values(finalist) for finalist in range(len(found.field))],
            len(found.seeds),
            maximize=self.maximize,
            racing=found.document["racing"],
            rule=rule_of(found.document),
        )

    def done(self) -> bool:
        """Whether nothing is left to confirm.

        There is nothing to confirm, or it has been done and scored, or the study was left as
        finished.
        """
        if not self.wanted or self.study.budget().finished:
            return True
        wanted = self._wanted_round()
        if wanted is None:
            return True
        last = self.last()
        if last is None or not last.finished:
            return False
        return wanted.is_covered_by(last.document) and last.document["scored"]

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
            if now is None or now.finished:
                return None
            task = self._next_task(now)
            if task is None:
                return None
            return self._claim_task(now, holder, task)

    def _current(
        self,
        deadline: float | None,
        target: float | None,
    ) -> Round | None:
        """The round to go on with, opened where that is due; None while the search goes on."""
        # Finished is finished, also where other leaders would be chosen today: the test set is not
        # opened for that.
        if self.study.searching(deadline, target) or self.study.budget().finished:
            return None
        wanted = self._wanted_round()
        if wanted is None:
            return None
        last = self.last()
        if last is not None and wanted.is_covered_by(last.document):
            return last
        self._open(last, wanted)
        return self.last()

    def _wanted_round(self) -> WantedRound | None:
        """The round as it would be opened now; None without a completed and feasible trial."""
        candidates = []
        with_default = True
        defaults = self.study.typed.defaults
        for trial in self.study.trials():
            if trial.state is not TrialState.COMPLETE or trial.values is None:
                continue
            candidate = self._candidate_of(trial)
            if is_feasible(trial):
                candidates.append(candidate)
            elif candidate.default or candidate.params == defaults:
                with_default = False
        if not candidates:
            return None
        settings = ConfirmSettings.from_study(self.study.typed.study_settings)
        if self.study.arms is not None:
            settings = replace(settings, top=1, racing=False)
            best = finalists_of_arms(candidates, self.study.arms, maximize=self.maximize)
            return WantedRound(settings, best)
        finalists = racing.finalists(
            candidates,
            top=int(settings.top),
            maximize=self.maximize,
            defaults=defaults,
            with_default=with_default,
        )
        return WantedRound(settings, finalists, self.study.typed.racing_rule or racing.RULE)

    def _candidate_of(self, trial: FrozenTrial) -> Candidate:
        return Candidate(
            number=trial.number,
            params=self.study.params_of(trial),
            value=trial.values[0],
            default=bool(trial.user_attrs.get("default")),
        )

    def _open(
        self,
        last: Round | None,
        wanted: WantedRound,
    ) -> None:
        """Write a new round.

        It takes over the seeds of the round before it, and the replicas of those who are among its
        finalists again, unless the study's config has changed since.
        """
        number = 1 if last is None else last.number + 1
        count = int(wanted.settings.seeds)
        seeds = [replica_seed(self.study.seed, number, replica) for replica in range(count)]
        document = wanted.to_document(
            seeds=seeds,
            refit_seed=refit_seed(self.study.seed, number),
        )
        if last is not None and not self._has_drifted():
            carried = find_carried(wanted.finalists, last.document, last.number)
            document["seeds"] = [*carried.seeds, *seeds[len(carried.seeds) :]][:count]
            document["carried"] = {
                str(place): [list(source) for source in sources]
                for place, sources in carried.sources.items()
            }
        with self.storage.begin() as connection:
            row = sa.insert(RoundRow).values(
                study=self.study.name,
                round=number,
                opened=self.storage.now(connection),
                document=json.dumps(document),
            )
            connection.execute(row)

    def _has_drifted(self) -> bool:
        """Whether a later session went on with another config, so that old values are not its."""
        return any(session.get("drift") for session in self.study.typed.sessions)

    def _next_task(self, now: Round) -> _Task | None:
        """What is to be claimed next; None where there is nothing now.

        A round of which nothing is left is finished.
        """
        if not now.race.decided:
            return self._next_replica(now)
        if "choice" not in now.document:  # before the test set is opened
            self._write_choice(now)
        winner = now.race.winner
        kept = now.race.kept
        if winner is None or kept is None:
            self._finish(now)
            return None
        most = self.study.max_attempts
        if now.document["refit"] and end_of(now.refits, most) is None:
            if _any_running(now.refits):
                return None
            return _Task(
                REFIT,
                now.number,
                winner,
                now.document["refit_seed"],
                epochs=now.refit_epochs(),
            )
        if end_of(now.tests, most) is None and not self._is_scored(now.number):
            if _any_running(now.tests):
                return None
            seed = now.seeds[kept]
            return _Task(TEST, now.number, winner, seed)
        self._finish(now)
        return None

    def _next_replica(self, now: Round) -> _Task | None:
        """The first replica that is wanted and that nobody trains."""
        for part in now.race.wanted:
            if _any_running(now.attempts.get(part, [])):
                continue
            return _Task(
                CONFIRM,
                _number_of(now.number, part),
                part.finalist,
                now.seeds[part.replica],
                replica=part.replica,
            )
        return None

    def _write_choice(self, now: Round) -> None:
        """Write down who has won."""
        dropped = {str(finalist): seeds for finalist, seeds in now.race.dropped.items()}
        now.document["choice"] = Choice(
            winner=now.race.winner,
            kept=now.race.kept,
            dropped=dropped,
        )
        self._write(now)

    def _claim_task(
        self,
        now: Round,
        holder: Holder,
        task: _Task,
    ) -> ConfirmClaim:
        """Open an attempt at a part of the round."""
        opened = self.study.leases.open(task.kind, task.number, holder)
        self.study.leases.unsure.clear()
        finalist = now.field[task.finalist]
        return ConfirmClaim(
            kind=task.kind,
            number=task.number,
            attempt=opened.ordinal,
            token=opened.token,
            params=finalist.trained_params,
            seed=task.seed,
            trial_timeout_s=self.study.known_budget.trial_timeout_s,
            round=now.number,
            finalist=finalist,
            replica=task.replica,
            epochs=task.epochs,
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
        without_test = replace(result, test=None).to_json()
        with self.storage.lock(self.study.name):
            running = leases.rows(kind=TEST, state=AttemptState.RUNNING)
            is_live = any(attempt.token == claim.token for attempt in running)
            if not is_live:
                return leases.was_closed(
                    claim.token,
                    result.state,
                    reason=result.reason,
                    error=result.error,
                    result=without_test,
                )
            if result.state is AttemptState.COMPLETE and result.test and ledger_row is not None:
                now = self.last()
                if now is not None:
                    scores = self._scores(now, result.test)
                    self.study.ledger.scored(ledger_row, scores)
            leases.close(
                claim.token,
                result.state,
                reason=result.reason,
                error=result.error,
                result=without_test,
            )
        return True

    def _scores(
        self,
        now: Round,
        test: JsonObject,
    ) -> JsonObject:
        """The ledger's document: the report of the kept replica, and the metrics of all."""
        runs, _ = now.to_score(self.study.max_attempts)
        replicas: list[JsonObject] = []
        refit: JsonObject = {}
        for run, metrics in zip(runs, test["each"], strict=True):
            if run.replica is None:
                refit["refit"] = {
                    "seed": run.seed,
                    "epochs": run.epochs,
                    "metrics": metrics,
                }
                continue
            scores = {
                "replica": run.replica,
                "seed": run.seed,
                "metrics": metrics,
            }
            replicas.append(scores)
        report = {key: value for key, value in test.items() if key != "each"}
        return {
            **report,
            "round": now.number,
            "value": racing.mean(now.values(now.race.winner or 0)),
            "replicas": replicas,
            **refit,
        }

    def _is_scored(self, number: int) -> bool:
        """Whether the test set was opened for a round."""
        return any(row.get("round") == number for row in self.study.ledger.documents())

    def _finish(self, now: Round) -> None:
        """Note that nothing is left of the round."""
        now.document["scored"] = self._is_scored(now.number)
        now.finished = True
        self._write(now)

    def _write(self, now: Round) -> None:
        """Write a round's document, and when it was finished."""
        with self.storage.begin() as connection:
            values: dict[str, str | float] = {"document": json.dumps(now.document)}
            if now.finished:
                values["finished"] = self.storage.now(connection)
            change = self._update(now.number)
            connection.execute(change.values(**values))

    def _update(self, number: int) -> sa.Update:
        """The change of a round's row."""
        return (
            sa.update(RoundRow)
            .where(RoundRow.study == self.study.name)
            .where(RoundRow.round == number)
        )

    def reopen(self) -> bool:
        """Have the newest round scored again where its scoring failed for good; whether it did.

        Its replicas stand, and so does the choice of its winner, which was written down before the
        test set was opened.
        """
        with self.storage.lock(self.study.name):
            now = self.last()
            if now is None or not now.finished:
                return False
            if now.document["scored"] or now.race.winner is None:
                return False
            ordinals = [attempt.attempt for attempt in now.tests]
            now.document["given_up"] = max(ordinals, default=0)
            text = json.dumps(now.document)
            with self.storage.begin() as connection:
                change = self._update(now.number)
                connection.execute(change.values(document=text, finished=None))
        return True

    def close(self) -> Round | None:
        """Finish the newest round where nothing is left of it; returns it where it is finished."""
        with self.storage.lock(self.study.name):
            now = self.last()
            if now is None:
                return None
            if not now.finished and self._is_over(now):
                self._finish(now)
            return now if now.finished else None

    def _is_over(self, now: Round) -> bool:
        """Whether a round has been scored, or will never be."""
        if self._is_scored(now.number):
            return True
        return end_of(now.tests, self.study.max_attempts) is not None


__all__ = [
    "CONFIRM",
    "REFIT",
    "TEST",
    "AttemptSubject",
    "ConfirmClaim",
    "Round",
    "Rounds",
    "end_of",
    "result_of",
]
