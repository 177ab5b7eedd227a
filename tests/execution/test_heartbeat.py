"""The heartbeat and the claimer of a worker over a study in memory: two threads, and no database."""

from __future__ import annotations

import threading
import time

import pytest

from dlsearch.execution.claimer import Claimer, Wanted
from dlsearch.execution.clients.in_memory import InMemoryClient, VirtualClock
from dlsearch.execution.heartbeat import Heartbeat
from dlsearch.execution.resources.slots import Slot
from dlsearch.planning.open_study import document_of
from dlsearch.storage.availability import ConnectionLostError
from dlsearch.study.client import ClaimRequest
from dlsearch.study.states import AttemptState, FailureReason
from tests.execution.test_worker_failures import until
from tests.study.studies import draft, holder

LEASE_S = 0.3
WANTED = Wanted(Slot(0, "cpu:0", 1), ClaimRequest(holder()))


@pytest.fixture
def clock():
    return VirtualClock(1000.0)


def client_of(clock, kind=InMemoryClient):
    given = draft(3, study={"finalize": False})
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    return kind(document, lease_s=LEASE_S, clock=clock)


@pytest.fixture
def heart():
    """Starts heartbeats, and ends them."""
    hearts = []

    def start(renewer):
        hearts.append(Heartbeat(renewer, LEASE_S))
        return hearts[-1]

    yield start
    for each in hearts:
        each.stop()


def test_a_lease_that_is_held_is_renewed(clock, heart):
    client = client_of(clock)
    claim = client.claim(WANTED.request)
    heartbeat = heart(client.lease_renewer())
    heartbeat.hold(claim.token)
    heartbeat.note(claim.token, {"epoch": 1})
    clock.advance(2 * LEASE_S)
    until(lambda: not client.is_overdue())
    assert client.reap() == []
    assert heartbeat.lost() == set()


def test_a_lease_that_others_ended_is_said_to_be_lost(clock, heart):
    client = client_of(clock)
    claim = client.claim(WANTED.request)
    heartbeat = heart(client.lease_renewer())
    heartbeat.hold(claim.token)
    client.reap("w1")
    until(lambda: heartbeat.lost() == {claim.token})
    heartbeat.let_go(claim.token)
    assert heartbeat.lost() == set()


def test_a_lease_that_was_let_go_runs_out(clock, heart):
    client = client_of(clock)
    claim = client.claim(WANTED.request)
    heartbeat = heart(client.lease_renewer())
    heartbeat.hold(claim.token)
    heartbeat.let_go(claim.token)
    clock.advance(2 * LEASE_S)
    time.sleep(LEASE_S)
    assert [each.token for each in client.reap()] == [claim.token]


class Failing:
    """A renewer that fails a few times."""

    def __init__(self, error, times):
        self.error, self.times, self.renewed = error, times, threading.Event()

    def renew(self, progress):
        if self.times:
            self.times -= 1
            raise self.error
        self.renewed.set()
        return set(progress)

    def close(self):
        pass


def test_an_outage_is_lived_through(heart):
    renewer = Failing(ConnectionLostError("gone"), 2)
    heartbeat = heart(renewer)
    heartbeat.hold("t")
    assert renewer.renewed.wait(30)
    assert heartbeat.lost() == set()


def test_another_error_is_raised_where_it_is_asked_for(heart):
    heartbeat = heart(Failing(RuntimeError("no table"), 1))
    heartbeat.hold("t")
    with pytest.raises(RuntimeError, match="no table"):
        until(lambda: heartbeat.lost())


class Slow(InMemoryClient):
    """Its sampler takes until it is let go."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked, self.gate = threading.Event(), threading.Event()

    def _propose(self, attempt):
        self.asked.set()
        assert self.gate.wait(30)
        return super()._propose(attempt)


@pytest.fixture
def slow(clock):
    client = client_of(clock, Slow)
    yield client
    client.gate.set()


def test_a_claim_is_answered_with_the_budget_and_its_lease_is_held(clock, heart, slow):
    heartbeat = heart(slow.lease_renewer())
    claimer = Claimer(slow, heartbeat)
    claimer.start()
    claimer.ask(WANTED)
    assert slow.asked.wait(30)
    assert claimer.busy
    assert claimer.token is not None
    slow.gate.set()
    until(lambda: not claimer.busy)
    answer = claimer.take()
    assert answer.error is None
    assert answer.claim.number == 0
    assert answer.budget.n_trials == 3
    assert claimer.take() is None, "an answer comes once"
    clock.advance(2 * LEASE_S)
    until(lambda: not slow.is_overdue())
    claimer.close()


def test_a_claim_that_comes_after_the_worker_has_left_is_given_back(heart, slow):
    claimer = Claimer(slow, heart(slow.lease_renewer()))
    claimer.start()
    claimer.ask(WANTED)
    assert slow.asked.wait(30)
    claimer.close()
    slow.gate.set()
    until(lambda: not claimer.busy)
    (attempt,) = slow.attempts()
    assert (attempt.state, attempt.reason) == (
        AttemptState.INTERRUPTED,
        FailureReason.INTERRUPTED,
    )


def test_what_a_sampler_raises_is_the_answer(clock, heart, monkeypatch):
    client = client_of(clock)
    error = ValueError("no such distribution")
    monkeypatch.setattr(client, "claim", lambda *_, **__: (_ for _ in ()).throw(error))
    claimer = Claimer(client, heart(client.lease_renewer()))
    claimer.start()
    claimer.ask(WANTED)
    until(lambda: not claimer.busy)
    assert claimer.take().error is error
    claimer.close()
