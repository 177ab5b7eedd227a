"""What a claim reads and writes: only what it needs, as Optuna would, all of it or nothing."""

from __future__ import annotations

import math
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState, create_trial

from dlsearch.records.record import read_record
from dlsearch.records.status import read_status
from dlsearch.sampling.factory import build_sampler
from dlsearch.storage.database import Storage
from dlsearch.storage.optuna_cache import TrialCache
from dlsearch.storage.trial_index import TrialIndex, params_key
from dlsearch.study.study import DUPLICATE, Study
from tests.study.studies import (
    complete,
    draft,
    failed,
    holder,
    nothing_is_left_of_a_result_that_fails,
    opened,
)

TPE = {
    "_target_": "optuna.samplers.TPESampler",
    "n_startup_trials": 5,
    "multivariate": True,
    "constant_liar": True,
}
DIST = {"x": optuna.distributions.IntDistribution(0, 9)}


def finished(study, value, state=TrialState.COMPLETE, **params):
    values = {"value": value} if state is TrialState.COMPLETE else {}
    study.optuna.add_trial(
        create_trial(state=state, params=params, distributions=DIST if params else {}, **values)
    )


@pytest.mark.storm
def test_trials_are_handed_out_as_optuna_does(tmp_path):
    rng = random.Random(0)
    rdb = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'o.db'}")
    ours, theirs = TrialCache(rdb), optuna.storages.get_storage(rdb)
    others = optuna.create_study(storage=optuna.storages.get_storage(rdb), study_name="s")
    mine = optuna.load_study(study_name="s", storage=ours)
    for _ in range(60):
        study = rng.choice([mine, others])
        running = [
            t.number
            for t in theirs.get_all_trials(study._study_id)
            if t.state is TrialState.RUNNING
        ]
        if running and rng.random() < 0.5:
            study.tell(rng.choice(running), rng.random())  # not in the order in which they began
        else:
            study.ask(DIST)
        if rng.random() < 0.2:
            study.enqueue_trial({"x": 1})
        for states in (
            None,
            (TrialState.COMPLETE,),
            (TrialState.WAITING,),
            (TrialState.RUNNING, TrialState.FAIL),
        ):
            wanted = theirs.get_all_trials(study._study_id, deepcopy=False, states=states)
            assert ours.get_all_trials(study._study_id, deepcopy=False, states=states) == wanted
    handed_out = ours.get_all_trials(mine._study_id, deepcopy=False)
    handed_out.clear()
    assert len(ours.get_all_trials(mine._study_id, deepcopy=False)) == len(mine.trials)


def test_what_was_read_under_the_lock_is_not_read_again(tmp_path):
    rdb = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'o.db'}")
    ours = TrialCache(rdb)
    others = optuna.create_study(storage=rdb, study_name="s")
    mine = optuna.load_study(study_name="s", storage=ours)
    assert mine.get_trials(deepcopy=False) == []
    with ours.still():
        others.ask(DIST)
        assert mine.get_trials(deepcopy=False) == []
        with ThreadPoolExecutor() as pool:
            assert (
                len(pool.submit(ours.get_all_trials, mine._study_id, deepcopy=False).result()) == 1
            )
    with pytest.raises(ZeroDivisionError), ours.still():
        raise ZeroDivisionError
    others.ask(DIST)
    assert len(mine.get_trials(deepcopy=False)) == 2


def test_parameters_are_written_together_as_optuna_writes_them(tmp_path):
    def asked(study, between):
        trial = study.ask()
        with between:
            return [
                trial.suggest_int("n", 1, 64, log=True),
                trial.suggest_categorical("c", ["a", None, 2]),
            ]

    rows = {}
    for name in ("ours", "theirs"):
        rdb = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / name}.db")
        cache = TrialCache(rdb)
        study = optuna.create_study(storage=cache, sampler=optuna.samplers.RandomSampler(seed=3))
        for _ in range(3):
            params = asked(study, cache.still() if name == "ours" else nullcontext())
            with rdb.engine.begin() as connection:
                cache.write_params(connection)
            assert list(study.trials[-1].params.values()) == params
        with rdb.engine.connect() as connection:
            query = (
                "SELECT trial_id, param_name, param_value, distribution_json"
                " FROM trial_params ORDER BY param_id"
            )
            rows[name] = connection.execute(sa.text(query)).all()
        trial = study.ask()
        with pytest.raises(ValueError, match="does not support dynamic value space"), cache.still():
            trial.suggest_categorical("c", ["a", "b"])
    assert rows["ours"] == rows["theirs"]
    assert len(rows["ours"]) == 6


