"""The invariants of a study: exact totals, fencing, retries, duplicates, truthful states; whoever dies in between."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.core.errors import ConfigError
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.records.record import read_record
from dlsearch.storage.database import Attempt, Storage
from dlsearch.study.study import Study
from tests.study.studies import complete, draft, failed, holder, opened


def states(study):
    return [t.state.name for t in study.trials()]


def test_the_total_is_exact_and_numbers_are_dense(tmp_path):
    study = opened(tmp_path, draft(7))
    seen = []
    while (claim := study.claim(holder())) is not None:
        seen.append(claim.number)
        assert study.finish(claim, complete(claim.number / 10))
    assert seen == list(range(7))
    assert states(study) == ["COMPLETE"] * 7
    assert study.best().number == 6


def test_many_workers_at_once_keep_the_total(tmp_path):
    opened(tmp_path, draft(25)).storage.close()
    claimed, errors = [], []

    def work(name):
        try:
            study = Study(Storage(f"sqlite:///{tmp_path / 'dlsearch.db'}"), "s")
            while (claim := study.claim(holder(name))) is not None:
                claimed.append(claim.number)
                study.finish(claim, complete(0.1))
            study.storage.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(claimed) == list(range(25))


def test_a_lost_lease_is_claimed_again_and_its_late_result_refused(tmp_path):
    study = opened(tmp_path, draft(1), lease_s=0.05)
    lost = study.claim(holder("w1"))
    time.sleep(0.1)
    again = study.claim(holder("w2"))
    assert (again.number, again.attempt) == (lost.number, 2)
    assert again.params == lost.params
    assert again.seed == lost.seed
    assert study.finish(lost, complete(0.9)) is False
    study.leases.lease_s = 30
    study.leases.renew([again.token], {})
    assert study.finish(again, complete(0.4)) is True
    assert study.trials()[0].value == 0.4
    assert [a.state for a in study.leases.rows()] == ["lost", "complete"]


def test_no_running_row_outlives_its_lease(tmp_path):
    study = opened(tmp_path, draft(2), lease_s=0.05)
    study.claim(holder())
    time.sleep(0.1)
    assert [a.number for a in study.reap()] == [0]
    assert states(study) == ["WAITING"]


def test_a_trial_that_keeps_dying_fails_as_lost(tmp_path):
    study = opened(tmp_path, draft(1))
    for attempt in (1, 2, 3):
        claim = study.claim(holder())
        assert claim.attempt == attempt
        study.lose(claim, "killed by SIGKILL")
    assert study.claim(holder()) is None
    (trial,) = read_record(study).to_json()["trials"]
    assert (trial["state"], trial["reason"]) == ("failed", "lost")
    assert [a["state"] for a in trial["attempts"]] == ["lost"] * 3


def test_an_interrupted_trial_waits_and_its_attempts_do_not_count_against_it(tmp_path):
    study = opened(tmp_path, draft(1))
    for _ in range(5):
        claim = study.claim(holder())
        study.release(claim)
        assert states(study) == ["WAITING"]
    claim = study.claim(holder())
    assert claim.attempt == 6
    study.finish(claim, complete())
    assert states(study) == ["COMPLETE"]


@pytest.mark.parametrize("reason", ["nan", "inf", "oom", "exception", "timeout"])
def test_a_failure_keeps_its_reason_and_is_never_best(tmp_path, reason):
    study = opened(tmp_path, draft(2))
    study.finish(study.claim(holder()), failed(reason))
    study.finish(study.claim(holder()), complete(-5.0))
    record = read_record(study).to_json()
    assert [(t["state"], t["reason"]) for t in record["trials"]] == [
        ("failed", reason),
        ("complete", None),
    ]
    assert record["winner"]["number"] == 1


def test_death_between_the_result_and_telling_optuna_is_mended(tmp_path):
    study = opened(tmp_path, draft(1))
    claim = study.claim(holder())
    study.leases.close(claim.token, "complete", reason=None, error=None, result=complete(0.7))
    assert states(study) == ["RUNNING"]
    study.reap()
    assert study.trials()[0].value == 0.7


def test_death_between_asking_and_the_attempt_is_mended(tmp_path):
    study = opened(tmp_path, draft(2))
    orphan = study.optuna.ask()
    claim = study.claim(holder())
    assert claim.number == orphan.number
    assert len(study.trials()) == 1


def test_duplicates_of_finished_and_running_trials_are_not_run_again(tmp_path):
    study = opened(tmp_path, draft(6, space=["model.dropout=choice(0.0, 0.5)"]))
    first, second = study.claim(holder()), study.claim(holder(slot=1))
    assert first.params != second.params
    # the space has two points: all others are duplicates
    assert study.claim(holder(slot=2)) is None
    study.finish(first, complete(0.1))
    study.finish(second, failed("nan"))
    record = read_record(study).to_json()
    assert len(record["trials"]) == 6
    assert {t["state"] for t in record["trials"]} <= {"complete", "failed"}
    for trial in record["trials"]:
        if trial["duplicate_of"] is not None:
            original = record["trials"][trial["duplicate_of"]]
            assert trial["params"] == original["params"]
            assert (trial["value"], trial["reason"]) == (original["value"], original["reason"])


def test_pruned_is_pruned(tmp_path):
    given = draft(
        4, config={"pruner": {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.5}}
    )
    study = opened(tmp_path, given)
    claim = study.claim(holder())
    assert study.report(claim, 0, 0.9) is False
    assert study.report(claim, 1, 0.1) is True
    study.finish(claim, {"state": "pruned"})
    assert read_record(study).to_json()["trials"][0]["state"] == "pruned"
    assert read_record(study).to_json()["trials"][0]["intermediate"] == [[0, 0.9], [1, 0.1]]


def test_enqueued_sets_and_the_default_come_first_exactly_as_given(tmp_path):
    sets = [{"optimizer.lr": 0.0123, "model.dropout": 0.25}, {"model.dropout": 0.5}]
    default = {"optimizer.lr": 0.001, "model.dropout": 0.0}
    study = opened(tmp_path, draft(4, default=default, enqueue=sets))
    claims = [study.claim(holder()) for _ in range(4)]
    assert claims[0].params == default
    assert claims[1].params == sets[0]
    assert claims[2].params["model.dropout"] == 0.5
    flags = [(t["default"], t["enqueued"]) for t in read_record(study).to_json()["trials"]]
    assert flags == [(True, False), (False, True), (False, True), (False, False)]


def test_budgets_end_claiming(tmp_path):
    study = opened(tmp_path, draft(10))
    assert study.claim(holder(), deadline=time.time() - 1) is None
    study.finish(study.claim(holder()), complete(0.95))
    assert study.claim(holder(), target=0.9) is None
    assert study.claim(holder(), target=0.99) is not None


def test_resuming_extends_the_total_and_refuses_another_study(tmp_path):
    study = opened(tmp_path, draft(2))
    while (claim := study.claim(holder())) is not None:
        study.finish(claim, complete())
    study = opened(tmp_path, draft(3))
    assert study.claim(holder()).number == 2
    other = draft(3, config={"model": {"dropout": 0.1, "width": 64}})
    document = document_of(other, {}, {"provenance": {}, "sha": {}})
    with pytest.raises(ConfigError, match=r"study\.name: .*model\.width"):
        open_study(study.storage, other, document, lease_s=30)
    allowed = draft(3, config={"model": other.config["model"]}, study={"allow_drift": True})
    again, existed = open_study(
        study.storage, allowed, document_of(allowed, {}, {"provenance": {}, "sha": {}}), lease_s=30
    )
    assert existed
    assert again.document["sessions"][-1]["drift"] == ["model.width"]


def test_proposals_depend_on_seed_and_number_alone(tmp_path):
    runs = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        study = opened(tmp_path / folder, draft(5))
        params = []
        for number in range(5):
            claim = study.claim(holder(f"w{number}"))
            params.append(claim.params)
            study.finish(claim, complete(0.5))
            if folder == "b":  # a new handle for every trial
                study = Study(Storage(study.storage.url), "s")
        runs.append(params)
    assert runs[0] == runs[1]
    assert len({tuple(p.items()) for p in runs[0]}) == 5


def test_another_program_s_database_is_refused(tmp_path):
    path = tmp_path / "other.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE customers (id INTEGER)"))
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        Storage(f"sqlite:///{path}")
    assert path.read_bytes() == before
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        Storage(f"sqlite:///{tmp_path / 'text.db'}")


def test_many_first_starts_make_one_schema(tmp_path):
    errors = []

    def start():
        try:
            Storage(f"sqlite:///{tmp_path / 'dlsearch.db'}").close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_states_of_optuna_agree_with_attempts(tmp_path):
    study = opened(tmp_path, draft(3))
    study.finish(study.claim(holder()), complete())
    study.finish(study.claim(holder()), {"state": "pruned"})
    study.finish(study.claim(holder()), failed("nan"))
    with study.storage.engine.connect() as connection:
        rows = connection.execute(
            sa.select(Attempt.number, Attempt.state).order_by(Attempt.number)
        ).all()
    wanted = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
    }
    assert [tuple(row) for row in rows] == [(t.number, wanted[t.state]) for t in study.trials()]
