"""A worker when something fails: real processes and signals, real limits on what may be written; trials pretend."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time

import pytest

from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.execution import backpressure, run_journals
from dlsearch.execution.processes.forkserver import ForkServer, ServerGoneError
from dlsearch.execution.resources.slots import Slot
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from dlsearch.tracking.journal import rows
from tests.execution.workers import worker_of_study
from tests.study.studies import complete, draft, holder, opened

TRIALS = """
import json, os, signal, sys, time
from pathlib import Path

def report(channel, epoch, value=0.5):
    channel.send({"type": "report", "epoch": epoch, "step": epoch, "metrics": {"val/accuracy": value}})
    return channel.receive()

def done(channel, state="complete", reason=None, **more):
    values = [0.5] if state == "complete" else None
    result = {"state": state, "reason": reason, "error": reason, "values": values, **more}
    channel.send({"type": "done", "result": result})

def run_trial(channel, payload):
    folder = Path(payload["folder"])
    attempt = int(Path(payload["journal"]).name.split(".")[1][1:])
    store = folder.parents[2]
    (folder / f"payload.a{attempt}.json").write_text(json.dumps(payload))
    scenario = {}
    exec((store / "scenario.py").read_text(), {**globals()}, scenario)
    scenario["act"](channel, payload, int(folder.name[1:]), attempt, store)
"""


class PretendServer(ForkServer):
    """Forks the trials of this file in place of the real ones."""

    def spawn(self, target, payload, *, env, log):
        return super().spawn("trials:run_trial", payload, env=env, log=log)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "trials.py").write_text(TRIALS)
    server = PretendServer.start(
        ["trials"], env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    )
    yield server
    server.stop()


class Place:
    """A study, its store, and what its trials do."""

    def __init__(self, folder, server):
        self.folder, self.server, self.said = folder, server, []

    def open(self, n_trials, act, *, lease_s=30.0, **study):
        body = "".join(f"    {line}\n" for line in act.strip().splitlines())
        (self.folder / "scenario.py").write_text(
            f"def act(channel, payload, number, attempt, store):\n{body}"
        )
        self.study = opened(
            self.folder, draft(n_trials, study={"finalize": False, **study}), lease_s=lease_s
        )
        return self.study

    def worker(self, study=None, **options):
        slots = [Slot(0, "cpu:0", 1)]
        worker = worker_of_study(study or self.study, self.folder, slots, self.server, **options)
        worker.service.back_pressure = backpressure.BackPressure(self.folder, self.said.append)
        return worker

    def fork(self):
        """A worker in a process of its own."""
        self.study.storage.close()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            study = Study(
                Storage(f"sqlite:///{self.folder / 'dlsearch.db'}"),
                "s",
                lease_s=self.study.leases.lease_s,
            )
            code = 0 if self.worker(study).run() else 130
        finally:
            os._exit(code)

    def ends(self, number=0):
        return [(a.state, a.reason) for a in self.study.leases.rows(number=number)]

    def payload(self, attempt, number=0):
        return json.loads(
            (self.folder / f"studies/s/t{number:05d}/payload.a{attempt}.json").read_text()
        )

    def statuses(self, attempt, number=0):
        path = self.folder / f"studies/s/t{number:05d}/journal.a{attempt}.jsonl"
        return [row["status"] for row in rows(path) if row["row"] == "status"]


@pytest.fixture
def place(tmp_path, server, monkeypatch):
    monkeypatch.setattr(backpressure, "RETRY_S", 0.1)
    place = Place(tmp_path, server)
    yield place
    place.study.storage.close()


def until(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_memory_that_ran_out_is_tried_in_parts_and_the_record_says_so(place):
    study = place.open(2, """
if number == 1 or attempt == 3:
    channel.send({"type": "began", "micro_batches": payload["micro_batches"], "resumption": None})
    return done(channel, micro_batches=payload["micro_batches"])
