"""A search outlives its readers; a terminal that closes is Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import termios
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.running import TINY, exactly, until

ANY = ["-m", *TINY, "study.name=s", "callbacks=none"]
STUDY = [*ANY, "hydra.launcher.workers=1"]
LONG = ["study.n_trials=1", "trainer.max_epochs=300"]
#: MLflow's word for a run that nobody ended.
LEFT_RUNNING = "SELECT name FROM runs WHERE status = 'RUNNING'"
TRAINS = "SELECT pid FROM dlsearch_attempt WHERE state = 'running' AND progress IS NOT NULL"
ENDS = "SELECT state, reason FROM dlsearch_attempt ORDER BY id"
SINGLE = [
    "model=linear",
    "data.train_size=64",
    "data.val_size=64",
    "trainer.accelerator=cpu",
    "callbacks=none",
]


def wrong_in(said: str) -> list[str]:
    return [
        word
        for word in ("Traceback", "Exception ignored", "Broken pipe", "BrokenPipe")
        if word in said
    ]


def read_one_line_and_leave(process):
    line = process.stdout.readline()
    process.stdout.close()
    return line


LAUNCHERS = ["local", pytest.param("basic", marks=pytest.mark.storm)]


@pytest.mark.storm
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_search_whose_pipe_is_closed_goes_on_to_its_report(place, launcher):
    site = place("pipe")
    words = [*ANY, f"hydra/launcher={launcher}", "study.n_trials=2", "tracking.enabled=true"]
    with (site.folder / "errors.txt").open("w+") as errors:
        with site.running(*words, stdout=subprocess.PIPE, stderr=errors) as process:
            assert read_one_line_and_leave(process).startswith("study s: 2 trials")
            assert process.wait(120) == 0
        errors.seek(0)
        said = errors.read()
    assert not wrong_in(said), said
    exactly(site, 2)
    assert (site.store / "studies/s/report/index.html").is_file()
    assert site.rows("SELECT DISTINCT status FROM runs", database="mlflow.db") == [("FINISHED",)]


@pytest.mark.storm
@pytest.mark.parametrize("kind", ["one pipe for both", "a full disk", "closed at the start"])
def test_whatever_stands_behind_the_output_the_study_is_done(place, kind):
    site = place("nowhere")
    words = [*STUDY, "study.n_trials=2"]
    if kind == "one pipe for both":
        with site.running(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            read_one_line_and_leave(process)
            assert process.wait(60) == 0
    elif kind == "a full disk":
        with (
            Path("/dev/full").open("w") as full,
            site.running(*words, stdout=full, stderr=full) as process,
        ):
            assert process.wait(60) == 0
    else:
        with site.running(*words, preexec_fn=lambda: os.closerange(0, 3)) as process:
            assert process.wait(60) == 0
        assert site.rows("PRAGMA integrity_check") == [("ok",)]
    exactly(site, 2)
    assert (site.store / "studies/s/report/index.html").is_file()


@pytest.fixture(scope="module")
def finished(place):
    site = place("finished")
    site.run(*STUDY, "study.n_trials=3")
    return site


@pytest.mark.storm
@pytest.mark.parametrize(
    "words", [["trials", "s"], ["trials", "s", "--json"], ["status", "s"], ["plan", *TINY]]
)
def test_a_verb_that_only_prints_ends_quietly_without_a_reader(finished, words):
    with (finished.folder / "errors.txt").open("w+") as errors:
        read, write = os.pipe()
        os.close(read)
        with (
            os.fdopen(write, "w") as out,
            finished.running(*words, stdout=out, stderr=errors) as process,
        ):
            assert process.wait(60) == 0
        errors.seek(0)
        assert errors.read() == ""


@contextmanager
def terminal(site, *words):
    """A command that leads the session of a terminal; yields it and what closes the terminal."""
    master, slave = os.openpty()
    screen = os.fdopen(master, "rb", buffering=0)

    def take() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    try:
        with site.running(
            *words, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take
        ) as process:
            os.close(slave)
            slave = -1
            yield process, screen.close
    finally:
        if slave >= 0:
            os.close(slave)
        screen.close()


@pytest.mark.storm
@pytest.mark.timeout(300)  # two imports of torch
def test_a_terminal_that_closes_gives_the_trials_back_and_the_same_command_goes_on(place):
    site = place("terminal", cold=True)
    words = [*STUDY, "study.n_trials=1", "trainer.max_epochs=150", "tracking.enabled=true"]
    with terminal(site, *words) as (process, close):
        until(lambda: site.rows(TRAINS), 120)
        close()
        assert process.wait(30) == 130
    assert site.states() == {"WAITING": 1}
    assert site.rows(ENDS) == [("interrupted", "interrupted")]
    assert site.rows(LEFT_RUNNING, database="mlflow.db") == []
    site.run(*words, timeout=200)
    exactly(site, 1)
    assert site.rows(ENDS) == [("interrupted", "interrupted"), ("complete", None)]


@pytest.mark.storm
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_hangup_of_the_whole_group_costs_no_attempt_however_often(place, launcher):
    site = place("group")
    words = [*ANY, f"hydra/launcher={launcher}", *LONG, "study.max_attempts=1"]
    for times in (1, 2):
        with site.running(*words) as process:
            until(lambda: site.rows(TRAINS), 60)
            for _ in range(2):  # the shell's, and the kernel's
                os.killpg(process.pid, signal.SIGHUP)
            assert process.wait(30) == 130, site.log.read_text()
        assert not wrong_in(site.log.read_text())
        assert "the same command goes on" in site.log.read_text()
        assert site.rows(ENDS) == [("interrupted", "interrupted")] * times
        assert site.states() == {"WAITING": 1}


@pytest.mark.storm
def test_under_nohup_a_hangup_is_nothing(place):
    site = place("nohup", cold=True)
    words = [*STUDY, "study.n_trials=1", "trainer.max_epochs=100"]
    with site.running(
        *words, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ) as process:
        until(lambda: site.rows(TRAINS), 120)
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(120) == 0, site.log.read_text()
    assert site.rows(ENDS) == [("complete", None)]


@pytest.mark.storm
def test_a_hangup_has_a_worker_give_its_trials_back(place):
    site = place("worker")
    with site.running(*STUDY, *LONG) as process:
        until(lambda: site.rows(TRAINS), 60)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    with site.running("worker", "study=s", "worker.slots=1", "tracking.enabled=false") as worker:
        until(lambda: site.rows(TRAINS), 60)
        worker.send_signal(signal.SIGHUP)
        assert worker.wait(30) == 130, site.log.read_text()
    assert "interrupted: its trials wait for another worker" in site.log.read_text()
    assert site.rows(ENDS) == [("interrupted", "interrupted")] * 2


def ended_as(site):
    (journal,) = site.store.glob("runs/*/journal.jsonl")
    last = [json.loads(line) for line in journal.read_text().splitlines()][-1]
    return last["row"], last.get("status")


@pytest.mark.storm
def test_a_single_training_outlives_its_reader(place):
    site = place("single")
    with (site.folder / "errors.txt").open("w+") as errors:
        words = [*SINGLE, "trainer.max_epochs=3", "tracking.enabled=false"]
        with site.running(*words, stdout=subprocess.PIPE, stderr=errors) as process:
            read_one_line_and_leave(process)
            assert process.wait(60) == 0
        errors.seek(0)
        said = errors.read()
    assert not wrong_in(said), said
    assert ended_as(site) == ("status", "FINISHED")


@pytest.mark.storm
def test_a_terminal_that_closes_ends_a_single_training_as_interrupted(place):
    site = place("hung-up", cold=True)
    with terminal(site, *SINGLE, "trainer.max_epochs=100000", "tracking.enabled=true") as (
        process,
        close,
    ):
        until(lambda: list(site.store.glob("runs/*/ckpt/last.ckpt")), 120)
        close()
        assert process.wait(40) == 130
    assert ended_as(site) == ("status", "KILLED")
    assert site.rows("SELECT status FROM runs", database="mlflow.db") == [("KILLED",)]


@contextmanager
def silent_server():
    """A tracking server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"tracking.uri=http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.storm)]
)
@pytest.mark.storm
def test_a_signal_ends_the_wait_for_a_tracking_server(place, number):
    site = place("shipping")
    with (
        silent_server() as uri,
        site.running(*STUDY, "study.n_trials=2", "tracking.enabled=true", uri) as process,
    ):
        until(lambda: "report: " in site.log.read_text(), 120)
        process.send_signal(number)
        assert process.wait(15) == 0, "the study is done"
    assert (
        "tracking: not everything has reached MLflow yet; dlsearch sync ships the rest"
        in site.log.read_text()
    )
    assert "next: dlsearch ui" in site.log.read_text()
    exactly(site, 2)


@pytest.mark.storm
def test_a_signal_ends_a_single_trainings_wait_for_a_tracking_server(place):
    site = place("shipping-single")
    words = [*SINGLE, "trainer.max_epochs=2", "tracking.enabled=true"]
    with silent_server() as uri, site.running(*words, uri) as process:
        until(
            lambda: "val/accuracy" in site.log.read_text() and " of 2, " in site.log.read_text(),
            120,
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, "the training is done"
    assert "dlsearch sync ships the rest" in site.log.read_text()
    assert "run: store/runs/" in site.log.read_text()
