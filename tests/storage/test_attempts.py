"""Which holder is taken for dead.

Containers have one host name, machines slept, and numbers went to other processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa

from dlsearch.cli.main import main
from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.storage import attempts
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study
from tests.execution.test_worker_failures import place, server, until
from tests.storage.test_availability import opened as opened_at
from tests.study.studies import complete, draft, holder, opened

__all__ = ["place", "server"]

SLEEP_S = 600
#: A worker of another PID name space serves the study for a while, and finds nothing to claim.
OTHER_SPACE = """
import sys, threading
from pathlib import Path
from dlsearch.storage.database import Storage
from dlsearch.execution.resources.slots import Slot
from dlsearch.study.study import Study
from tests.execution.workers import worker_of_study
if sys.argv[2] == "pretend":
    from dlsearch.tracking import processes
    boot = processes._space().partition("/")[0]
    processes._space = lambda: f"{boot}/1"
store = Path(sys.argv[1])
study = Study(Storage(f"sqlite:///{store / 'dlsearch.db'}"), "s", lease_s=30.0)
slot = Slot(0, "cpu:0", 1)
worker = worker_of_study(study, store, [slot], None)
threading.Timer(3.0, worker.stop).start()
print("told to stop" if not worker.run() else "done")
study.storage.close()
"""


def serve_in_another_space(store):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = [sys.executable, "-c", OTHER_SPACE, str(store)]
    for unshare in (["unshare"], ["unshare", "-Ur"]):
        command = [*unshare, "--pid", "--fork", "--mount-proc", *code, "real"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=120
        )
        if "unshare: " not in done.stderr:
            break
    else:  # the kernel makes no name space for us
        command = [*code, "pretend"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=120
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BLOCKED = """
report(channel, 0)
(store / "first").touch()
while not (store / "go").exists():
    time.sleep(0.02)
done(channel)
"""


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.storm
def test_a_container_with_the_same_host_name_takes_nobody_for_dead(place):
    place.open(1, BLOCKED)
    pid = place.fork()
    try:
        until((place.folder / "first").exists)
        assert serve_in_another_space(place.folder) == "told to stop"
        assert place.ends() == [("running", None)], "there is no process of its number over there"
        (place.folder / "go").touch()
        assert ended(pid) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert place.ends() == [("complete", None)]


def sleep(storage, seconds=SLEEP_S):
    """Let time pass: all times in the database become older."""
    with storage.begin() as connection:
        statement = (
            "UPDATE dlsearch_attempt SET lease_until = lease_until - :s WHERE state = 'running'"
        )
        connection.execute(sa.text(statement), {"s": seconds})


def test_a_machine_that_slept_for_ten_minutes_loses_no_live_trial(place, capsys):
    study = place.open(1, BLOCKED)
    pid = place.fork()
    try:
        until((place.folder / "first").exists)
        for _ in range(10):  # its worker wakes, too, and renews its lease; we are often faster
            sleep(study.storage)
            assert study.reap() == [], (
                "the driver's look, and another worker's that was there before"
            )
            sleep(study.storage)
            fresh = Study(Storage(study.storage.url), "s")
            sleep(study.storage)
            assert fresh.claim(holder("another")) is None
            fresh.storage.close()
        sleep(study.storage)
        with pytest.raises(SystemExit) as end:
            main(["status", "s", f"paths.store={place.folder}"])
        assert end.value.code == 0
        assert place.ends() == [("running", None)]
        (place.folder / "go").touch()
        assert ended(pid) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert place.ends() == [("complete", None)]
    capsys.readouterr()


@pytest.fixture(params=["sqlite", "postgresql"])
def study(request, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "HOLD_S", 1.0)
    if request.param == "sqlite":
        study = opened(tmp_path, draft(4), lease_s=1.0)
    else:
        url = request.getfixturevalue("postgres").database(f"leases-{time.monotonic_ns()}")
        study = opened_at(url, "s", 4, lease_s=1.0, patience_s=300.0)
    yield study
    study.storage.close()


def held_by(study, process):
    return study.claim(Holder("w", "one-name", process.pid, 0, "cpu:0", process))


def test_alive_is_alive_whatever_the_lease_says(study):
    claim = held_by(study, ProcessIdentity.of())
    sleep(study.storage)
    other = Study(Storage(study.storage.url), "s", lease_s=1.0)
    for _ in range(15):  # longer than a lease in touch with the database
        assert not other.leases.overdue()
        assert other.reap() == []
        time.sleep(0.1)
    other.storage.close()
    assert study.finish(claim, complete(0.5))


def test_a_number_that_went_to_another_process_is_reaped_at_once(study):
    own = ProcessIdentity.of()
    held_by(study, replace(own, born="1"))
    sleep(study.storage, 2)
    other = Study(Storage(study.storage.url), "s", lease_s=1.0)
    assert [a.state for a in other.reap()] == ["lost"]
    other.storage.close()


def test_a_holder_in_another_name_space_has_the_time_of_a_lease_after_a_sleep(study):
    boot = ProcessIdentity.of().space.partition("/")[0]
    claim = held_by(study, ProcessIdentity(f"{boot}/1", 7, "1"))
    sleep(study.storage)
    other = Study(Storage(study.storage.url), "s", lease_s=1.0)
    assert other.reap() == [], "it may have slept with this machine"
    lost = []
    until_ = time.monotonic() + 20
    while not lost:
        assert time.monotonic() < until_, "no process can see it, or hears of it"
        lost = other.reap()
        time.sleep(0.1)
    assert [a.token for a in lost] == [claim.token]
    other.storage.close()


def test_an_attempt_of_an_earlier_version_is_judged_by_its_lease_alone(tmp_path):
    study = opened(tmp_path, draft(1), lease_s=30.0)
    study.claim(Holder("old", os.uname().nodename, 2**22 - 1, 0, "cpu:0"))
    other = Study(Storage(study.storage.url), "s")
    assert other.reap() == [], "it is not known which process its number means"
    sleep(study.storage, 31)
    assert [a.worker for a in other.reap()] == ["old"]
    for each in (study, other):
        each.storage.close()


def test_a_worker_elsewhere_that_was_heard_before_our_sleep_is_heard_again_first(
    postgres, monkeypatch
):
    """All machines of a study slept, as virtual ones do with their host: the first awake waits."""
    monkeypatch.setattr(attempts, "HOLD_S", 1.0)
    study = opened_at(postgres.database("all-slept"), "s", 1, lease_s=1.0, patience_s=10.0)
    study.claim(holder("elsewhere"))
    sleep(study.storage)
    study.leases.contact.first -= SLEEP_S
    study.leases.broken()
    assert study.reap() == [], "this process was there when the lease was renewed"
    fresh = Study(Storage(study.storage.url, patience_s=10.0), "s", lease_s=1.0)
    assert [a.worker for a in fresh.reap()] == ["elsewhere"], (
        "to one that has just come, it has given up"
    )
    for each in (study, fresh):
        each.storage.close()


def test_a_worker_that_may_wait_for_longer_is_not_taken_to_have_given_up(postgres):
    """The study's patience counts, not that of the process that looks."""
    url = postgres.database("patient")
    study = opened_at(url, "s", 1, patience_s=900.0, study={"name": "s", "storage_patience": "15m"})
    study.claim(holder("elsewhere"))
    sleep(study.storage)
    hasty = Study(Storage(url, patience_s=10.0), "s")
    assert hasty.reap() == []
    for each in (study, hasty):
        each.storage.close()