done(channel, "failed", "oom", halve=True)
""")  # fmt: skip
    assert place.worker().run()
    assert place.ends() == [("interrupted", "oom"), ("interrupted", "oom"), ("complete", None)]
    assert [place.payload(n)["micro_batches"] for n in (1, 2, 3)] == [1, 2, 4]
    assert place.payload(1, number=1)["micro_batches"] == 1
    assert [place.statuses(n) for n in (1, 2, 3)] == [["KILLED"], ["KILLED"], ["FINISHED"]]
    from dlsearch.records.record import read_record

    trial = read_record(study).to_json()["trials"][0]
    assert trial["micro_batches"] == 4
    assert [a["micro_batches"] for a in trial["attempts"]] == [1, 1, 4]


def test_memory_that_runs_out_in_any_parts_is_the_trials_own_failure(place):
    place.open(1, 'done(channel, "failed", "oom", halve=True)', max_halvings=1)
    assert place.worker().run()
    assert place.ends() == [("interrupted", "oom"), ("failed", "oom")]
    (trial,) = place.study.trials()
    assert (trial.state.name, trial.user_attrs["reason"]) == ("FAIL", "oom")


def test_nothing_is_claimed_while_the_fork_server_imports(place, tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(2.0)\n")
    place.open(2, "done(channel)", lease_s=1.0)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    place.server = PretendServer.start(["trials", "slow"], env={"PYTHONPATH": path})
    try:
        assert place.server.importing
        assert place.worker().run()
        assert not place.server.importing
    finally:
        place.server.stop()
    assert place.ends() == place.ends(1) == [("complete", None)], (
        "no lease ran out while it was waited for"
    )


class Doomed(PretendServer):
    """Is killed whenever it is asked for a trial."""

    def spawn(self, target, payload, *, env, log):
        self._process.kill()
        return super().spawn(target, payload, env=env, log=log)


def test_a_trial_whose_fork_server_is_killed_goes_to_the_next_one(place, tmp_path):
    place.open(3, "done(channel)", lease_s=2.0)
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    doomed = [Doomed.start(["trials"], env=path) for _ in range(2)]
    worker = place.worker()
    worker.servers.current, servers = doomed[0], iter([doomed[1], place.server])
    worker.servers.start = lambda: next(servers)
    try:
        assert worker.run()
    finally:
        for each in doomed:
            each.stop()
    assert place.ends() == [("interrupted", "interrupted")] * 2 + [("complete", None)]
    assert [place.statuses(n) for n in (1, 2, 3)] == [["KILLED"], ["KILLED"], ["FINISHED"]]
    assert place.ends(1) == place.ends(2) == [("complete", None)]


def test_a_fork_server_that_always_dies_ends_its_worker(place, tmp_path):
    place.open(1, "done(channel)")
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    doomed = [Doomed.start(["trials"], env=path) for _ in range(4)]
    worker = place.worker()
    worker.servers.current, servers = doomed[0], iter(doomed[1:])
    worker.servers.start = lambda: next(servers)
    try:
        with pytest.raises(ServerGoneError, match="the fork server died"):
            worker.run()
    finally:
        for each in doomed:
            each.stop()
    assert place.ends() == [("interrupted", "interrupted")] * 3
    assert place.study.trials()[0].state.name == "WAITING"


def test_what_a_dead_worker_could_not_write_down_the_next_one_does(place):
    study = place.open(2, "done(channel)")
    pid = os.fork()
    if pid == 0:
        signal.pause()
    process = ProcessIdentity.of(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    dead = Holder("dead", socket.gethostname(), pid, 0, "cpu:0", process)
    claim = study.claim(dead)
    run_journals.begin(study, claim, dead, place.folder)
    assert study.finish(claim, complete(0.5)), (
        "told the study, and killed before it closed the journal"
    )
    assert place.statuses(1) == []
    assert place.worker().run()
    assert place.statuses(1) == place.statuses(1, number=1) == ["FINISHED"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_sigterm_gives_a_trial_back_and_costs_none_of_its_attempts(place, name):
    place.open(1, f"""
if attempt == 1:
    os.kill(os.getpid(), signal.{name})
    time.sleep(60)
if attempt == 2:
    sys.exit(75)  # as a trial does that could finish its batch
done(channel)
""", max_attempts=1)  # fmt: skip
    assert place.worker().run()
    assert place.ends() == [("interrupted", "interrupted")] * 2 + [("complete", None)]


def test_a_death_costs_one_and_the_last_is_final(place):
    place.open(1, "os.kill(os.getpid(), signal.SIGKILL)", max_attempts=2)
    assert place.worker().run()
    assert place.ends() == [("lost", "lost")] * 2
    assert [place.statuses(n) for n in (1, 2)] == [["FAILED"]] * 2
    assert place.study.trials()[0].user_attrs["reason"] == "lost"


@pytest.mark.storm
def test_a_timeout_is_recorded_with_what_it_reached(place):
    place.open(1, """
report(channel, 0, 0.75)
report(channel, 1, 0.5)
time.sleep(60)
""")  # fmt: skip
    assert place.worker(trial_timeout_s=4.0).run()
    (attempt,) = place.study.leases.rows()
    assert (attempt.state, attempt.reason) == ("failed", "timeout")
    assert attempt.error == "deadline of 4 s after 2 epochs, val/accuracy 0.75 at best"
    assert json.loads(attempt.result)["history"] == [[0, 0.75], [1, 0.5]]


def test_a_full_disk_is_waited_for(place, monkeypatch):
    place.open(2, """
