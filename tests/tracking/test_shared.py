"""Several machines, each with a store and a shipper of its own, and one MLflow: one study in it."""

from __future__ import annotations

from dlsearch.tracking import layout
from dlsearch.tracking.journal import Journal
from dlsearch.tracking.mlflow.pump import Pump
from dlsearch.tracking.mlflow.sender import Sender
from tests.tracking.conftest import EXPERIMENT

TAGS = {layout.STUDY_NAME: "s", layout.STUDY_UUID: "0" * 32}
STUDY = "studies/s/journal.jsonl"


def ship(store, uri) -> Pump:
    pump = Pump(store, Sender(store, uri))
    pump.round(full=True)
    return pump


def runs(client):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def trial(store, number, tags=TAGS) -> None:
    with Journal(store / f"studies/s/t{number:05d}/journal.a1.jsonl") as journal:
        journal.open("trial", f"t{number}", EXPERIMENT, STUDY, tags)
        journal.metrics({"val/loss": 0.5}, 1)
        journal.status("FINISHED")


def test_a_trial_lies_below_the_study_that_another_machine_journals(store, uri, client, tmp_path):
    other = tmp_path / "other"
    with Journal(store / STUDY) as journal:
        journal.open("study", "study", EXPERIMENT, None, TAGS)
    ship(store, uri)
    trial(other, 0)
    assert ship(other, uri).idle
    found = runs(client)
    assert found["t0"].data.tags["mlflow.parentRunId"] == found["study"].info.run_id
    assert found["t0"].info.status == "FINISHED"


def test_it_waits_for_the_studys_run_where_a_server_will_get_it(store, uri, client, tmp_path):
    other = tmp_path / "other"
    trial(other, 0)
    sender = Sender(other, uri)
    assert sender.client  # it is connected
    # what is asked of the database is asked of a server all the same
    sender.uri = "http://somewhere"
    pump = Pump(other, sender)
    assert pump.round(full=True) == 0
    assert not pump.idle
    assert runs(client) == {}
    with Journal(store / STUDY) as journal:
        journal.open("study", "study", EXPERIMENT, None, TAGS)
    ship(store, uri)
    assert pump.round(full=True) == 3
    found = runs(client)
    assert found["t0"].data.tags["mlflow.parentRunId"] == found["study"].info.run_id


def test_a_database_that_no_other_machine_writes_is_not_waited_for(tmp_path, uri, client):
    trial(tmp_path / "other", 0)
    assert ship(tmp_path / "other", uri).idle
    assert "mlflow.parentRunId" not in runs(client)["t0"].data.tags


def test_the_confirmation_has_one_run_and_what_all_say_of_it_stands_there_once(
    store, uri, client, tmp_path
):
    for each in (store, tmp_path / "other"):
        with Journal(each / layout.confirm_folder("s") / "journal.jsonl") as journal:
            journal.open("confirm", "confirm", EXPERIMENT, None, TAGS)
            journal.metrics({"objective": 0.75}, 1, at_ms=1_700_000_000_000)
            journal.status("FINISHED")
        assert ship(each, uri).idle
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert [
        (m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, "objective")
    ] == [(0.75, 1_700_000_000_000)]
