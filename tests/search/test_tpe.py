"""The quicker TPE proposes what Optuna's does, to the last bit."""

from __future__ import annotations

import random
import warnings

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from dlsearch.search.samplers import build_sampler
from dlsearch.search.space import Space
from dlsearch.search.tpe import Tpe, quicker

ALWAYS = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "depth": IntDistribution(1, 9),
    "width": IntDistribution(8, 512, log=True),
    "act": CategoricalDistribution(["relu", "tanh", "gelu"]),
    "one": IntDistribution(3, 3),
}
SOMETIMES = {"momentum": FloatDistribution(0.0, 0.9), "step": FloatDistribution(0.0, 1.0, step=0.1)}


def suggest(trial):
    found = {name: trial._suggest(name, dist) for name, dist in ALWAYS.items()}
    if found["act"] != "relu":
        found |= {name: trial._suggest(name, dist) for name, dist in SOMETIMES.items()}
    return found


def make(quick, seed, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(seed=seed, **options)
    return quicker(sampler) if quick else sampler


def proposals(quick, direction, options, pruner, n=40):
    """A study with trials that are pruned, failed, running, and told out of order."""
    study = optuna.create_study(direction=direction, pruner=pruner)
    rng, open_, asked = random.Random(3), [], []
    for number in range(n):
        study.sampler = make(quick, number, options)  # a new one for every ask, as workers have it
        assert (type(study.sampler) is Tpe) is quick
        trial = study.ask()
        asked.append(suggest(trial))
        open_.append(trial)
        for step in range(rng.randrange(4)):
            trial.report(rng.choice([rng.random(), float("nan")]), step)
        while len(open_) > 3:
            ended = open_.pop(rng.randrange(len(open_)))
            state = rng.choice([TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 3 + [TrialState.FAIL])
            value = rng.choice([0.5, rng.random(), float("inf")])  # ties
            study.tell(ended, value if state is TrialState.COMPLETE else None, state=state)
    return asked


GROUP = {"multivariate": True, "group": True}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "options",
    [GROUP, {**GROUP, "constant_liar": False}, {"multivariate": True}, {"multivariate": False, "n_startup_trials": 3}],
    ids=["as configured", "no liars", "no groups", "independent"],
)
@pytest.mark.parametrize("brackets", [False, True], ids=["", "hyperband"])
def test_proposals_are_optunas(direction, options, brackets):
    def pruner():
        return optuna.pruners.HyperbandPruner(max_resource=9) if brackets else optuna.pruners.NopPruner()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        theirs, ours = (proposals(quick, direction, options, pruner()) for quick in (False, True))
    assert ours == theirs
    assert len({str(each) for each in ours}) > 15


def test_mostly_pruned_trials_are_ranked_as_optuna_ranks_them():
    def story(quick):
        study = optuna.create_study()
        rng = random.Random(1)
        for number in range(40):
            study.sampler = make(quick, number, GROUP)
            trial = study.ask()
            suggest(trial)
            for step in range(number % 3):
                trial.report(rng.random(), step)
            study.tell(trial, state=TrialState.PRUNED) if number else study.tell(trial, 0.5)
        return [trial.params for trial in study.trials]

    assert story(True) == story(False)


def test_what_it_was_not_written_for_is_optunas():
    def story(quick):
        study = optuna.create_study(directions=["minimize", "maximize"])
        for number in range(25):
            study.sampler = make(quick, number, GROUP)
            trial = study.ask()
            params = suggest(trial)
            study.tell(trial, [params["lr"], params["depth"]])
        return [trial.params for trial in study.trials]

    assert story(True) == story(False)


def test_a_config_gets_it():
    space = Space.from_sources({"optimizer.lr": "interval(0, 1)"}, None, [])[0]
    node = {"_target_": "optuna.samplers.TPESampler"}
    assert type(build_sampler(node, space=space, study_seed=0, number=0)) is Tpe