def test_the_index_agrees_with_a_look_at_every_trial():
    rng = random.Random(0)
    index, plain = TrialIndex(), optuna.create_study()
    for _ in range(300):
        kind = rng.choice(["ask", "wait", "tell"])
        trials = plain.get_trials(deepcopy=False)
        running = [t.number for t in trials if t.state is TrialState.RUNNING]
        if kind == "wait":
            plain.enqueue_trial({"x": rng.randrange(10)})
        elif kind == "ask" or not running:
            plain.ask(DIST)
        else:
            state = rng.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
            plain.tell(
                rng.choice(running), 1.0 if state is TrialState.COMPLETE else None, state=state
            )
        if rng.random() < 0.5:
            continue  # others went on meanwhile
        trials = plain.get_trials(deepcopy=False)
        index.update(trials)
        for state in (TrialState.RUNNING, TrialState.WAITING):
            assert index.open(state) == [t for t in trials if t.state is state]
        for x in range(10):
            good = [
                t.number
                for t in trials
                if t.params == {"x": x} and t.state.name in ("COMPLETE", "PRUNED")
            ]
            assert index.tried(params_key({"x": x})) == min(good, default=None)


def test_parameters_of_different_types_are_different():
    assert len({params_key({"x": value}) for value in (1, 1.0, True, "1")}) == 4
    assert params_key({"a": 1, "b": 2}) == params_key({"b": 2, "a": 1})


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_best_and_the_counts_are_those_of_a_look_at_every_trial(tmp_path, direction):
    study = opened(tmp_path, draft(100, directions=[direction], study={"direction": direction}))
    assert study.best() is None
    sign = 1 if direction == "maximize" else -1
    for state in (TrialState.FAIL, TrialState.PRUNED):
        finished(study, None, state)
    for value in (-math.inf * sign, 0.5, 0.25, 0.5, math.inf * sign, math.inf * sign, 0.75):
        finished(study, value)
        trials = study.trials()
        done = [t for t in trials if t.state is TrialState.COMPLETE]
        assert study.best().number == min(done, key=lambda t: (-sign * t.value, t.number)).number
        assert study.counts() == {
            s: n for s in TrialState if (n := sum(t.state is s for t in trials))
        }
    assert read_status(study).to_json()["counts"] == {
        "complete": 7,
        "pruned": 1,
        "failed": 1,
        "running": 0,
        "waiting": 0,
    }
    assert read_status(study).to_json()["best"]["number"] == 6
    study.storage.close()


@pytest.mark.parametrize("sampler", [{"_target_": "optuna.samplers.RandomSampler"}, TPE])
def test_proposals_are_those_of_the_plain_way(tmp_path, sampler):
    given = draft(14, config={"sampler": sampler})
    study, plain = opened(tmp_path, given), optuna.create_study(direction="maximize")
    mine, theirs = [], []
    for number in range(14):
        claim = study.claim(holder())
        mine.append(claim.params)
        plain.sampler = build_sampler(sampler, space=study.space, study_seed=0, number=number)
        trial = plain.ask()
        theirs.append(study.space.suggest(trial))
        study.finish(claim, complete(math.sin(number)))
        plain.tell(trial, math.sin(number))
    assert mine == theirs
    study.storage.close()


def test_a_claim_asks_the_database_as_often_in_a_large_study_as_in_a_small_one(tmp_path):
    study = opened(tmp_path, draft(1000))
    asked = []
    sa.event.listen(
        study.storage.engine, "before_cursor_execute", lambda *given: asked.append(given[2])
    )

    def count():
        asked.clear()
        assert study.finish(study.claim(holder()), complete())
        return len(asked)

    count(), count()  # what Optuna reads once: the distributions, the directions
    small = count()
    for _ in range(60):
        finished(study, 0.5)
    study.trials()
    count()
    assert count() == small
    study.storage.close()


