"""A claim takes as long as its sampler does, and holds up nobody: no trial, no worker, no other study, nor the end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from dlsearch.core.errors import DatabaseAwayError
from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.execution.claimer import Claimer, Wanted
from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.heartbeat import Heartbeat
from dlsearch.execution.resources.slots import Slot
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.space.space import Space
from dlsearch.storage.attempts import Holder
from dlsearch.storage.availability import ConnectionLostError
from dlsearch.storage.database import Storage
from dlsearch.storage.schema import lock_path
from dlsearch.storage.studies import update_row
from dlsearch.study.client import ClaimRequest
from dlsearch.study.study import DUPLICATE, Study
from tests.execution.test_worker_failures import place, server, until
from tests.execution.workers import worker_of_study
from tests.study.studies import complete, draft, holder, opened

__all__ = ["place", "server"]

LEASE_S = 1.0


def gated(folder, **options):
    sampler = {"_target_": "tests.sampling.sampling.Gated", "folder": str(folder), **options}
    return {"sampler": sampler, "allow_targets": ["tests"]}


class Gate:
    """Shuts and opens the way for the proposal of a trial."""

    def __init__(self, folder):
        self.folder = folder

    def shut(self, number):
        (self.folder / f"shut-{number}").touch()

    def open(self, number):
        (self.folder / f"shut-{number}").unlink(missing_ok=True)

    def reached(self, number):
        return (self.folder / f"asked-{number}").exists()


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path)
    yield gate
    for path in tmp_path.glob("shut-*"):
        path.unlink()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Of a storage."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'dlsearch.db'}"
    return request.getfixturevalue("postgres").database(f"claiming-{time.monotonic_ns()}")


def opened_in(url, tmp_path, n_trials, *, lease_s=LEASE_S, name="s", alike=False, **study):
    config = gated(tmp_path, alike=alike)
    given = draft(
        n_trials, name=name, study={"name": name, "finalize": False, **study}, config=config
    )
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    return open_study(Storage(url), given, document, lease_s=lease_s)[0]


def handle(study, **options):
    return Study(Storage(study.storage.url), study.name, **options)


def behave(folder, act):
    body = "".join(f"    {line}\n" for line in act.strip().splitlines())
    (folder / "scenario.py").write_text(
        f"def act(channel, payload, number, attempt, store):\n{body}"
    )


def worker_of(study, server, folder, *, count=2, **options):
    slots = [Slot(index, f"cpu:{index}", 1) for index in range(count)]
    return worker_of_study(study, folder, slots, server, **options)


def serving(study, server, folder, **options):
    """A worker in a process of its own."""
    study.storage.close()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        own = handle(study, lease_s=study.leases.lease_s)
        worker = worker_of(own, server, folder, **options)
        signal.signal(signal.SIGTERM, worker.stop)
        code = 0 if worker.run() else 130
    finally:
        os._exit(code)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ends(study, number):
    return [(a.state, a.reason) for a in study.leases.rows(number=number)]


REPORTING = """
if number == 0:
    epoch = 0
    while not (store / "enough").exists():
        report(channel, epoch)
        epoch += 1
        with (store / "heard").open("a") as heard:
            heard.write(".")
        time.sleep(0.02)
