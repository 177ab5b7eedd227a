"""The promises of every client of a study: a test class that each implementation inherits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dlsearch.study.client import ClaimRequest, StudyClient
from dlsearch.study.models import ConfirmClaim, Result
from dlsearch.study.states import (
    AttemptKind,
    AttemptState,
    FailureReason,
    RecordedTrialState,
)
from tests.study.studies import complete, draft, failed, holder

LEASE_S = 30.0
#: A lease that a test waits for where time cannot be moved.
SHORT_LEASE_S = 0.2
CONFIRM = {"top": 2, "seeds": 2, "racing": False, "refit": False}
DEFAULT = {"optimizer.lr": 0.001, "model.dropout": 0.0}


def request(worker: str = "w1", slot: int = 0, **limits: Any) -> ClaimRequest:
    return ClaimRequest(holder(worker, slot), **limits)


def finished(value: float = 0.5, **more: Any) -> Result:
    return Result.from_json({**complete(value), **more})


def failure(reason: str = "nan") -> Result:
    return Result.from_json(failed(reason))


class Watcher:
    """A claimant that remembers the tokens of its claims."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def opened(self, token: str) -> None:
        self.tokens.append(token)

    def is_unwanted(self) -> bool:
        return False


class StudyClientContract:
    """Inherit it, and give `open` and `pass_time`."""

    def open(self, given: Any, *, lease_s: float = LEASE_S) -> StudyClient:
        """A client of a new study."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Have the study's clock go on."""
        raise NotImplementedError

    def study(self, n_trials: int = 4, *, lease_s: float = LEASE_S, **study: Any) -> StudyClient:
        given = draft(n_trials, study={"finalize": False, **study})
        return self.open(given, lease_s=lease_s)

    # -- claims ------------------------------------------------------------------------------------
    def test_the_total_is_exact_and_numbers_are_dense(self):
        client = self.study(5)
        numbers = []
        while (claim := client.claim(request())) is not None:
            numbers.append(claim.number)
            assert client.finish(claim, finished(claim.number / 10))
        assert numbers == list(range(5))
        status = client.status()
        assert status.n_trials == 5
        assert status.counts == {RecordedTrialState.COMPLETE: 5}
        assert (status.best_number, status.best_value) == (4, 0.4)

    @pytest.mark.parametrize(
        ("limit", "place", "claimed"), [(3, "my.py:1", 3), (3, None, 8), (0, "my.py:1", 8)]
    )
    def test_three_failures_alike_from_the_start_are_the_last(self, limit, place, claimed):
        client = self.study(8, max_identical_failures=limit)
        count = 0
        while (claim := client.claim(request())) is not None:
            count += 1
            cause = {"type": "ValueError", "message": str(count), "place": place}
            ended = {**failed("exception"), "cause": cause}
            assert client.finish(claim, Result.from_json(ended))
        assert count == claimed
        assert client.status().counts == {RecordedTrialState.FAILED: claimed}

    def test_a_claim_says_all_that_a_worker_needs(self):
        client = self.study(trial_timeout="90s")
        watcher = Watcher()
        claim = client.claim(request(), watcher)
        assert (claim.kind, claim.number, claim.attempt) == (AttemptKind.TRIAL, 0, 1)
        assert claim.params.keys() == {"optimizer.lr", "model.dropout"}
        assert claim.trial_timeout_s == 90.0
        assert watcher.tokens == [claim.token]
        assert not client.withdraw(claim.token), "it has its parameters"
        (attempt,) = client.live_attempts()
        assert (attempt.token, attempt.state) == (claim.token, AttemptState.RUNNING)

    def test_proposals_depend_on_seed_and_number_alone(self):
        first = self.study().claim(request("one"))
        second = self.study().claim(request("other", 3))
        assert (first.params, first.seed) == (second.params, second.seed)

    def test_duplicates_are_not_run_again(self):
        client = self.open(draft(6, space=["model.dropout=choice(0.0, 0.5)"]))
        first = client.claim(request())
        second = client.claim(request(slot=1))
        assert first.params != second.params
        assert client.claim(request(slot=2)) is None, "the space has two points"
        assert client.finish(first, finished(0.1))
        assert client.finish(second, finished(0.2))
        assert client.status().counts == {RecordedTrialState.COMPLETE: 6}

    def test_the_facts_are_those_of_the_study(self):
        facts = self.study(max_attempts=2).facts()
        assert (facts.name, facts.objectives, facts.directions) == (
            "s",
            ["val/accuracy"],
            ["maximize"],
        )
        assert (facts.max_epochs, facts.lease_s, facts.max_attempts) == (5, LEASE_S, 2)

    # -- budgets -----------------------------------------------------------------------------------
    def test_nothing_is_claimed_once_the_target_is_reached(self):
        client = self.study(target=0.9)
        assert client.finish(client.claim(request()), finished(0.95))
        assert client.claim(request()) is None

    def test_a_claimant_can_tighten_a_budget_and_not_widen_it(self):
        client = self.study(target=0.9)
        assert client.finish(client.claim(request()), finished(0.5))
        assert client.claim(request(target=0.4)) is None
        assert client.claim(request(deadline=0.0)) is None
        assert client.finish(client.claim(request()), finished(0.95))
        assert client.claim(request(target=0.99)) is None

    def test_nothing_is_claimed_once_the_time_is_over(self):
        client = self.study(timeout="1s")
        claim = client.claim(request())
        self.pass_time(1.1)
        assert client.renew({claim.token: {}}) == {claim.token}, "what runs is finished"
        assert client.finish(claim, finished())
        assert client.claim(request()) is None

    # -- leases and fences -------------------------------------------------------------------------
    def test_a_lease_that_is_renewed_does_not_run_out(self):
        client = self.study(lease_s=SHORT_LEASE_S)
        claim = client.claim(request())
        for _ in range(3):
            self.pass_time(0.6 * SHORT_LEASE_S)
            assert client.renew({claim.token: {"epoch": 1}}) == {claim.token}
        assert client.reap() == []
        assert client.finish(claim, finished())

    def test_a_lost_trial_is_claimed_again_and_its_late_words_are_refused(self):
        client = self.study(1, lease_s=SHORT_LEASE_S)
        lost = client.claim(request("w1"))
        self.pass_time(1.5 * SHORT_LEASE_S)
        (reaped,) = client.reap()
        assert (reaped.token, reaped.state) == (lost.token, AttemptState.LOST)
        again = client.claim(request("w2"))
        assert (again.number, again.attempt) == (lost.number, 2)
        assert (again.params, again.seed) == (lost.params, lost.seed)
        assert client.renew({lost.token: {}, again.token: {}}) == {again.token}
        assert client.finish(lost, finished(0.9)) is False
        assert client.release(lost) is False
        assert client.lose(lost, "killed by SIGKILL") is False
        assert client.renew({again.token: {}}) == {again.token}
        assert client.finish(again, finished(0.4))
        assert client.status().best_value == 0.4
        states = [attempt.state for attempt in client.attempts()]
        assert states == [AttemptState.LOST, AttemptState.COMPLETE]

    def test_the_attempts_of_a_dead_worker_need_no_lease_to_run_out(self):
        client = self.study()
        claim = client.claim(request("dead"))
        client.claim(request("other", 1))
        assert [attempt.token for attempt in client.reap("dead")] == [claim.token]
        assert [attempt.worker for attempt in client.live_attempts()] == ["other"]

    def test_the_same_end_written_twice_is_one_end(self):
        client = self.study()
        claim = client.claim(request())
        assert client.finish(claim, finished(0.7))
        assert client.finish(claim, finished(0.7)), "it was not heard the first time"
        assert client.finish(claim, finished(0.8)) is False
        other = client.claim(request())
        assert client.release(other)
        assert client.release(other)
        assert client.finish(other, finished()) is False

    def test_an_unknown_token_changes_nothing(self):
        client = self.study()
        claim = client.claim(request())
        stranger = replace(claim, token="0" * 32)
        assert client.finish(stranger, finished()) is False
        assert client.release(stranger) is False
        assert client.lose(stranger, "killed") is False
        assert client.renew({stranger.token: {}}) == set()
        assert client.withdraw(stranger.token) is False
        assert client.finish(claim, finished())

    # -- ends --------------------------------------------------------------------------------------
    def test_what_was_given_back_is_tried_again_as_often_as_it_takes(self):
        client = self.study(1, max_attempts=2)
        for attempt in range(1, 5):
            claim = client.claim(request())
            assert claim.attempt == attempt
            assert client.release(claim, FailureReason.DISK, "no space left")
        assert client.status().counts == {RecordedTrialState.WAITING: 1}
        assert {each.reason for each in client.attempts()} == {FailureReason.DISK}

    def test_a_trial_that_keeps_dying_fails(self):
        client = self.study(1, max_attempts=2)
        for _ in range(2):
            assert client.lose(client.claim(request()), "killed by SIGKILL")
        assert client.claim(request()) is None
        assert client.status().counts == {RecordedTrialState.FAILED: 1}

    @pytest.mark.parametrize("reason", list(FailureReason))
    def test_a_failure_is_never_best_and_keeps_its_reason(self, reason):
        client = self.study(2)
        assert client.finish(client.claim(request()), failure(reason))
        assert client.finish(client.claim(request()), finished(-5.0))
        assert client.status().best_number == 1
        first = client.attempts(number=0)
        assert [(each.state, each.reason) for each in first] == [(AttemptState.FAILED, reason)]

    # -- pruning -----------------------------------------------------------------------------------
    def test_the_pruner_s_verdict_is_the_answer_to_a_report(self):
        pruner = {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.5}
        client = self.open(draft(2, config={"pruner": pruner}))
        claim = client.claim(request())
        assert client.report(claim, 0, 0.9) is False
        assert client.report(claim, 1, 0.1) is True
        assert client.finish(claim, Result(AttemptState.PRUNED))
        assert client.status().counts == {RecordedTrialState.PRUNED: 1}

    # -- confirmation ------------------------------------------------------------------------------
    def confirmed(self, **settings: Any) -> StudyClient:
        given = draft(
            3, default=DEFAULT, study={"finalize": True, "confirm": {**CONFIRM, **settings}}
        )
        client = self.open(given)
        for number in range(3):
            claim = client.claim(request(confirm=True))
            assert claim.kind == AttemptKind.TRIAL
            assert client.finish(claim, finished((0.5, 0.9, 0.7)[number]))
        return client

    def test_the_finalists_are_trained_again_and_the_winner_is_scored_once(self):
        client = self.confirmed()
        assert client.claim(request()) is None, "no part of it is asked for"
        claims = []
        while (claim := client.claim(request(confirm=True))) is not None:
            assert isinstance(claim, ConfirmClaim)
            claims.append(claim)
            if claim.kind == AttemptKind.CONFIRM:
                assert client.finish(claim, finished(claim.finalist.search_value, best_epoch=2))
                continue
            row = client.open_test_ledger(claim)
            assert client.open_test_ledger(claim) == row, "written again, it is one opening"
            each = [{"test/accuracy": 0.8}] * 2
            test = {"metrics": each[0], "n": 7, "first_layer": None, "each": each}
            assert client.finish(claim, Result(AttemptState.COMPLETE, test=test), row)
        replicas = [claim for claim in claims if claim.kind == AttemptKind.CONFIRM]
        trials = {claim.finalist.trial_number for claim in replicas}
        assert trials == {1, 2, 0}, "the two best, and the default configuration"
        assert {claim.replica for claim in replicas} == {0, 1}
        assert len({(claim.finalist.trial_number, claim.seed) for claim in replicas}) == 6
        assert claims[-1].kind == AttemptKind.TEST
        assert claims[-1].finalist.trial_number == 1
        assert len(claims) == 7

    def test_nothing_is_confirmed_while_a_trial_may_run(self):
        client = self.open(draft(2, study={"confirm": CONFIRM}))
        client.claim(request())
        running = client.claim(request(slot=1))
        assert client.claim(request(slot=2, confirm=True)) is None
        client.finish(running, finished())
        assert client.claim(request(slot=1, confirm=True)) is None

    def test_a_lost_replica_is_tried_again_and_a_failed_one_is_not(self):
        client = self.confirmed()
        first = client.claim(request(confirm=True))
        assert client.lose(first, "killed by SIGKILL")
        again = client.claim(request(confirm=True))
        assert (again.name, again.attempt, again.seed) == (first.name, 2, first.seed)
        assert client.finish(first, finished(0.99)) is False
        assert client.finish(again, failure())
        other = client.claim(request(confirm=True))
        assert other.name != first.name

    def test_the_winner_is_trained_on_all_data_where_that_is_wanted(self):
        client = self.confirmed(refit=True)
        kinds = []
        while (claim := client.claim(request(confirm=True))) is not None:
            kinds.append(claim.kind)
            if claim.kind == AttemptKind.TEST:
                break
            if claim.kind == AttemptKind.REFIT:
                assert claim.epochs == 3
            client.finish(claim, finished(0.5, best_epoch=2))
        assert kinds == [AttemptKind.CONFIRM] * 6 + [AttemptKind.REFIT, AttemptKind.TEST]

    # -- several threads, and outages ------------------------------------------------------------------
    def test_another_thread_has_a_client_of_its_own(self):
        client = self.study()
        claim = client.claim(request())
        other, renewer = client.separate(), client.lease_renewer()
        assert renewer.renew({claim.token: {"epoch": 1}, "0" * 32: {}}) == {claim.token}
        assert other.claim(request(slot=1)).number == 1
        assert other.known_budget().n_trials == 4
        assert other.finish(claim, finished())
        assert renewer.renew({claim.token: {}}) == set()
        renewer.close()
        other.close()

    def test_a_claim_whose_answer_never_came_is_forgotten(self):
        client = self.study(1)
        claim = client.claim(request())
        client.forget_unconfirmed({claim.token, "0" * 32})
        assert client.attempts() == []
        again = client.claim(request())
        assert (again.number, again.attempt) == (0, 1)
        assert client.finish(again, finished())
        client.forget_unconfirmed({again.token})
        assert client.status().counts == {RecordedTrialState.COMPLETE: 1}, "an end stays"

    def test_nothing_is_overdue_while_leases_hold(self):
        client = self.study(lease_s=SHORT_LEASE_S)
        client.claim(request())
        assert not client.is_overdue()
        self.pass_time(1.5 * SHORT_LEASE_S)
        assert client.is_overdue()
        client.reap()
        assert not client.is_overdue()

    # -- stop --------------------------------------------------------------------------------------
    def test_nobody_has_asked_to_stop(self):
        assert self.study().stop_requested() is False
