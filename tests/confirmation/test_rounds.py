"""Rounds of confirmation: exactly n replicas a finalist, one opening of the test set, whoever dies in between."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import sqlalchemy as sa

from dlsearch.confirmation.rounds import Rounds
from dlsearch.records.record import read_record
from dlsearch.records.status import read_status
from dlsearch.sampling.seeds import replica_seed
from dlsearch.storage.database import RoundRow, Storage, StudyRow
from dlsearch.study.study import Study
from tests.study.studies import complete, draft, failed, holder, opened

SETTINGS = {"top": 2, "seeds": 3, "racing": False, "refit": False}


def given(n_trials=4, **settings):
    return draft(
        n_trials,
        default={"optimizer.lr": 0.001, "model.dropout": 0.0},
        defaults={"optimizer.lr": 0.001, "model.dropout": 0.0},
        study={"confirm": {**SETTINGS, **settings}},
    )


def search(study, values=(0.5, 0.7, 0.9, 0.6)):
    """Run the trials that are left; trial n scores values[n]."""
    while (claim := study.claim(holder())) is not None:
        study.finish(claim, complete(values[claim.number]))


def done(value, best_epoch=2):
    return {
        **complete(value),
        "best_epoch": best_epoch,
        "history": [[0, 0.1], [1, value]],
        "state_sha256": "ab",
    }


def scores(*metrics):
    return {
        "state": "complete",
        "test": {"metrics": metrics[0], "n": 7, "first_layer": None, "each": list(metrics)},
    }


def confirm(study, score=lambda claim: 0.8 + claim.replica / 100, name="w1"):
    """Run what is left of the confirmation, the scoring included; the claims."""
    rounds, claims = Rounds(study), []
    while (claim := rounds.claim(holder(name))) is not None:
        claims.append(claim)
        if claim.kind == "test":
            row = study.ledger.opened("confirm", claim.finalist.trial_number, claim.seed)
            runs, _ = rounds.last().to_score(study.max_attempts)
            assert rounds.score(
                claim, scores(*({"test/accuracy": 0.75 + n / 100} for n in range(len(runs)))), row
            )
        else:
            value = score(claim) if claim.kind == "confirm" else 0.5
            assert study.finish(claim, done(value) if value is not None else failed("nan"))
    return claims


@pytest.fixture
def study(tmp_path):
    found = opened(tmp_path, given())
    yield found
    found.storage.close()


def test_nothing_is_confirmed_while_a_trial_may_run(study):
    rounds = Rounds(study)
    assert rounds.claim(holder()) is None
    claim = study.claim(holder())
    study.finish(claim, complete(0.5))
    assert rounds.claim(holder()) is None
    assert rounds.claim(holder(), target=0.4) is not None, (
        "the target was reached: the search is over"
    )


def test_replicas_are_paired_by_seed_and_fresh(study):
    search(study)
    claims = confirm(study)
    replicas = [c for c in claims if c.kind == "confirm"]
    assert [(c.finalist.trial_number, c.replica) for c in replicas] == [
        (n, i) for i in range(3) for n in (2, 1, 0)
    ]
    seeds = {i: {c.seed for c in replicas if c.replica == i} for i in range(3)}
    assert seeds == {i: {replica_seed(0, 1, i)} for i in range(3)}
    assert not {s for each in seeds.values() for s in each} & {
        t["seed"] for t in read_record(study).to_json()["trials"]
    }
    assert [c.finalist.default for c in replicas[:3]] == [False, False, True]
    assert [c.kind for c in claims[9:]] == ["test"]
    assert Rounds(study).claim(holder()) is None


def test_the_record_of_a_round(study):
    search(study)
    confirm(study, lambda c: {2: 0.80, 1: 0.85, 0: 0.5}[c.finalist.trial_number] + c.replica / 100)
    assert study.settle(interrupted=False, confirmed=Rounds(study).done())
    record = read_record(study).to_json()
    assert json.loads(json.dumps(record)) == record
    found = record["finalization"]
    assert {k: found[k] for k in ("round", "rounds", "top", "racing", "refit", "state")} == {
        "round": 1, "rounds": 1, "top": 2, "racing": False, "refit": False, "state": "complete",
    }  # fmt: skip
    assert found["seeds"] == [replica_seed(0, 1, i) for i in range(3)]
    assert [c["trial_number"] for c in found["configurations"]] == [2, 1, 0]
    assert [c["winner"] for c in found["configurations"]] == [False, True, False]
    assert [c["mean"] for c in found["configurations"]] == pytest.approx([0.81, 0.86, 0.51])
    assert [c["search_value"] for c in found["configurations"]] == [0.9, 0.7, 0.5]
    replica = found["configurations"][1]["replicas"][2]
    assert {k: replica[k] for k in ("replica", "seed", "state", "value", "epochs", "best_epoch", "state_sha256")} == {
        "replica": 2, "seed": found["seeds"][2], "state": "complete", "value": 0.87, "epochs": 5, "best_epoch": 2,
        "state_sha256": "ab",
    }  # fmt: skip
    assert replica["intermediate"] == [[0, 0.1], [1, 0.87]]
    assert [a["state"] for a in replica["attempts"]] == ["complete"]
    assert found["kept"] == {"trial_number": 1, "replica": 2}
    assert found["checkpoint"] == "studies/s/confirm/r1-t00001-s2/ckpt/best.ckpt"
    winner = record["winner"]
    assert (winner["number"], winner["confirmed"], winner["default"]) == (1, True, False)
    assert winner["value"] == pytest.approx(0.86)
    assert winner["search_value"] == 0.7
    (test,) = record["test"]
    assert (test["trial_number"], test["round"], test["seed"]) == (1, 1, found["seeds"][2])
    assert [r["metrics"]["test/accuracy"] for r in test["replicas"]] == [0.75, 0.76, 0.77]
    assert [r["seed"] for r in test["replicas"]] == found["seeds"]
    assert [o["scored"] for o in record["openings"]] == [True]
    status = read_status(study).to_json()
    assert status["state"] == "complete"
    assert status["confirmation"]["done"] == status["confirmation"]["planned"] == 9
    assert status["winner"] == winner


def test_the_choice_is_written_down_before_the_test_set_is_opened(study):
    search(study)
    rounds = Rounds(study)
    while (claim := rounds.claim(holder())).kind == "confirm":
        assert "choice" not in rounds.last().document
        study.finish(claim, done(0.8))
    assert study.ledger.rows() == []
    assert rounds.last().document["choice"] == {"winner": 0, "kept": 0, "dropped": {}}


def test_many_workers_run_each_replica_once(tmp_path):
    study = opened(tmp_path, given(seeds=5))
    search(study)
    errors, claims = [], []

    def work(name):
        try:
            own = Study(Storage(study.storage.url), "s")
            for _ in range(60):
                claims.extend(confirm(own, name=name))
            own.storage.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    names = [c.name for c in claims]
    assert len(set(names)) == len(names) == 16
    assert len(study.ledger.rows()) == 1
    study.storage.close()


def test_a_lost_replica_is_tried_again_and_a_failed_one_is_not(study):
    search(study)
    rounds = Rounds(study)
    first = rounds.claim(holder())
    study.lose(first, "killed by SIGKILL")
    again = rounds.claim(holder())
    assert (again.name, again.attempt, again.seed) == (first.name, 2, first.seed)
    assert study.finish(first, done(0.99)) is False, "a late result of a lost attempt"
    study.finish(again, failed("nan"))
    claims = confirm(study)
    assert again.name not in [c.name for c in claims]
    found = read_record(study).to_json()["finalization"]["configurations"]
    first = found[0]["replicas"][0]
    assert (first["state"], first["reason"], first["value"]) == ("failed", "nan", None)
    assert [a["state"] for a in found[0]["replicas"][0]["attempts"]] == ["lost", "failed"]
    assert [c["winner"] for c in found] == [False, True, False], "one without a failure wins"
    assert [len(c["replicas"]) for c in found] == [3, 3, 3]


def test_a_replica_that_keeps_dying_is_lost(study):
    search(study)
    rounds = Rounds(study)
    for attempt in (1, 2, 3):
        claim = rounds.claim(holder())
        assert (claim.name, claim.attempt) == ("r1-t00002-s0", attempt)
        study.lose(claim, "killed by SIGKILL")
    confirm(study)
    first = read_record(study).to_json()["finalization"]["configurations"][0]["replicas"][0]
    assert (first["state"], first["reason"], len(first["attempts"])) == ("lost", "lost", 3)


def test_an_interrupted_replica_does_not_count_as_lost(study):
    search(study)
    rounds = Rounds(study)
    for _ in range(5):
        study.release(rounds.claim(holder()))
    assert confirm(study)[0].attempt == 6
    assert Rounds(study).done()


def test_a_death_while_the_test_set_is_open_leaves_an_opening_without_a_result(study):
    search(study)
    rounds = Rounds(study)
    while (claim := rounds.claim(holder())).kind == "confirm":
        study.finish(claim, done(0.8))
    study.ledger.opened("confirm", 2, claim.seed)
    assert rounds.claim(holder("w2")) is None, "one at a time"
    study.lose(claim, "killed by SIGKILL")
    assert not rounds.done()
    (again,) = confirm(study)
    assert (again.kind, again.attempt) == ("test", 2)
    assert rounds.score(claim, scores({"test/accuracy": 1.0}), 1) is False
    record = read_record(study).to_json()
    assert [o["scored"] for o in record["openings"]] == [False, True]
    assert len(record["test"]) == 1
    assert read_status(study).to_json()["openings"] == 2
    assert rounds.done()


def test_a_death_between_the_score_and_the_end_of_its_attempt_opens_nothing_again(
    study, monkeypatch
):
    search(study)
    rounds = Rounds(study)
    while (claim := rounds.claim(holder())).kind == "confirm":
        study.finish(claim, done(0.8))
    row = study.ledger.opened("confirm", 2, claim.seed)

    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study.leases, "close", dies)
        with pytest.raises(KeyboardInterrupt):
            rounds.score(claim, scores(*[{"test/accuracy": 0.7}] * 3), row)
    study.lose(claim, "killed by SIGKILL")
    assert rounds.claim(holder()) is None
    assert rounds.done()
    assert len(study.ledger.rows()) == 1


def test_a_search_that_is_extended_is_confirmed_again_where_its_leaders_changed(tmp_path):
    study = opened(tmp_path, given())
    search(study)
    confirm(study)
    study = opened(tmp_path, given(6))
    assert not study.row().finished
    search(study, (0.5, 0.7, 0.9, 0.6, 0.1, 0.2))
    assert confirm(study) == [], "the same leaders"
    assert Rounds(study).done()
    study = opened(tmp_path, given(7))
    search(study, (0.5, 0.7, 0.9, 0.6, 0.1, 0.2, 0.95))
    assert not Rounds(study).done()
    claims = confirm(study)
    assert {c.round for c in claims} == {2}
    record = read_record(study).to_json()
    found = record["finalization"]
    assert (found["round"], found["rounds"]) == (2, 2)
    assert found["seeds"] == [replica_seed(0, 1, i) for i in range(3)]
    trained = [c.finalist.trial_number for c in claims if c.kind == "confirm"]
    assert trained == [6] * 3, "who was confirmed before keeps the replicas of then"
    assert [len(c["replicas"]) for c in found["configurations"]] == [3] * 3
    assert "confirm/r" in found["checkpoint"]
    runs, _ = Rounds(study).last().to_score(study.max_attempts)
    assert {run.name for run in runs} == {f"r2-t00006-s{i}" for i in range(3)}
    assert [c["mean"] for c in found["configurations"]] == [pytest.approx(0.81)] * 3
    assert [t["round"] for t in record["test"]] == [1, 2]
    assert [c["trial_number"] for c in found["configurations"]] == [6, 2, 0]


def test_more_seeds_are_a_new_round_and_fewer_are_none(tmp_path):
    study = opened(tmp_path, given())
    search(study)
    confirm(study)
    for settings in ({"seeds": 2}, {"top": 1}, {"racing": True}):
        study = opened(tmp_path, given(**settings))
        assert Rounds(study).done(), settings
        assert confirm(study) == []
    study = opened(tmp_path, given(seeds=4))
    added = [c for c in confirm(study) if c.kind == "confirm"]
    assert [(c.replica, c.seed) for c in added] == [(3, replica_seed(0, 2, 3))] * 3
    assert Rounds(study).last().number == 2
    study = opened(tmp_path, given(seeds=5))
    added = [c for c in confirm(study) if c.kind == "confirm"]
    assert [(c.replica, c.seed) for c in added] == [(4, replica_seed(0, 3, 4))] * 3
    runs, _ = Rounds(study).last().to_score(study.max_attempts)
    rounds = [(run.round, run.replica) for run in runs]
    assert rounds == [(1, 0), (1, 1), (1, 2), (2, 3), (3, 4)], "each in the folder of its round"
    assert [len(row) for row in values_by_finalist(study)] == [5] * 3


def values_by_finalist(study):
    now = Rounds(study).last()
    return [now.values(place) for place in range(len(now.field))]


def test_an_extended_search_trains_a_replica_that_failed_again(tmp_path):
    study = opened(tmp_path, given())
    search(study)
    confirm(study, lambda claim: None if claim.finalist.trial_number == 1 else 0.8)
    study = opened(tmp_path, given(5))
    search(study, (0.5, 0.7, 0.65, 0.6, 0.95))
    study = opened(tmp_path, given(5, top=3))
    claims = [c for c in confirm(study) if c.kind == "confirm"]
    assert {c.finalist.trial_number for c in claims} == {1, 4}


def test_after_a_change_of_the_config_all_are_trained_afresh(tmp_path):
    study = opened(tmp_path, given())
    search(study)
    confirm(study)
    changed = given(5)
    changed.config["study"]["allow_drift"] = True
    changed.config["model"] = {**changed.config.get("model", {}), "width": 17}
    study = opened(tmp_path, changed)
    search(study, (0.5, 0.7, 0.9, 0.6, 0.95))
    claims = [c for c in confirm(study) if c.kind == "confirm"]
    assert len(claims) == 9
    assert {c.seed for c in claims} == {replica_seed(0, 2, i) for i in range(3)}


def test_racing_runs_fewer_replicas(tmp_path):
    study = opened(tmp_path, given(6, top=3, seeds=5, racing=True))
    search(study, (0.5, 0.7, 0.9, 0.6, 0.8, 0.1))
    level = {2: 0.9, 4: 0.5, 1: 0.4, 0: 0.1}
    claims = confirm(
        study,
        lambda c: level[c.finalist.trial_number] * (1 + c.replica % 2 / 500) + c.seed % 7 / 1000,
    )
    found = read_record(study).to_json()["finalization"]["configurations"]
    assert [(c["trial_number"], c["dropped_after"], len(c["replicas"])) for c in found] == [
        (2, None, 5), (4, 2, 2), (1, 2, 2), (0, None, 5),
    ]  # fmt: skip
    assert len(claims) == 14 + 1
    assert read_status(study).to_json()["confirmation"]["planned"] == 14


#: Of 10,000 examples, by trial and replica: trial 4 has 10 fewer right than trial 2 on every seed.
COUNTS = {2: (9917, 9919), 4: (9907, 9909), 1: (9906, 9911), 0: (9900, 9900)}


def share_right(claim):
    count = COUNTS[claim.finalist.trial_number][claim.replica % 2]
    return float(np.float32(count / 10_000))


def test_a_round_of_an_earlier_version_goes_on_by_its_rule(tmp_path):
    study = opened(tmp_path, given(6, top=3, seeds=5, racing=True))
    search(study, (0.5, 0.7, 0.9, 0.6, 0.8, 0.1))
    rounds = Rounds(study)
    claim = rounds.claim(holder("w0"))
    document = rounds.last().document
    assert document.pop("rule") == 2
    with study.storage.engine.begin() as connection:
        connection.execute(sa.update(RoundRow).values(document=json.dumps(document)))
    assert study.finish(claim, done(share_right(claim)))
    confirm(study, share_right)
    found = read_record(study).to_json()["finalization"]
    assert "rule" not in found
    dropped = {c["trial_number"]: c["dropped_after"] for c in found["configurations"]}
    assert dropped[4] == 2, "equal differences, but for their last bits, were a spread"


def test_a_study_that_repeats_another_has_its_rule(tmp_path):
    opened(tmp_path, given(6, top=3, seeds=5, racing=True)).storage.close()
    storage = Storage(f"sqlite:///{tmp_path / 'dlsearch.db'}")
    with storage.engine.begin() as connection:
        document = json.loads(connection.execute(sa.select(StudyRow.document)).scalar_one())
        document["racing_rule"] = 1
        connection.execute(sa.update(StudyRow).values(document=json.dumps(document)))
    study = Study(storage, "s")
    search(study, (0.5, 0.7, 0.9, 0.6, 0.8, 0.1))
    confirm(study, share_right)
    found = read_record(study).to_json()["finalization"]
    assert found["rule"] == 1
    assert {c["trial_number"]: c["dropped_after"] for c in found["configurations"]}[4] == 2
    storage.close()


def test_the_default_configuration_where_no_trial_ran_it(tmp_path):
    study = opened(
        tmp_path,
        draft(3, defaults={"optimizer.lr": 5.0, "model.dropout": 0.1}, study={"confirm": SETTINGS}),
    )
    search(study)
    claims = confirm(study, lambda c: 0.9 if c.finalist.default else 0.1)
    own = [c for c in claims if c.finalist.default and c.kind == "confirm"]
    assert [c.name for c in own] == [f"r1-default-s{i}" for i in range(3)]
    assert all(c.params == {} for c in own), "the config as composed"
    record = read_record(study).to_json()
    assert record["winner"] == {
        "number": None, "params": {"optimizer.lr": 5.0, "model.dropout": 0.1}, "value": pytest.approx(0.9),
        "values": [pytest.approx(0.9)], "search_value": None, "confirmed": True, "default": True,
    }  # fmt: skip
    assert record["test"][0]["trial_number"] is None
    assert record["finalization"]["checkpoint"] == "studies/s/confirm/r1-default-s0/ckpt/best.ckpt"


def test_the_winner_is_trained_on_train_and_validation_where_that_is_asked(tmp_path):
    study = opened(tmp_path, given(refit=True))
    search(study)
    claims = confirm(study)
    assert [c.kind for c in claims[9:]] == ["refit", "test"]
    assert claims[9].epochs == 3, "the best epochs, counted from 0, are 2 on average"
    assert claims[9].name == "r1-refit"
    record = read_record(study).to_json()
    (test,) = record["test"]
    assert len(test["replicas"]) == 3
    assert test["refit"]["epochs"] == 3
    assert test["refit"]["metrics"] == {"test/accuracy": 0.78}
    found = record["finalization"]
    assert found["refit_run"]["state"] == "complete"
    assert found["refit_run"]["value"] == 0.5
    assert found["checkpoint"] == "studies/s/confirm/r1-refit/ckpt/best.ckpt"
    assert found["kept"] == {"trial_number": 2, "replica": 2}


def test_where_everything_fails_nothing_is_scored(study):
    search(study)
    assert [c.kind for c in confirm(study, lambda _: None)] == ["confirm"] * 9
    assert study.ledger.rows() == []
    assert not Rounds(study).done()
    assert Rounds(study).claim(holder()) is None
    record = read_record(study).to_json()
    assert record["finalization"]["state"] == "partial"
    assert record["finalization"]["kept"] is None
    assert (record["winner"]["number"], record["winner"]["confirmed"]) == (2, False)
    assert not study.settle(interrupted=False, confirmed=Rounds(study).done())


def test_a_scoring_that_fails_is_not_tried_again(study):
    search(study)
    rounds = Rounds(study)
    while (claim := rounds.claim(holder())).kind == "confirm":
        study.finish(claim, done(0.8))
    assert rounds.score(claim, failed("exception"), None)
    assert rounds.close().finished
    assert rounds.claim(holder()) is None
    assert not rounds.done()
    assert read_record(study).to_json()["finalization"]["state"] == "partial"
    assert read_record(study).to_json()["finalization"]["kept"] == {"trial_number": 2, "replica": 0}


@pytest.mark.parametrize("end", ["failed", "lost"])
def test_the_next_session_scores_again_and_trains_nothing(study, tmp_path, end):
    search(study)
    rounds = Rounds(study)
    while (claim := rounds.claim(holder())).kind == "confirm":
        study.finish(claim, done(0.8))
    assert not rounds.reopen(), "it is not over"
    study.ledger.opened("confirm", 2, claim.seed)
    if end == "failed":
        assert rounds.score(claim, failed("exception"), 1)
    else:
        for _ in range(3):
            study.lose(claim, "killed by SIGKILL")
            claim = rounds.claim(holder())
        assert claim is None
    assert rounds.claim(holder()) is None
    assert rounds.close().finished
    assert not study.settle(interrupted=False, confirmed=rounds.done())
    study = opened(tmp_path, given())
    assert Rounds(study).reopen()
    (again,) = confirm(study)
    assert (again.kind, again.round, again.attempt) == ("test", 1, 2 if end == "failed" else 4)
    assert study.settle(interrupted=False, confirmed=Rounds(study).done())
    record = read_record(study).to_json()
    assert [o["scored"] for o in record["openings"]] == [False, True]
    assert (record["finalization"]["state"], record["finalization"]["rounds"]) == ("complete", 1)
    assert record["winner"]["number"] == 2
    assert not Rounds(study).reopen(), "it is scored"


def test_where_everything_failed_there_is_nothing_to_score_again(study):
    search(study)
    confirm(study, lambda _: None)
    assert not Rounds(study).reopen()


def finished(tmp_path, **settings):
    """A finished study whose leaders were chosen in another way than today's: by an earlier version."""
    study = opened(tmp_path, given(**settings))
    search(study)
    confirm(study)
    assert study.settle(interrupted=False, confirmed=Rounds(study).done())
    now = Rounds(study).last()
    for each in now.document["finalists"]:
        each["params"]["optimizer.lr"] /= 2
    with study.storage.engine.begin() as connection:
        connection.execute(sa.update(RoundRow).values(document=json.dumps(now.document)))
    return study