done(channel)
"""


@pytest.mark.storm
def test_trials_are_heard_while_a_sampler_takes_several_leases(url, tmp_path, server, gate):
    study = opened_in(url, tmp_path, 3)
    behave(tmp_path, REPORTING)
    gate.shut(1)
    pid = serving(study, server, tmp_path)
    try:
        until(lambda: gate.reached(1))
        time.sleep(3.5 * LEASE_S)
        heard = (tmp_path / "heard").stat().st_size
        time.sleep(LEASE_S)
        assert (tmp_path / "heard").stat().st_size > heard, (
            "reports are answered while the sampler works"
        )
        other = handle(study, lease_s=LEASE_S)
        assert other.reap() == []
        assert {(a.number, a.state) for a in other.leases.live()} == {
            (0, "running"),
            (1, "running"),
        }
        other.storage.close()
        gate.open(1)
        (tmp_path / "enough").touch()
        assert ended(pid) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert [ends(study, number) for number in range(3)] == [[("complete", None)]] * 3
    assert [t.state.name for t in study.trials()] == ["COMPLETE"] * 3
    assert all((tmp_path / f"told-{number}").exists() for number in range(3)), (
        "samplers hear of ends, as from Optuna"
    )
    study.storage.close()


def test_time_limits_hold_while_a_sampler_works(place, server, tmp_path, gate):
    study = opened_in(f"sqlite:///{tmp_path / 'dlsearch.db'}", tmp_path, 2, trial_timeout="2s")
    place.study = study
    behave(tmp_path, "time.sleep(60 if number == 0 else 0)\ndone(channel)")
    gate.shut(1)
    pid = serving(study, server, tmp_path)
    try:
        until(lambda: ends(study, 0) == [("failed", "timeout")])
        assert gate.reached(1)
        gate.open(1)
        assert ended(pid) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert ends(study, 1) == [("complete", None)]


@pytest.mark.parametrize("slow", ["sampler", "function"])
def test_what_does_not_return_keeps_nobody_from_leaving(place, server, tmp_path, gate, slow):
    url = f"sqlite:///{tmp_path / 'dlsearch.db'}"
    if slow == "sampler":
        study = opened_in(url, tmp_path, 3, lease_s=30.0)
    else:  # beside a sampler that goes by what others took
        sampler = {"_target_": "optuna.samplers.QMCSampler"}
        model = {"dropout": 0.1, "folder": str(tmp_path)}
        given = draft(3, study={"finalize": False}, config={"sampler": sampler, "model": model})
        given.space = Space((), "tests.sampling.sampling.gated_space", ("tests",))
        given.config["allow_targets"] = ["tests"]
        document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
        study = open_study(Storage(url), given, document, lease_s=30.0)[0]
    place.study = study
    behave(tmp_path, "time.sleep(60)")
    gate.shut(1)
    pid = serving(study, server, tmp_path)
    try:
        until(lambda: gate.reached(1) and ends(study, 0) == [("running", None)])
        os.kill(pid, signal.SIGTERM)
        told = time.monotonic()
        assert ended(pid) == 130
        pid = 0
        assert time.monotonic() - told < 45, "it is given back by its token, and not waited for"
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert ends(study, 0) == [("interrupted", "interrupted")]
    assert ends(study, 1) == [], "nothing is left of a claim that was none yet"
    assert [t.state.name for t in study.trials()] == ["WAITING"] * 2


def test_a_worker_that_is_killed_while_it_samples_loses_one_attempt_and_no_trial(
    url, server, tmp_path, gate
):
    study = opened_in(url, tmp_path, 3, lease_s=30.0)
    behave(tmp_path, "done(channel)")
    gate.shut(1)
    pid = serving(study, server, tmp_path)
    until(lambda: gate.reached(1) and ends(study, 0) == [("complete", None)])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert ends(study, 1) == [("running", None)]
    gate.open(1)
    worker = worker_of(study, server, tmp_path)
    assert worker.run()
    assert ends(study, 1) == [("lost", "lost"), ("complete", None)]
    trials = study.trials()
    assert [(t.number, t.state.name, len(t.params)) for t in trials] == [
        (n, "COMPLETE", 2) for n in range(3)
    ]
    study.storage.close()


def test_a_trial_that_is_being_proposed_counts(url, tmp_path, gate):
    study = opened_in(url, tmp_path, 2)
    gate.shut(0)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(study.claim, holder("slow"))
        until(lambda: gate.reached(0))
        other = handle(study)
        second = other.claim(holder("quick"))
        assert second.number == 1
        assert other.claim(holder("quick")) is None, "the total is taken"
        assert other.searching()
        assert other.finish(second, complete(0.5)), "no lock is held for a proposal"
        gate.open(0)
        assert slow.result().number == 0
    for each in (study, other):
        each.storage.close()


def test_a_study_is_not_held_up_by_another_of_its_store(url, tmp_path, gate):
    study = opened_in(url, tmp_path, 2, name="slow")
    gate.shut(0)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(study.claim, holder())
        until(lambda: gate.reached(0))
        (tmp_path / "none").mkdir()
        other = opened_in(url, tmp_path / "none", 3, name="quick")
        claims = [other.claim(holder()) for _ in range(3)]
        assert [other.finish(claim, complete(0.5)) for claim in claims] == [True] * 3
        gate.open(0)
        assert slow.result() is not None
    for each in (study, other):
        each.storage.close()


def test_each_study_of_a_file_has_a_lock_of_its_own_and_earlier_versions_keep_out(tmp_path):
    first = opened(tmp_path, draft(2))
    second = opened(tmp_path, draft(2, name="t", study={"name": "t"}))
    with ThreadPoolExecutor() as pool:
        with first.storage.lock("s"):
            assert pool.submit(second.claim, holder()).result(timeout=60).number == 0
        with lock_path(first.storage.path).open("a") as earlier:  # as version 3 locked any study
            fcntl.flock(earlier, fcntl.LOCK_EX)
            waiting = pool.submit(second.claim, holder())
            time.sleep(0.3)
            assert not waiting.done()
        assert waiting.result(timeout=60).number == 1
    for each in (first, second):
        each.storage.close()


def test_two_that_propose_the_same_at_once_run_it_once(url, tmp_path, gate):
    study = opened_in(url, tmp_path, 4, alike=True)
    other = handle(study)
    gate.shut(0)
    gate.shut(1)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(study.claim, holder("w1"))
        until(lambda: gate.reached(0))
        second = pool.submit(other.claim, holder("w2"))
        until(lambda: gate.reached(1))
        gate.open(1)
        claim = second.result(timeout=60)
        assert claim.number == 1
        gate.open(0)
        assert first.result(timeout=60) is None, "all that is left is alike"
    trials = handle(study).trials() if study.storage.sqlite else study.trials()
    assert [t.user_attrs.get(DUPLICATE) for t in trials] == [1, None, 1, 1]
    assert [(a.number, a.state) for a in study.leases.rows()] == [(1, "running")], (
        "a duplicate leaves no attempt"
    )
    assert other.finish(claim, complete(0.5))
    assert [t.values for t in other.trials()] == [[0.5]] * 4
    for each in (study, other):
        each.storage.close()


def test_a_proposal_that_comes_after_its_attempt_was_lost_is_thrown_away(url, tmp_path, gate):
    study = opened_in(url, tmp_path, 2, lease_s=30.0)
    other = handle(study)
    gate.shut(0)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(study.claim, holder("silent"))
        until(lambda: gate.reached(0))
        assert [a.number for a in other.reap("silent")] == [0]
        (tmp_path / "asked-0").unlink()
        again = pool.submit(other.claim, holder("next"))
        until(lambda: gate.reached(0))
        gate.open(0)
        assert {slow.result(timeout=60).number, again.result(timeout=60).number} == {0, 1}
    assert (again.result().number, again.result().attempt) == (0, 2), (
        "whoever had it when it was lost goes on with more"
    )
    for each in (study, other):
        each.storage.close()


def test_what_a_sampler_raises_leaves_the_trial_waiting_and_no_attempt(
    url, tmp_path, gate, monkeypatch
):
    monkeypatch.setattr("tests.sampling.sampling.WAIT_S", 0.1)
    study = opened_in(url, tmp_path, 2)
    gate.shut(0)
    with pytest.raises(TimeoutError, match="stayed shut"):
        study.claim(holder())
    assert [t.state.name for t in study.trials()] == ["WAITING"]
    assert study.leases.rows() == []
    gate.open(0)
    claim = study.claim(holder())
    assert (claim.number, claim.attempt) == (0, 1)
    study.storage.close()


@pytest.mark.storm
@pytest.mark.parametrize("name", ["grid", "qmc"])
def test_samplers_that_go_by_what_is_taken_give_each_point_to_one(url, tmp_path, name):
    sampler = {"_target_": "dlsearch.sampling.factory.grid"}
    space = ["model.dropout=choice(0.0, 0.25, 0.5)", "optimizer.lr=choice(1, 2, 3, 4, 5, 6, 7, 8)"]
    if name == "qmc":
        sampler = {"_target_": "optuna.samplers.QMCSampler"}
        space = ["model.dropout=interval(0.0, 1.0)", "optimizer.lr=interval(0.0, 1.0)"]
    given = draft(24, space=space, config={"sampler": sampler})
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    study = open_study(Storage(url), given, document, lease_s=30.0)[0]
    claimed = []

    def work(name):
        own = handle(study)
        while (claim := own.claim(holder(name))) is not None:
            claimed.append(tuple(claim.params.values()))
            own.finish(claim, complete(0.1))
        own.storage.close()

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 24
    study.storage.close()


def test_a_claim_makes_two_transactions(tmp_path):
    study = opened(tmp_path, draft(10))
    for _ in range(2):  # what is read once
        study.finish(study.claim(holder()), complete())
    written, transactions = [], []

    def note(_connection, _cursor, statement, *_):
        if not statement.startswith("SELECT"):
            written.append(statement.split()[:3])

    def commit(_connection):
        if written:
            transactions.append([*written])
            written.clear()

    sa.event.listen(study.storage.engine, "before_cursor_execute", note)
    sa.event.listen(study.storage.engine, "commit", commit)
    claim = study.claim(holder())
    assert [len(each) for each in transactions] == [2, 2], transactions
    assert study.finish(claim, complete())
    study.storage.close()


@pytest.mark.storm
def test_what_ends_while_a_claim_finds_nothing_is_looked_at_again(
    url, tmp_path, server, monkeypatch
):
    """The last trial ends while a claim for the other slot is under way, and its trial is to be tried again."""
    study = opened_in(url, tmp_path, 1, lease_s=30.0)
    behave(tmp_path, """
