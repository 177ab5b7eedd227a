"""Each client of a study keeps the promises of all: in a database, in memory, and over a wire."""

from __future__ import annotations

import time

import pytest

from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.clients.in_memory import InMemoryClient, VirtualClock
from dlsearch.execution.clients.loopback import LoopbackClient
from dlsearch.planning.open_study import document_of
from dlsearch.study.client import StudyClient
from dlsearch.study.models import Claim, ConfirmClaim, Finalist, Result
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason
from dlsearch.study.wire import decode, encode
from tests.study.contract import StudyClientContract
from tests.study.studies import opened


def in_memory(given, clock, lease_s):
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    return InMemoryClient(
        document,
        lease_s=lease_s,
        clock=clock,
    )


class TestDatabaseClient(StudyClientContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.folder = tmp_path
        self.clients = []
        yield
        for client in self.clients:
            client.close()

    def open(self, given, *, lease_s=30.0) -> StudyClient:
        folder = self.folder / str(len(self.clients))
        folder.mkdir()
        client = DatabaseClient(opened(folder, given, lease_s=lease_s))
        self.clients.append(client)
        return client

    def pass_time(self, seconds):
        time.sleep(seconds)


class TestInMemoryClient(StudyClientContract):
    @pytest.fixture(autouse=True)
    def _clock(self):
        self.clock = VirtualClock(1000.0)

    def open(self, given, *, lease_s=30.0) -> StudyClient:
        return in_memory(given, self.clock, lease_s)

    def pass_time(self, seconds):
        self.clock.advance(seconds)


class TestLoopbackToMemory(TestInMemoryClient):
    def open(self, given, *, lease_s=30.0) -> StudyClient:
        return LoopbackClient(super().open(given, lease_s=lease_s))


class TestLoopbackToADatabase(TestDatabaseClient):
    def open(self, given, *, lease_s=30.0) -> StudyClient:
        return LoopbackClient(super().open(given, lease_s=lease_s))


def test_a_stop_request_is_passed_on(tmp_path):
    study = opened(tmp_path)
    assert DatabaseClient(study, lambda: True).stop_requested()
    assert LoopbackClient(DatabaseClient(study, lambda: True)).stop_requested()
    study.storage.close()


FINALIST = Finalist(None, True, {"lr": 0.1 + 0.2, "sizes": [1, 2], "bias": True}, None)


@pytest.mark.parametrize(
    "value",
    [
        Claim(AttemptKind.TRIAL, 3, 2, "t", {"lr": 1e-300, "one": 1, "name": "\u00e9"}, 7, None),
        ConfirmClaim(AttemptKind.CONFIRM, 3, 1, "t", {}, 7, 1.5, 1, FINALIST, 0),
        ConfirmClaim(AttemptKind.REFIT, 3, 1, "t", {}, 7, None, 1, FINALIST, None, 4),
        Result(AttemptState.FAILED, FailureReason.OOM, "no memory", halve=True, more={"x": [None]}),
        Result(AttemptState.COMPLETE, values=[0.1], summary={"best": float("inf")}),
    ],
    ids=["trial", "replica", "refit", "failure", "result"],
)
def test_a_value_arrives_as_it_was_sent(value):
    kind = ConfirmClaim | Claim if isinstance(value, Claim) else type(value)
    arrived = decode(kind, encode(kind, value))
    assert arrived == value
    assert type(arrived) is type(value)


def test_what_is_not_of_its_type_is_refused():
    with pytest.raises(ValueError, match="state"):
        decode(Result, '{"state": "fine"}')
    with pytest.raises(ValueError, match="token"):
        decode(Claim, '{"kind": "trial", "number": 1}')