if (number, attempt) == (0, 1):
    return done(channel, "failed", "disk", n_params=10)
done(channel)
""")  # fmt: skip
    looked = []
    monkeypatch.setattr(
        backpressure, "has_room", lambda folder, size: looked.append(size) or len(looked) > 2
    )
    assert place.worker().run()
    assert place.ends() == [("interrupted", "disk"), ("complete", None)]
    assert looked == [backpressure.LEAST] * 3
    assert place.said == [
        f"waiting for room in {place.folder}: disk",
        f"there is room again in {place.folder}",
    ]


def test_no_room_for_database_and_journals_stops_nobody_for_good(place):
    """This process may write nothing for two seconds: neither rows, nor journals, nor configs."""
    study = place.open(4, """
report(channel, 0)
if number == 1:
    (store / "second").touch()
    time.sleep(0.5)
done(channel)
""")  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def squeeze():
        until((place.folder / "second").exists)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        until(lambda: place.said)
        time.sleep(1.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    squeezing = threading.Thread(target=squeeze)
    squeezing.start()
    try:
        assert place.worker().run()
    finally:
        squeezing.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert place.said[0].startswith(f"waiting for room in {place.folder}")
    assert place.said[-1] == f"there is room again in {place.folder}"
    assert [t.state.name for t in study.trials()] == ["COMPLETE"] * 4
    assert not study.leases.live()
    assert place.statuses(1, number=1) == ["FINISHED"]
    with study.storage.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


@pytest.mark.storm
def test_a_worker_that_was_stopped_beyond_its_lease_is_refused_and_lives(place):
    study = place.open(2, """
report(channel, 0)
if number == 0:
    (store / "first").touch()
    while not (store / "go").exists():
        time.sleep(0.02)
report(channel, 1, 0.9)
done(channel)
""", lease_s=2.0)  # fmt: skip
    pid = place.fork()
    try:
        until((place.folder / "first").exists)
        os.kill(pid, signal.SIGSTOP)
        until(study.leases.overdue)
        (lost,) = study.reap()
        assert (lost.number, lost.state) == (0, "lost")
        study.leases.lease_s = 600.0  # of this one, which nobody renews
        again = study.claim(holder("another"))
        assert (again.number, again.attempt) == (0, 2)
        os.kill(pid, signal.SIGCONT)
        (place.folder / "go").touch()
        until(lambda: place.ends(1) == [("complete", None)])
        assert place.ends(0) == [("lost", "lost"), ("running", None)], (
            "what it said of the first was refused"
        )
        assert 1 not in study.optuna.get_trials()[0].intermediate_values
        assert study.finish(again, complete(0.25))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert [t.values for t in study.optuna.get_trials()] == [[0.25], [0.5]]
    assert place.statuses(1, number=0) == ["FAILED"]


def test_the_runs_of_a_dead_worker_are_ended_by_whoever_finds_it(place):
    study = place.open(1, """
report(channel, 0)
if attempt == 1:
    (store / "first").touch()
    report(channel, 1)
    time.sleep(60)
done(channel)
""")  # fmt: skip
    pid = place.fork()
    until((place.folder / "first").exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert place.statuses(1) == []
    assert place.worker().run()
    assert place.ends() == [("lost", "lost"), ("complete", None)]
    assert (place.statuses(1), place.statuses(2)) == (["FAILED"], ["FINISHED"])
    assert not study.leases.live()


def test_a_hanging_trial_of_a_joined_worker_ends_at_the_study_s_deadline(place):
    place.open(1, """
report(channel, 0, 0.75)
time.sleep(20)
done(channel)
""", trial_timeout="2s")  # fmt: skip
    joined = Study(Storage(place.study.storage.url), "s")
    assert place.worker(joined).run(), "which was told of no deadline"
    joined.storage.close()
    (attempt,) = place.study.leases.rows()
    assert (attempt.state, attempt.reason) == ("failed", "timeout")
    assert attempt.error == "deadline of 2 s after 1 epochs, val/accuracy 0.75 at best"


@pytest.mark.storm
def test_a_worker_s_own_deadline_of_trials_may_only_be_nearer(place):
    place.open(1, """
report(channel, 0, 0.75)
time.sleep(20)
done(channel)
""", trial_timeout="2s")  # fmt: skip
    assert place.worker(trial_timeout_s=60.0).run()
    assert place.study.leases.rows()[0].error.startswith("deadline of 2 s")
    place.study.storage.close()
    place.open(2, """
report(channel, 0, 0.75)
time.sleep(20)
done(channel)
""", trial_timeout="60s")  # fmt: skip
    assert place.worker(trial_timeout_s=1.0).run()
    assert place.study.leases.rows()[1].error.startswith("deadline of 1 s")