def rounds_removed(study):
    """Before there were rounds, the winner was trained once more."""
    with study.storage.engine.begin() as connection:
        connection.execute(sa.delete(RoundRow))


@pytest.mark.parametrize("age", [lambda _: None, rounds_removed])
@pytest.mark.parametrize("settings", [{}, {"seeds": 2}, {"top": 1}, {"racing": True}])
def test_a_finished_study_is_left_alone(tmp_path, age, settings):
    age(finished(tmp_path))
    study = opened(tmp_path, given(**settings))
    assert Rounds(study).done()
    assert (study.claim(holder()), confirm(study)) == (None, [])
    assert study.settle(interrupted=True, confirmed=False), "Ctrl-C before its end changes nothing"
    assert len(study.ledger.rows()) == 1


@pytest.mark.parametrize(
    ("n_trials", "settings"), [(5, {}), (4, {"seeds": 4}), (4, {"top": 3}), (4, {"refit": True})]
)
def test_a_finished_study_of_which_more_is_asked_is_confirmed_again(tmp_path, n_trials, settings):
    finished(tmp_path)
    study = opened(tmp_path, given(n_trials, **settings))
    assert not study.row().finished
    search(study, (0.5, 0.7, 0.9, 0.6, 0.95))
    assert confirm(study)[0].round == 2
    assert study.settle(interrupted=False, confirmed=Rounds(study).done())
    assert len(study.ledger.rows()) == 2