def test_of_a_claim_that_fails_nothing_is_left(tmp_path, monkeypatch):
    study = opened(tmp_path, draft(3))
    study.finish(study.claim(holder()), complete())
    with monkeypatch.context() as patch:
        patch.setattr(study.leases, "open", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            study.claim(holder())
    other = Study(Storage(study.storage.url), "s")
    assert [(t.state.name, len(t.params)) for t in other.trials()] == [("COMPLETE", 2)], (
        "no number was taken"
    )
    with monkeypatch.context() as patch:
        patch.setattr(study, "_duplicates", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            study.claim(holder())
    assert [(t.state.name, len(t.params)) for t in other.trials()] == [
        ("COMPLETE", 2),
        ("WAITING", 0),
    ]
    assert len(study.leases.rows()) == 1
    claim = study.claim(holder())  # the trial's own proposal counts
    assert (claim.number, claim.attempt, len(claim.params)) == (1, 1, 2)
    assert study.finish(claim, complete(0.9))
    for each in (study, other):
        assert [t.state.name for t in each.trials()] == ["COMPLETE"] * 2
        assert each.trials()[1].params == study.space.encode(claim.params)
    assert study.finish(study.claim(holder()), complete())
    assert study.claim(holder()) is None
    other.storage.close()
    study.storage.close()


def test_a_result_is_written_and_told_together(tmp_path, monkeypatch):
    study = opened(tmp_path, draft(1))
    nothing_is_left_of_a_result_that_fails(study, monkeypatch)
    study.storage.close()


def test_a_mended_trial_that_was_cached_as_finished_is_not_believed(tmp_path, monkeypatch):
    study = opened(tmp_path, draft(2, space=["model.dropout=choice(0.0, 0.5)"]))
    claim = study.claim(holder())

    def die(*_):
        assert study.trials()[0].state is TrialState.COMPLETE  # as this transaction sees it: cached
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(study, "_settle_duplicates", die)
        with pytest.raises(OSError, match="gone"):
            study.finish(claim, complete(0.7))
    assert study.trials()[0].state is TrialState.RUNNING
    assert study.finish(claim, failed("nan"))
    assert [t["state"] for t in read_record(study).to_json()["trials"]] == ["failed"]
    study.storage.close()


def test_others_can_write_while_the_sampler_works(tmp_path, monkeypatch):
    study, wrote = opened(tmp_path, draft(2)), []
    infer = optuna.samplers.RandomSampler.infer_relative_search_space

    def slow(sampler, *given):
        connection = sqlite3.connect(study.storage.path, timeout=0)
        connection.execute("UPDATE dlsearch_study SET seconds = seconds + 1")
        connection.commit()
        connection.close()
        wrote.append(True)
        return infer(sampler, *given)

    monkeypatch.setattr(optuna.samplers.RandomSampler, "infer_relative_search_space", slow)
    assert study.claim(holder()).number == 0
    assert wrote == [True]
    assert study.row().seconds == 1.0
    study.storage.close()


def test_duplicates_of_a_trial_that_somebody_else_finishes_are_settled(tmp_path):
    study = opened(tmp_path, draft(4, space=["model.dropout=choice(0.0, 0.5)"]))
    other = Study(Storage(study.storage.url), "s")
    first, second = study.claim(holder()), other.claim(holder("w2"))
    assert study.claim(holder()) is None  # two more, both duplicates of one that runs
    waiting = [t for t in other.trials() if DUPLICATE in t.user_attrs]
    assert len(waiting) == 2
    assert other.finish(second, complete(0.2))
    assert other.finish(first, complete(0.1))
    for each in (study, other):
        assert [t.state.name for t in each.trials()] == ["COMPLETE"] * 4
        assert {(t.params["model.dropout"], t.value) for t in each.trials()} == {
            (first.params["model.dropout"], 0.1),
            (second.params["model.dropout"], 0.2),
        }
    other.storage.close()
    study.storage.close()


def test_a_renewed_lease_does_not_expire(tmp_path):
    study = opened(tmp_path, draft(2), lease_s=30)
    kept, lost = study.claim(holder("w1")), study.claim(holder("w2"))
    with study.storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE dlsearch_attempt SET lease_until = 1"))
    study.leases.renew([kept.token], {})
    assert [a.number for a in study.reap()] == [lost.number]
    assert study.leases.live_numbers("trial") == {kept.number}
    assert study.finish(kept, complete()) is True
    assert study.finish(lost, complete()) is False
    study.storage.close()
