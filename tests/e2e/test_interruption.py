"""Ctrl-C and sudden death: nothing is left running, and the same command goes on to the exact total."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from tests.e2e.running import TINY, Site, exactly, trials_below, until

pytestmark = pytest.mark.storm

TOTAL = 22


@pytest.fixture(scope="module")
def story(place, warm, forks):
    """One study: interrupted, killed with its driver, finished."""
    site = place("interrupted", cold=True)
    command = [
        "-m",
        *TINY,
        f"study.n_trials={TOTAL}",
        "hydra.launcher.workers=2",
        "study.name=s",
        "tracking.enabled=true",
    ]
    found = {}

    began = time.monotonic()
    with site.running(*command) as process:
        until(lambda: len(site.finished()) >= 4)
        found["start"] = time.monotonic() - began
        everyone = psutil.Process(process.pid).children(recursive=True)
        pressed = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        found["code"] = process.wait(60)
        found["seconds"] = time.monotonic() - pressed
    found["said"] = site.log.read_text()
    found["left"] = psutil.wait_procs(everyone, timeout=60)[1]
    found["states"], found["attempts"], found["kept"] = (
        site.states(),
        site.attempts(),
        site.finished(),
    )
    found["status"] = Site(site.folder, warm, forks).json("status", "s")

    with site.running(*command, "tracking.enabled=false") as process:
        until(lambda: len(site.finished()) >= len(found["kept"]) + 2)
        (server,) = (
            c
            for c in psutil.Process(process.pid).children()
            if "dlsearch.execution.processes.forkserver" in c.cmdline()
        )
        until(
            lambda: len(trials_below(server.pid)) == 2
        )  # one that has not been forked yet is not lost
        server.kill()
        until(lambda: any("lost" in states for states in site.attempts().values()))
        until(lambda: len(site.finished()) >= len(found["kept"]) + 6)
        everyone = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        found["orphans"] = psutil.wait_procs(everyone, timeout=60)[1]
    found["after_death"], found["kept_after_death"] = site.states(), site.finished()

    site.warm, site.forks = warm, forks
    with site.running(*command, "tracking.enabled=false") as process:
        until(lambda: len(site.finished()) >= len(found["kept_after_death"]) + 2)
        process.terminate()
        found["terminated"] = process.wait(30), site.log.read_text(), site.states()
    found["kept_at_last"] = site.finished()

    found["resumed"] = site.run(*command, "tracking.enabled=false")
    return site, found


def test_ctrl_c_ends_within_ten_seconds_and_says_what_to_do(story):
    _, found = story
    assert found["code"] == 130, found["said"]
    assert found["seconds"] < max(10.0, found["start"]), (
        "a machine busy with other tests took longer to start as well"
    )
    assert (
        f"interrupted: {len(found['kept'])} of {TOTAL} trials are done; the same command goes on"
        in found["said"]
    )
    assert "Traceback" not in found["said"]
    assert found["left"] == []


def test_a_schedulers_sigterm_is_ctrl_c(story):
    code, said, states = story[1]["terminated"]
    assert code == 130, said
    assert "the same command goes on" in said
    assert set(states) <= {"COMPLETE", "WAITING"}


def test_ctrl_c_gives_trials_back(story):
    _, found = story
    assert set(found["states"]) <= {"COMPLETE", "WAITING"}
    assert {state for states in found["attempts"].values() for state in states} <= {
        "complete",
        "interrupted",
    }
    assert found["status"]["state"] == "partial"
    assert found["status"]["running"] == []


def test_the_death_of_the_fork_server_costs_its_trials_one_attempt(story):
    site, _ = story
    hit = [states for states in site.attempts().values() if "lost" in states]
    assert 1 <= len(hit) <= 2
    assert all(states.count("lost") == 1 for states in hit)


def test_nothing_survives_the_driver(story):
    _, found = story
    assert found["orphans"] == []
    assert set(found["after_death"]) <= {"COMPLETE", "WAITING"}, (
        "the worker gave its trials back before it ended"
    )


def test_the_same_command_goes_on_to_the_exact_total(story):
    site, found = story
    exactly(site, TOTAL)
    assert (
        f"study s: resumed, {len(found['kept_at_last'])} of {TOTAL} trials are there"
        in found["resumed"]
    )
    assert (
        found["kept"].items() <= found["kept_after_death"].items() <= found["kept_at_last"].items()
    )
    assert found["kept_at_last"].items() <= site.finished().items()
    assert all(
        states[-1] == "complete" and states.count("complete") == 1
        for states in site.attempts().values()
    )
    assert site.json("status", "s")["state"] == "complete"
