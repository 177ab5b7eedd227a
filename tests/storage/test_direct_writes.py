"""What is read and written past Optuna's own storage is what that reads and writes."""

from __future__ import annotations

import math
import time

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.planning.draft import Draft
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.sampling.factory import build_sampler
from dlsearch.storage.database import Storage
from dlsearch.storage.optuna_cache import TrialCache
from dlsearch.storage.outlook import read_outlook
from dlsearch.study.study import Study
from tests.study.studies import complete, draft, holder, opened

#: Statements of a claim and its end.
MOST_STATEMENTS = 12
TRIALS_THERE = 1000
TPE = {
    "_target_": "optuna.samplers.TPESampler",
    "n_startup_trials": 3,
    "multivariate": True,
    "constant_liar": True,
}


def opened_at(url: str, given: Draft) -> Study:
    """An open study in a database."""
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    return open_study(Storage(url), given, document, lease_s=30.0)[0]


def fill_a_study(study: optuna.Study) -> None:
    """Trials of each state, with all that a trial can have."""
    for number in range(12):
        trial = study.ask()
        trial.suggest_float("rate", 1e-5, 1.0, log=True)
        trial.suggest_int("width", 2, 64, step=2)
        trial.suggest_categorical("kind", ["a", None, 1, 2.5, True])
        trial.set_user_attr("note", {"list": [1, None, "ü"]})
        study._storage.set_trial_system_attr(trial._trial_id, "known", number)
        if number % 3 == 0:
            for step, value in enumerate((0.5, math.inf, -math.inf, math.nan)):
                study._storage.set_trial_intermediate_value(trial._trial_id, step, value)
        if number % 4 == 0:
            study.tell(trial, [math.inf, -0.25])
        elif number % 4 == 1:
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 4 == 2:
            study.tell(trial, state=TrialState.FAIL)
    study.enqueue_trial({"rate": 0.1})


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A database of its own, in which nothing is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'direct.db'}"
    name = f"direct-{time.monotonic_ns()}"
    return request.getfixturevalue("postgres").database(name)