if attempt == 1:
    time.sleep(0.4)
    return done(channel, "failed", "oom", halve=True)
done(channel)
""")  # fmt: skip
    claim = Study.claim

    def slow(self, *args, **kwargs):
        found = claim(self, *args, **kwargs)
        time.sleep(0.0 if found else 1.0)
        return found

    monkeypatch.setattr(Study, "claim", slow)
    assert worker_of(study, server, tmp_path).run()
    assert ends(study, 0) == [("interrupted", "oom"), ("complete", None)]
    study.storage.close()


def test_what_is_lost_elsewhere_while_a_claim_finds_nothing_is_tried_again(
    tmp_path, server, monkeypatch
):
    """Another process dies with the last trial, and is reaped, between the claim's look and its answer."""
    study = opened_in(f"sqlite:///{tmp_path / 'dlsearch.db'}", tmp_path, 1, lease_s=30.0)
    behave(tmp_path, "done(channel)")
    other = subprocess.Popen(["sleep", "600"])
    study.claim(Holder("other", "host", other.pid, 0, "cpu:0", ProcessIdentity.of(other.pid)))
    watching = handle(study)
    claim = Study.claim

    def slow(self, *args, **kwargs):
        found = claim(self, *args, **kwargs)
        if other.returncode is None:
            assert found is None
            other.kill()
            other.wait()
            until(lambda: ends(watching, 0) == [("lost", "lost")])
        return found

    monkeypatch.setattr(Study, "claim", slow)
    try:
        assert worker_of(study, server, tmp_path).run()
    finally:
        other.kill()
        other.wait()
    assert ends(study, 0) == [("lost", "lost"), ("complete", None)]
    for each in (study, watching):
        each.storage.close()