def test_a_trial_that_is_claimed_later_reopens_a_finished_study(tmp_path):
    study = opened(tmp_path, given())
    for value in (0.5, 0.7):
        study.finish(study.claim(holder()), complete(value))
    rounds = Rounds(study)
    while (claim := rounds.claim(holder(), target=0.6)) is not None:  # the search ended early
        if claim.kind == "test":
            rounds.score(
                claim,
                scores(*[{"test/accuracy": 0.7}] * 3),
                study.ledger.opened("confirm", 1, claim.seed),
            )
        else:
            study.finish(claim, done(0.8))
    assert study.settle(interrupted=False, confirmed=rounds.done())
    study = opened(tmp_path, given())
    assert study.row().finished
    search(study)
    assert not study.row().finished
    assert {c.round for c in confirm(study)} == {2}


@pytest.mark.parametrize("change", [{"finalize": False}, {"objective": ["a", "b"]}])
def test_no_confirmation_where_none_is_wanted_or_the_objectives_are_several(tmp_path, change):
    several = (
        {"objectives": ["a", "b"], "directions": ["maximize", "minimize"]}
        if "objective" in change
        else {}
    )
    study = opened(tmp_path, draft(1, study=change, **several))
    study.finish(study.claim(holder()), {**complete(), "values": [0.5] * len(study.directions)})
    rounds = Rounds(study)
    assert rounds.claim(holder()) is None
    assert rounds.done()
    assert read_record(study).to_json()["finalization"] is None


