"""The quicker TPE proposes what Optuna's does, to the last bit."""

from __future__ import annotations

import math
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from dlsearch.sampling.factory import build_sampler
from dlsearch.sampling.fast_tpe.sampler import Tpe, quicker
from dlsearch.space.space import Space
from dlsearch.storage.trial_index import open_cache
from tests.kinds import quick_if

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
            state = rng.choice(
                [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 3 + [TrialState.FAIL]
            )
            value = rng.choice([0.5, rng.random(), float("inf")])  # ties
            study.tell(ended, value if state is TrialState.COMPLETE else None, state=state)
    return asked


GROUP = {"multivariate": True, "group": True}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "options",
    [
        GROUP,
        {**GROUP, "constant_liar": False},
        {"multivariate": True},
        {"multivariate": False, "n_startup_trials": 3},
    ],
    ids=["as configured", "no liars", "no groups", "independent"],
)
@pytest.mark.parametrize("brackets", [False, True], ids=["", "hyperband"])
def test_proposals_are_optunas(direction, options, brackets):
    def pruner():
        return (
            optuna.pruners.HyperbandPruner(max_resource=9)
            if brackets
            else optuna.pruners.NopPruner()
        )

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


@dataclass(frozen=True)
class Story:
    """What a random study is like; the same for both samplers, and drawn from a seed."""

    seed: int
    direction: str
    several_objectives: bool
    constraints: str  # none, set (Trial.set_constraint), func (constraints_func), both
    changing_bounds: bool
    conditional: bool
    dimensions: int
    parallel: int
    late: bool  # parameters are suggested when others have ended since the ask
    brackets: bool
    one_sampler: bool  # for all asks; else a new one for each
    options: dict[str, Any]

    @classmethod
    def drawn(cls, seed: int) -> Story:
        rng = random.Random(seed)
        together = rng.choice(
            [{"multivariate": True, "group": True}] * 3 + [{"multivariate": False}, {}]
        )
        return cls(
            seed=seed,
            direction=rng.choice(["minimize", "maximize"]),
            several_objectives=rng.random() < 0.1,
            constraints=rng.choice(["none", "set", "func", "both"]),
            changing_bounds=rng.random() < 0.5,
            conditional=rng.random() < 0.6,
            dimensions=rng.choice([1, 2, 4, 9]),
            parallel=rng.choice([1, 3, 6]),
            late=rng.random() < 0.5,
            brackets=rng.random() < 0.25,
            one_sampler=rng.random() < 0.3,
            options={**together, "constant_liar": rng.random() < 0.7},
        )


