"""Arms of a comparison: each is the search that a study of its option alone would be."""

from __future__ import annotations

import collections
import dataclasses

import optuna
import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.sampling.arms import Arms
from dlsearch.sampling.seeds import trial_seed
from dlsearch.space.space import Space
from tests.study.studies import SPACE, complete, draft, holder, opened

KEY = "model.dropout"
OPTIONS = (0.0, 0.25, 0.5)
TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 3, "multivariate": True}


def space_of(*texts):
    return Space.from_sources(None, None, list(texts), groups=set())[0]


def comparison(n_trials=6, *, space=SPACE, key=KEY, sampler=TPE, pruner=None, **changes):
    study = {"compare": key, **changes.pop("study", {})}
    return draft(
        n_trials,
        space=space,
        study=study,
        config={"sampler": sampler, "pruner": pruner},
        **changes,
    )


def plain(value, n_trials=6, sampler=TPE, pruner=None):
    """The study that searches one option alone."""
    return draft(
        n_trials,
        space=["optimizer.lr=tag(log, interval(1e-4, 1e-1))"],
        config={"sampler": sampler, "pruner": pruner, "model": {"dropout": value}},
    )


def value_of(params):
    """A result that depends on what is searched, and differs between the arms."""
    return 1.0 - abs(params["optimizer.lr"] - 0.01) + params.get(KEY, 0.0)


def search(study):
    """Run all trials, one after the other; the claims."""
    claims = []
    while (claim := study.claim(holder())) is not None:
        claims.append(claim)
        study.finish(claim, complete(value_of(claim.params)))
    return claims


@pytest.fixture
def open_in(tmp_path):
    found = []

    def open_one(given, name="a"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        study = opened(folder, given)
        found.append(study)
        return study

    yield open_one
    for study in found:
        study.storage.close()


@pytest.mark.parametrize(
    "sampler",
    [
        TPE,
        {**TPE, "multivariate": False, "constant_liar": True},
        {"_target_": "optuna.samplers.RandomSampler"},
        {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 2},
    ],
    ids=["tpe", "independent", "random", "cmaes"],
)
def test_an_arm_is_the_search_of_its_option_alone(open_in, sampler):
    """The same parameters and the same seeds, to the last bit: it learns from its own trials."""
    study = open_in(comparison(6, sampler=sampler))
    claims = search(study)
    assert collections.Counter(claim.params[KEY] for claim in claims) == dict.fromkeys(OPTIONS, 6)
    for place, option in enumerate(OPTIONS):
        alone = search(open_in(plain(option, 6, sampler), f"alone-{place}"))
        arm = [claim for claim in claims if claim.params[KEY] == option]
        assert [claim.number for claim in arm] == [3 * n + place for n in range(6)]
        rates = [claim.params["optimizer.lr"] for claim in arm]
        # the objective of the arm is that of the study alone, moved by a constant
        assert rates == [claim.params["optimizer.lr"] for claim in alone]
        assert [claim.seed for claim in arm] == [claim.seed for claim in alone]
        assert [claim.seed for claim in arm] == [trial_seed(0, n) for n in range(6)]


@pytest.mark.parametrize(
    "pruner",
    [
        {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2},
        {"_target_": "dlsearch.sampling.pruners.SuccessiveHalving", "min_resource": 1},
        {"_target_": "dlsearch.sampling.pruners.Hyperband", "min_resource": 1, "max_resource": 5},
    ],
    ids=["median", "halving", "hyperband"],
)
def test_a_trial_is_compared_with_those_of_its_arm(open_in, pruner):
    """One arm is far ahead of the other: by the whole study's trials, all of that would stop."""

    def stops(study):
        found = {}
        while (claim := study.claim(holder())) is not None:
            values = [value_of(claim.params) - 1 / (1 + epoch) for epoch in range(5)]
            ends = [epoch for epoch in range(5) if study.report(claim, epoch, values[epoch])]
            found[claim.number] = (claim.params["optimizer.lr"], ends)
            study.finish(claim, complete(values[-1]))
        return found

    found = stops(open_in(comparison(8, pruner=pruner)))
    for place, option in enumerate(OPTIONS):
        alone = stops(open_in(plain(option, 8, pruner=pruner), f"alone-{place}"))
        assert {n: found[3 * n + place] for n in range(8)} == alone
    assert any(ends for _, ends in found.values())
    assert not all(ends for _, ends in found.values())


def test_many_claimants_and_deaths_leave_every_arm_its_budget(open_in):
    """Trials are lost, given back and taken again; an arm follows from the number all the while."""
    given = comparison(4)
    study = open_in(given)
    lost = study.claim(holder("w1"))
    back = study.claim(holder("w1", 1))
    study.claim(holder("dead"))
    study.release(back)
    study.lose(lost, "killed")
    other = open_in(given)  # a worker that joins
    other.reap("dead")
    claims = search(other)
    assert sorted(claim.number for claim in claims) == list(range(12))
    for claim in claims:
        assert claim.params[KEY] == OPTIONS[claim.number % 3]
    again = next(claim for claim in claims if claim.number == back.number)
    assert (again.params, again.seed) == (back.params, back.seed)
    assert study.claim(holder()) is None


def test_what_belongs_to_some_arms_is_searched_in_these(open_in):
    space = [*SPACE, "model.width=choice(1, 2, 3, 4)"]
    given = comparison(3, space=space)
    width = given.space["model.width"]
    dims = [*given.space.dimensions]
    dims[dims.index(width)] = dataclasses.replace(width, when={KEY: [0.25]})
    given.space = given.space.replace_dimensions(dims)
    study = open_in(given)
    for claim in search(study):
        assert ("model.width" in claim.params) == (claim.params[KEY] == 0.25)


def test_a_space_that_is_fixed_keeps_what_is_left():
    space = space_of(*SPACE, "model.width=choice(1, 2)", "model.depth=choice(1, 2)")
    by_name = {dim.name: dim for dim in space.dimensions}
    width = dataclasses.replace(by_name["model.width"], when={KEY: [0.25]})
    depth = dataclasses.replace(by_name["model.depth"], when={"model.width": [2]})
    space = space.replace_dimensions([by_name["optimizer.lr"], by_name[KEY], width, depth])
    assert [dim.name for dim in space.fix(KEY, 0.0).dimensions] == ["optimizer.lr"]
    left = {dim.name: dim.when for dim in space.fix(KEY, 0.25).dimensions}
    assert left == {"optimizer.lr": None, "model.width": None, "model.depth": {"model.width": [2]}}


@pytest.mark.parametrize(
    ("key", "texts", "what"),
    [
        ("model.depth", SPACE, "is not searched"),
        ("optimizer.lr", SPACE, "is no choice"),
        ("model.width", [*SPACE, "model.width=choice(3)"], "one option"),
    ],
)
def test_only_a_choice_that_is_searched_is_compared(key, texts, what):
    with pytest.raises(ConfigError, match=what) as caught:
        Arms.of_study(space_of(*texts), {"compare": key})
    assert caught.value.key == "study.compare"
    assert Arms.of_study(space_of(*texts), {}) is None


def test_the_view_of_an_arm_writes_to_the_study(open_in):
    study = open_in(comparison(2))
    search(study)
    arm = study._arm_studies.of(1)
    seen = arm.study.get_trials()
    assert [trial.number for trial in seen] == [0, 1]
    assert all(KEY not in trial.params and KEY not in trial.distributions for trial in seen)
    assert arm.study.best_trial.value == max(trial.value for trial in seen)
    assert len(arm.study.get_trials(states=[optuna.trial.TrialState.PRUNED])) == 0