@pytest.fixture
def filled(url):
    rdb = optuna.storages.RDBStorage(url)
    study = optuna.create_study(
        storage=rdb,
        study_name="s",
        directions=["minimize", "maximize"],
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    fill_a_study(study)
    yield rdb, study._study_id
    rdb.remove_session()
    rdb.engine.dispose()


def shown(trials) -> list[str]:
    """As text, in which NaN equals NaN."""
    return [repr(trial) for trial in trials]


def test_trials_are_read_as_optuna_reads_them(filled):
    rdb, study_id = filled
    cache = TrialCache(rdb)
    theirs = rdb.get_all_trials(study_id)
    assert shown(cache.get_all_trials(study_id, deepcopy=False)) == shown(theirs)
    assert shown(map(cache.get_trial, [t._trial_id for t in theirs])) == shown(theirs)
    assert shown(TrialCache(rdb).get_trial(t._trial_id) for t in theirs) == shown(theirs)


def test_many_trials_are_read_at_once(filled):
    """More than are listed in a statement, and another study's in between."""
    rdb, study_id = filled
    other = optuna.create_study(storage=rdb, study_name="other")
    there = len(rdb.get_all_trials(study_id))
    rows = []
    for number in range(400):
        rows.append({"number": there + number, "study_id": study_id})
        rows.append({"number": number, "study_id": other._study_id})
    with rdb.engine.begin() as connection:
        insert = "INSERT INTO trials (number, study_id, state) VALUES (:number, :study_id, 'FAIL')"
        connection.execute(sa.text(insert), rows)
        attribute = (
            "INSERT INTO trial_user_attributes (trial_id, key, value_json)"
            " SELECT trial_id, 'of', CAST(study_id AS TEXT) FROM trials WHERE number > 100"
        )
        connection.execute(sa.text(attribute))
    theirs = rdb.get_all_trials(study_id)
    assert len(theirs) == there + 400
    assert theirs[-1].user_attrs == {"of": study_id}
    assert shown(TrialCache(rdb).get_all_trials(study_id, deepcopy=False)) == shown(theirs)


def test_what_is_not_there_is_an_error_as_with_optuna(filled):
    rdb, study_id = filled
    cache = TrialCache(rdb)
    cache.get_all_trials(study_id)
    with pytest.raises(KeyError):
        cache.get_all_trials(study_id + 1)
    with pytest.raises(KeyError):
        cache.get_trial(10_000)


def rows_of(study: Study, numbers: list[int]) -> list[tuple]:
    """What the tables have of trials, but for the ids and times."""
    query = sa.text(
        "SELECT t.number, t.state, t.datetime_start IS NULL, t.datetime_complete IS NULL,"
        " v.objective, v.value, v.value_type FROM trials t"
        " LEFT JOIN trial_values v ON v.trial_id = t.trial_id ORDER BY t.number, v.objective"
    )
    with study.storage.engine.connect() as connection:
        found = connection.execute(query).all()
    return [tuple(row)[1:] for row in found if row.number in numbers]


def end_by_optuna(study: Study, *, is_told: bool) -> None:
    """Whether Optuna ends the trials that follow, as where the sampler is told of it."""
    vars(study)["_is_sampler_told"] = is_told


def test_a_complete_trial_is_written_as_optuna_writes_it(url, recwarn):
    many_values = [[0.5], [3], [math.inf], [-math.inf], [math.nan], [0.5, 1.0]]
    study = opened_at(url, draft(2 * len(many_values)))
    for values in many_values:
        first, second = study.claim(holder()), study.claim(holder())
        result = {**complete(), "values": values}
        end_by_optuna(study, is_told=False)
        assert study.finish(first, result)
        end_by_optuna(study, is_told=True)
        assert study.finish(second, result)
        assert rows_of(study, [first.number]) == rows_of(study, [second.number]), values
    study.storage.close()


def test_a_pruned_trial_is_written_as_optuna_writes_it(url):
    many_reports = [[], [0.5, 0.25], [0.5, math.nan], [0.5, math.inf]]
    pruned = {"state": "pruned", "reason": None, "error": None, "values": None}
    study = opened_at(url, draft(2 * len(many_reports)))
    for reports in many_reports:
        first, second = study.claim(holder()), study.claim(holder())
        for is_told, claim in ((False, first), (True, second)):
            for epoch, value in enumerate(reports):
                study.report(claim, epoch, value)
            end_by_optuna(study, is_told=is_told)
            assert study.finish(claim, pruned)
        assert rows_of(study, [first.number]) == rows_of(study, [second.number]), reports
    study.storage.close()


def copy_the_first_trial(study: Study, copies: int) -> None:
    """As rows: Optuna takes ten seconds for a thousand."""
    numbers = [{"number": number} for number in range(1, copies + 1)]
    with study.storage.engine.begin() as connection:
        for copied in (
            "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete)"
            " SELECT :number, study_id, state, datetime_start, datetime_complete"
            " FROM trials WHERE number = 0",
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
            " SELECT :number + 1, param_name, param_value, distribution_json"
            " FROM trial_params WHERE trial_id = 1",
            "INSERT INTO trial_values (trial_id, objective, value, value_type)"
            " SELECT :number + 1, objective, value, value_type"
            " FROM trial_values WHERE trial_id = 1",
        ):
            connection.execute(sa.text(copied), numbers)


@pytest.mark.parametrize("sampler", [{"_target_": "optuna.samplers.RandomSampler"}, TPE])
def test_a_claim_and_its_end_are_few_statements_whatever_the_study_has(tmp_path, sampler):
    study = opened(tmp_path, draft(TRIALS_THERE + 10, config={"sampler": sampler}))
    assert study.finish(study.claim(holder()), complete())
    copy_the_first_trial(study, TRIALS_THERE)
    assert len(study.trials()) == TRIALS_THERE + 1
    statements = []
    sa.event.listen(
        study.storage.engine,
        "before_cursor_execute",
        lambda *given: statements.append(given[2]),
    )
    for turn in range(3):
        statements.clear()
        assert study.finish(study.claim(holder()), complete(turn / 10))
    notes_of_the_sampler = [
        each for each in statements if each.startswith("INSERT INTO trial_system_attributes")
    ]
    assert len(statements) <= MOST_STATEMENTS + len(notes_of_the_sampler)
    study.storage.close()


def test_others_that_run_are_known_to_a_proposal(url):
    """Two claimants in turns, and plain Optuna with the same trials, propose the same."""
    given = draft(12, config={"sampler": TPE})
    first = opened_at(url, given)
    second = Study(first.storage, "s")
    plain = optuna.create_study(direction="maximize")
    ours, theirs = [], []
    for turn in range(6):
        claims = [first.claim(holder("w1")), second.claim(holder("w2"))]
        trials = []
        for claim in claims:
            plain.sampler = build_sampler(TPE, space=first.space, study_seed=0, number=claim.number)
            trials.append(plain.ask())
            theirs.append(first.space.suggest(trials[-1]))
            ours.append(claim.params)
        for study, claim, trial in zip((second, first), claims, trials, strict=True):
            value = math.sin(claim.number + turn)
            assert study.finish(claim, complete(value))
            plain.tell(trial, value)
    assert ours == theirs
    first.storage.close()


def test_the_outlook_says_when_there_is_more_to_do(url):
    study = opened_at(url, draft(5))

    def is_clear() -> bool:
        return read_outlook(study.storage, "s", study.id).is_clear

    assert is_clear()
    claim = study.claim(holder())
    assert is_clear(), "it is held"
    assert read_outlook(study.storage, "s", study.id).trials == 1
    with study.storage.begin() as connection:
        connection.execute(sa.text("UPDATE dlsearch_attempt SET lease_until = 1"))
    assert not is_clear(), "its lease has run out"
    assert study.release(claim)
    assert not is_clear(), "it waits"
    again = study.claim(holder())
    assert (again.number, again.attempt) == (0, 2)
    assert is_clear()
    with study.storage.begin() as connection:
        connection.execute(sa.text("DELETE FROM dlsearch_attempt"))
    assert not is_clear(), "nobody holds it"
    study.storage.close()