class Telling:
    """Tells a story with either sampler, in a study of its own."""

    def __init__(
        self, story: Story, quick: bool, storage: optuna.storages.BaseStorage | None = None
    ) -> None:
        self.story = story
        self.quick = quick
        self.rng = random.Random(story.seed)
        directions = (
            [story.direction, "minimize"] if story.several_objectives else [story.direction]
        )
        pruner = (
            optuna.pruners.HyperbandPruner(max_resource=9)
            if story.brackets
            else optuna.pruners.NopPruner()
        )
        self.study = optuna.create_study(directions=directions, pruner=pruner, storage=storage)

    def sampler(self, seed: int) -> TPESampler:
        options = dict(self.story.options)
        if self.story.constraints in ("func", "both"):
            options["constraints_func"] = lambda trial: trial.user_attrs.get("constraints", [])
        return make(self.quick, seed, options)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number in range(self.story.dimensions):
            name, wider = f"p{number}", self.wider()
            match number % 6:
                case 0:
                    found[name] = trial.suggest_float(
                        name, 1e-5 * 10**wider, 1e-1 * 10**wider, log=True
                    )
                case 1:
                    found[name] = trial.suggest_int(name, 1 + wider, 9 + wider)
                case 2:
                    found[name] = trial.suggest_categorical(name, ["a", "b", None, 3])
                case 3:
                    found[name] = trial.suggest_float(name, -1 + wider, 1 + 2 * wider)
                case 4:
                    found[name] = trial.suggest_int(name, 8, 512 + 100 * wider, log=True)
                case 5:
                    found[name] = trial.suggest_float(name, 0.0, 1.0 + wider, step=0.1)
        if self.story.conditional and self.rng.random() < 0.5:
            found["momentum"] = trial.suggest_float("momentum", 0.0, 0.9 + self.wider())
            if self.rng.random() < 0.5:
                found["layers"] = trial.suggest_int("layers", 0, 5 + self.wider())
        return found

    def wider(self) -> int:
        return self.rng.choice([0, 0, 0, 1, 2]) if self.story.changing_bounds else 0

    def end(self, trial: optuna.Trial) -> None:
        values = [
            self.rng.choice([-1.0, 0.0, 0.5, self.rng.random() - 0.5, math.inf]) for _ in range(2)
        ]
        if self.story.constraints in ("set", "both"):
            trial.set_constraint("memory", values[0])
        if self.story.constraints in ("func", "both"):
            trial.set_user_attr("constraints", values)
        state = self.rng.choice(
            [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 2 + [TrialState.FAIL]
        )
        if self.story.several_objectives:
            self.study.tell(trial, [self.rng.random(), self.rng.random()])
        elif state is TrialState.COMPLETE:
            self.study.tell(trial, self.rng.choice([0.5, self.rng.random(), math.inf]))
        else:
            self.study.tell(trial, state=state)

    def told(self, trials: int = 40) -> list[dict[str, Any]]:
        proposals = []
        running: list[tuple[optuna.Trial, bool]] = []
        kept = self.sampler(self.story.seed)
        for number in range(trials):
            self.study.sampler = kept if self.story.one_sampler else self.sampler(number)
            trial = self.study.ask()
            has_parameters = not (self.story.late and self.rng.random() < 0.3)
            if has_parameters:
                proposals.append(self.suggest(trial))
                for step in range(0 if self.story.several_objectives else self.rng.randrange(4)):
                    trial.report(self.rng.choice([self.rng.random(), math.nan, 0.5]), step)
            running.append((trial, has_parameters))
            if self.rng.random() < 0.05:
                self.study.enqueue_trial({"p0": 1e-3})
            while len(running) > self.story.parallel:
                trial, has_parameters = running.pop(self.rng.randrange(len(running)))
                if not has_parameters:
                    proposals.append(self.suggest(trial))
                self.end(trial)
        return proposals


def check_story(seed: int, storages: tuple[Any, Any] = (None, None)) -> None:
    story = Story.drawn(seed)
    with warnings.catch_warnings():
        # of bounds that change, and of constraints_func, which is deprecated
        warnings.simplefilter("ignore")
        theirs = Telling(story, quick=False, storage=storages[0]).told()
        ours = Telling(story, quick=True, storage=storages[1]).told()
    assert ours == theirs, story


@pytest.mark.parametrize("seed", quick_if(range(24), lambda seed: seed < 8))
def test_proposals_of_random_studies_are_optunas(seed):
    check_story(seed)


@pytest.mark.storm
@pytest.mark.timeout(600)
def test_proposals_of_many_random_studies_are_optunas():
    for seed in range(100, 500):
        check_story(seed)


@pytest.mark.storm
@pytest.mark.parametrize("seed", range(50, 54))
def test_proposals_of_random_studies_in_our_storage_are_optunas(seed, tmp_path):
    theirs, ours = (
        optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/{name}.db") for name in ("theirs", "ours")
    )
    check_story(seed, (theirs, open_cache(ours)))
    for rdb in (theirs, ours):
        rdb.remove_session()
        rdb.engine.dispose()


def test_it_keeps_to_what_is_feasible_as_optunas_does():
    def story(quick):
        study = optuna.create_study()
        feasible = 0
        for number in range(50):
            study.sampler = make(quick, number, GROUP)
            trial = study.ask()
            x = trial.suggest_float("x", 0.0, 1.0)
            trial.set_constraint("at least", 0.8 - x)  # the best values violate it
            feasible += x >= 0.8
            study.tell(trial, x)
        return feasible

    assert story(True) == story(False)
    assert story(True) >= 20


def test_what_is_known_of_a_study_lives_and_travels_with_its_storage():
    study = optuna.create_study(sampler=make(True, 0, GROUP))
    for _ in range(12):
        trial = study.ask()
        suggest(trial)
        study.tell(trial, 0.5)
    copied = pickle.loads(pickle.dumps(study._storage))
    proposals = []
    for storage in (study._storage, copied):
        trial = optuna.load_study(
            study_name=study.study_name, storage=storage, sampler=make(True, 7, GROUP)
        ).ask()
        proposals.append(suggest(trial))
    assert proposals[0] == proposals[1]


def test_threads_may_ask_at_the_same_time():
    study = optuna.create_study(sampler=make(True, 0, GROUP))
    for number in range(60):
        trial = study.ask()
        suggest(trial)
        study.tell(trial, number)

    def ask(sampler):
        mine = optuna.load_study(
            study_name=study.study_name, storage=study._storage, sampler=sampler
        )
        trial = mine.ask()
        params = suggest(trial)
        mine.tell(trial, trial.number)
        return params

    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(ask, [make(True, number, GROUP) for number in range(80)]))
    assert len({str(params) for params in asked}) > 70
