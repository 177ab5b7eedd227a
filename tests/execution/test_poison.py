"""Attempts whose end, report or start cannot be recorded: each ends alone, and the study goes on to its end.

On real SQLite and real PostgreSQL, with processes of a real fork server that send what a user's
code makes of it.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from dlsearch.execution import pending_results
from dlsearch.execution.clients.database_files import DatabaseFiles
from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.resources.slots import Slot
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.records.record import read_record
from dlsearch.storage.database import Storage
from dlsearch.study.models import Result
from dlsearch.study.states import AttemptState
from dlsearch.study.study import Study
from dlsearch.tracking.journal import rows
from tests.execution.workers import worker_of_study
from tests.study.studies import draft

TRIALS = r"""
import json, os, time
from pathlib import Path

def report(channel, epoch, value=0.5):
    channel.send({"type": "report", "epoch": epoch, "step": epoch, "metrics": {"val/accuracy": value}})
    return channel.receive()

def done(channel, state="complete", **more):
    result = {"state": state, "reason": None, "error": None, "values": [0.5] if state == "complete" else None}
    channel.send({"type": "done", "result": {**result, "epochs": 1, "summary": {}, **more}})

def run_trial(channel, payload):
    folder = Path(payload["folder"])
    scenario = {}
    exec((folder.parents[2] / "scenario.py").read_text(), {**globals()}, scenario)
    scenario["act"](channel, payload, int(folder.name[1:]))
"""


class PretendServer(ForkServer):
    """Forks the trials of this file in place of the real ones."""

    def spawn(self, target, payload, *, env, log):
        return super().spawn("trials:run_trial", payload, env=env, log=log)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trials")
    (folder / "trials.py").write_text(TRIALS)
    server = PretendServer.start(
        ["trials"], env={"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    )
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.storm)])
def serve(request, tmp_path, server, postgres):
    """Runs a study with a worker of two slots; returns it when it has come to its end."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'dlsearch.db'}"
    else:
        url = postgres.database(f"poison-{abs(hash(request.node.name))}")
    opened = []

    def serve(n_trials, act, **study):
        body = "".join(f"    {line}\n" for line in act.strip().splitlines())
        (tmp_path / "url.json").write_text(json.dumps(url))
        (tmp_path / "scenario.py").write_text(
            f"def act(channel, payload, number):\n{body}", encoding="ascii"
        )
        given = draft(n_trials, study={"finalize": False, **study})
        document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
        found, _ = open_study(Storage(url), given, document, lease_s=30.0)
        opened.append(found)
        slots = [Slot(index, f"cpu:{index}", 1) for index in range(2)]
        worker = worker_of_study(found, tmp_path, slots, server)
        assert worker.run()
        return found

    yield serve
    for study in opened:
        study.storage.close()


def ends(study, number):
    return [(a.state, a.reason) for a in study.leases.rows(kind="trial", number=number)]


def states(study):
    return [trial["state"] for trial in read_record(study).to_json()["trials"]]


#: What a user's module, data or exception makes of a result; each comes as JSON from the trial's
#: own process.
RESULTS = {
    "a NUL in an error": r'done(channel, "failed", reason="exception", error="ValueError: a\0b")',
    "half a surrogate pair in an error": r'done(channel, "failed", reason="exception", error="ValueError: \ud800")',
    "an error of 5 MB": r'done(channel, "failed", reason="exception", error="x" * 5_000_000)',
    "a NUL in a metric's name": r'done(channel, summary={"final/a\0b": 0.5})',
    "half a surrogate pair in a metric's name": r'done(channel, summary={"final/\ud800": 0.5})',
    "NaN in a metric": r'done(channel, summary={"final/x": float("nan")})',
    "a huge integer": r'done(channel, best_step=10**1000, n_params=10**1000)',
    "digests with a NUL": r'done(channel, split_sha256={"train\0": "\0"})',
}  # fmt: skip


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_any_result_can_be_recorded(serve, result):
    study = serve(2, f"if number == 0:\n    return {result}\ndone(channel)")
    assert [len(study.leases.rows(number=n)) for n in (0, 1)] == [1, 1]
    assert states(study) in (["complete", "complete"], ["failed", "complete"])
    for attempt in study.leases.rows():
        assert len(attempt.error or "") <= 2000
        json.loads(attempt.result)
    json.dumps(read_record(study).to_json()).encode()


@pytest.fixture
def refusing(monkeypatch):
    """At the seam: what cannot be written of trial 1 is what this fixture is told."""

    def refuse(which):
        finish = Study.finish

        def refused(self, claim, result):
            if claim.number == 1 and which(Result.from_json(result)):
                raise RuntimeError("refused")
            return finish(self, claim, result)

        monkeypatch.setattr(Study, "finish", refused)

    return refuse