def test_what_is_claimed_after_the_worker_has_left_is_given_back(url, tmp_path, gate):
    """Its process may live on: others would take it for held as long."""
    study = opened_in(url, tmp_path, 1, lease_s=30.0)
    client = DatabaseClient(study)
    heartbeat = Heartbeat(client.lease_renewer(), 30.0)
    claimer = Claimer(client, heartbeat)
    gate.shut(0)
    claimer.start()
    claimer.ask(Wanted(Slot(0, "cpu:0", 1), ClaimRequest(holder())))
    until(lambda: gate.reached(0))
    claimer.close()
    heartbeat.stop()
    gate.open(0)
    until(lambda: not claimer.busy)
    assert ends(study, 0) == [("interrupted", "interrupted")]
    assert [t.state.name for t in study.trials()] == ["WAITING"]
    study.storage.close()


def test_a_duplicate_is_replaced_by_no_trial_once_the_budget_is_spent(url, tmp_path, gate):
    """The budget is another one when the proposal is there."""
    study = opened_in(url, tmp_path, 5, alike=True)
    other = handle(study)
    study.finish(study.claim(holder()), complete())
    gate.shut(1)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(study.claim, holder())
        until(lambda: gate.reached(1))
        update_row(other.storage, other.name, n_trials=2)
        gate.open(1)
        assert slow.result(timeout=60) is None
    assert [t.state.name for t in other.trials()] == ["COMPLETE", "COMPLETE"]
    for each in (study, other):
        each.storage.close()