def test_the_best_of_every_arm_is_confirmed_on_the_same_seeds(tmp_path):
    """Whatever `top` and `racing` say, and however far an arm is behind."""
    compared = draft(
        3,
        study={"confirm": {**SETTINGS, "racing": True, "seeds": 4}, "compare": "model.dropout"},
    )
    study = opened(tmp_path, compared)
    search(study, values=(0.1, 0.9, 0.5, 0.3, 0.8, 0.5, 0.2, 0.7, 0.4))
    claims = confirm(study, score=lambda claim: 0.9 - 0.3 * claim.finalist.params["model.dropout"])
    round_ = Rounds(study).last()
    assert [each.trial_number for each in round_.field] == [3, 1, 2]  # of two equals the first
    assert [each.params["model.dropout"] for each in round_.field] == [0.0, 0.25, 0.5]
    assert not any(each.default for each in round_.field)
    trained = [(c.finalist.trial_number, c.seed) for c in claims if c.kind == "confirm"]
    seeds = [replica_seed(0, 1, replica) for replica in range(4)]
    assert sorted(trained) == sorted((number, seed) for number in (1, 2, 3) for seed in seeds)
    assert round_.race.winner == 0
    assert round_.document["scored"]
    assert Rounds(study).done()
    assert read_record(study).to_json()["finalization"]["top"] == 1
    study.storage.close()


def test_an_arm_without_a_result_is_not_confirmed(tmp_path):
    study = opened(tmp_path, draft(2, study={"compare": "model.dropout"}))
    while (claim := study.claim(holder())) is not None:
        lost = claim.params["model.dropout"] == 0.25
        study.finish(claim, failed("nan") if lost else complete(0.5))
    confirm(study)
    assert [each.trial_number for each in Rounds(study).last().field] == [0, 2]
    study.storage.close()