def test_a_result_that_cannot_be_recorded_is_the_failure_of_its_attempt_alone(
    serve, refusing, capsys, tmp_path
):
    refusing(lambda result: result.state is AttemptState.COMPLETE)
    study = serve(4, "time.sleep(0.3 * (number != 1))\ndone(channel)")
    assert states(study) == ["complete", "failed", "complete", "complete"]
    assert ends(study, 1) == [("failed", "exception")]
    assert (
        read_record(study).to_json()["trials"][1]["error"]
        == "its result could not be recorded: RuntimeError: refused"
    )
    assert capsys.readouterr().err.count("dlsearch: trial 1: its result could not be recorded") == 1
    folder = tmp_path / "studies/s/t00001"
    assert [
        row["status"] for row in rows(folder / "journal.a1.jsonl") if row["row"] == "status"
    ] == ["FAILED"]
    assert "Traceback" in (folder / "worker.a1.log").read_text()


def test_a_trial_that_can_only_be_given_back_is_quarantined_after_its_attempts(
    serve, refusing, capsys
):
    refusing(lambda _: True)
    study = serve(3, "done(channel)", max_attempts=2)
    assert states(study) == ["complete", "failed", "complete"]
    assert ends(study, 1) == [("lost", "lost")] * 2
    assert (
        read_record(study).to_json()["trials"][1]["error"]
        == "its result could not be recorded: RuntimeError: refused"
    )
    assert capsys.readouterr().err.count("could not be recorded") == 2


def test_a_trial_that_somebody_told_optuna_about_meanwhile_ends_no_other(serve, capsys):
    """By Optuna's own API, or its dashboard."""
    study = serve(3, """
if number == 1:
    import optuna
    from optuna.trial import TrialState
    url = json.loads((Path(payload["folder"]).parents[2] / "url.json").read_text())
    optuna.load_study(study_name="s", storage=url).tell(1, 0.25)
done(channel)
""")  # fmt: skip
    assert states(study) == ["complete"] * 3
    assert [trial["value"] for trial in read_record(study).to_json()["trials"]] == [0.5, 0.25, 0.5]
    assert ends(study, 1) == [("lost", "lost")]
    assert "Cannot tell a COMPLETE trial" in capsys.readouterr().err


def test_something_else_than_a_result_is_a_failure(serve):
    study = serve(3, """
if number == 1:
    return channel.send({"type": "done", "result": {"values": [1.0]}})
done(channel)
""")  # fmt: skip
    assert states(study) == ["complete", "failed", "complete"]
    assert (
        read_record(study).to_json()["trials"][1]["error"]
        == "its result could not be understood: KeyError: 'state'"
    )


HUGE_EPOCH = "report(channel, 2**40)"


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (HUGE_EPOCH, "could not be recorded"),
        ('channel.send({"type": "report"})', "KeyError: 'epoch'"),
        (r'channel.sock.sendall(b"\xff not JSON\n")', "Error"),
    ],
    ids=["a huge epoch", "no epoch", "no JSON"],
)  # fmt: skip
def test_what_a_trial_reports_concerns_it_alone(serve, message, cause):
    study = serve(3, f"""
if number == 1:
    {message}
    time.sleep(0 if {message == HUGE_EPOCH} else 60)
    return done(channel)
report(channel, 0)
done(channel)
""")  # fmt: skip
    if message == HUGE_EPOCH and study.storage.sqlite:  # whose integers have eight bytes
        assert states(study) == ["complete"] * 3
        return
    assert states(study) == ["complete", "failed", "complete"]
    assert ends(study, 1) == [("failed", "exception")]
    assert cause in read_record(study).to_json()["trials"][1]["error"]


def test_where_nothing_can_be_written_it_is_not_the_trial(serve, monkeypatch):
    monkeypatch.setattr(
        pending_results, "record_end", lambda *_: (_ for _ in ()).throw(RuntimeError("no table"))
    )
    with pytest.raises(RuntimeError, match="no table"):
        serve(1, "done(channel)")


def test_a_trial_that_cannot_be_put_together_fails_and_the_others_run(serve, monkeypatch, capsys):
    prepare = DatabaseFiles.prepare

    def broken(self, claim, before):
        found = prepare(self, claim, before)
        return replace(found, params={1, 2}) if claim.number == 1 else found  # no JSON

    monkeypatch.setattr(DatabaseFiles, "prepare", broken)
    study = serve(3, "done(channel)")
    assert states(study) == ["complete", "failed", "complete"]
    assert ends(study, 1) == [("failed", "exception")]
    said = "it could not be started: TypeError: Object of type set is not JSON serializable"
    assert read_record(study).to_json()["trials"][1]["error"] == said
    assert capsys.readouterr().err.count(said) == 1


def test_a_trial_whose_folder_is_in_the_way_is_quarantined(serve, tmp_path):
    (tmp_path / "studies/s").mkdir(parents=True)
    (tmp_path / "studies/s/t00001").write_text("a file of somebody else's")
    study = serve(3, "done(channel)", max_attempts=2)
    assert states(study) == ["complete", "failed", "complete"]
    assert ends(study, 1) == [("lost", "lost")] * 2
    assert "it could not be started: " in read_record(study).to_json()["trials"][1]["error"]


def test_where_no_folder_can_be_made_it_is_the_machine(serve, tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/s").write_text("a file of somebody else's")
    with pytest.raises(OSError, match="studies/s"):
        serve(3, "done(channel)", max_attempts=2)