@pytest.mark.parametrize("name", ["claimer", "heartbeat"])
def test_a_thread_that_the_system_refuses_is_what_the_worker_says(
    tmp_path, server, monkeypatch, name
):
    study = opened_in(f"sqlite:///{tmp_path / 'dlsearch.db'}", tmp_path, 1)
    behave(tmp_path, "done(channel)")
    start = threading.Thread.start

    def refuse(self):
        if self.name == name:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        worker_of(study, server, tmp_path).run()
    assert {t.state.name for t in study.trials()} <= {"WAITING"}
    study.storage.close()


@pytest.mark.storm
def test_a_worker_renews_its_leases_where_its_heartbeat_has_no_connection(
    tmp_path, server, monkeypatch
):
    study = opened_in(f"sqlite:///{tmp_path / 'dlsearch.db'}", tmp_path, 1, lease_s=2.0)
    behave(tmp_path, "time.sleep(5)\ndone(channel)")
    watching = handle(study)

    def refuse(*_):
        raise ConnectionLostError("too many connections")

    monkeypatch.setattr(Heartbeat, "_beat", refuse)
    with ThreadPoolExecutor() as pool:
        serving = pool.submit(worker_of(study, server, tmp_path, count=1).run)
        left = []
        while not serving.done():
            left += [attempt.lease_until - time.time() for attempt in watching.leases.live()]
            time.sleep(0.05)
    assert serving.result()
    assert len(left) > 20
    assert min(left) > 0, "others would have taken its trial"
    for each in (study, watching):
        each.storage.close()


@pytest.mark.storm
def test_claims_that_have_no_connection_are_waited_for_no_longer_than_a_database(
    tmp_path, server, monkeypatch, capsys
):
    """The worker's own connection answers all the while."""
    study = opened_in(f"sqlite:///{tmp_path / 'dlsearch.db'}", tmp_path, 1)
    study.storage.patience_s = 6.0

    def refuse(*_, **__):
        raise ConnectionLostError("too many connections")

    monkeypatch.setattr(Study, "claim", refuse)
    with ThreadPoolExecutor() as pool:
        worker = worker_of(study, server, tmp_path)
        serving = pool.submit(worker.run)
        try:
            with pytest.raises(DatabaseAwayError, match="too many connections"):
                serving.result(timeout=60)
        finally:
            worker.stop()
    said = capsys.readouterr().err
    assert said.count("waiting for the database: too many connections") == 1
    assert "is back" not in said
    study.storage.close()
