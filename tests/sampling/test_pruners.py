"""Successive halving that remembers what it has read: Optuna's verdicts, in less time."""

from __future__ import annotations

import copy
import math
import pickle
import random
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from dlsearch.sampling.pruners import Hyperband, SuccessiveHalving
from dlsearch.sampling.rungs import Rung, RungValues

EPOCHS = 14
TRIALS = 80
SLOTS = 5
HALVINGS = [
    {"min_resource": 1, "reduction_factor": 3},
    {"min_resource": 1, "reduction_factor": 2, "min_early_stopping_rate": 1},
    {"min_resource": 2, "reduction_factor": 2, "bootstrap_count": 7},
    {"min_resource": 3, "reduction_factor": 4},
    {"min_resource": "auto", "reduction_factor": 2},
]
BRACKETS = [
    {"min_resource": 1, "max_resource": EPOCHS, "reduction_factor": 3},
    {"min_resource": 1, "max_resource": EPOCHS, "reduction_factor": 2, "bootstrap_count": 3},
    {"min_resource": 2, "max_resource": "auto", "reduction_factor": 2},
]
PAIRS = [
    *((SuccessiveHalving, SuccessiveHalvingPruner, each) for each in HALVINGS),
    *((Hyperband, HyperbandPruner, each) for each in BRACKETS),
]


class SilentStudies:
    """Studies in memory; Optuna says nothing of them."""

    def __init__(self) -> None:
        self._verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def create(self, pruner: BasePruner, direction: str = "maximize") -> optuna.Study:
        sampler = optuna.samplers.RandomSampler(seed=0)
        return optuna.create_study(
            study_name="halved", pruner=pruner, sampler=sampler, direction=direction
        )

    def close(self) -> None:
        optuna.logging.set_verbosity(self._verbosity)


@pytest.fixture
def studies():
    found = SilentStudies()
    yield found
    found.close()


def run_curves(study: optuna.Study, *, seed: int, first_step: int) -> list[list[bool]]:
    """Verdicts on random curves, several at once; some fail, and some wait and go on later."""
    chance = random.Random(seed)
    verdicts: list[list[bool]] = []
    running: list[optuna.Trial] = []
    paused: list[optuna.Trial] = []
    while len(verdicts) < TRIALS or running or paused:
        while len(running) < SLOTS and len(verdicts) < TRIALS:
            running.append(study.ask())
            verdicts.append([])
        if not running or (paused and chance.random() < 0.3):
            running.append(paused.pop(0))
        trial = chance.choice(running)
        said = verdicts[trial.number]
        if chance.random() < 0.05:
            running.remove(trial)
            paused.append(trial)
            continue
        # Some values are equal, and some are none.
        value = chance.choice([chance.random(), round(chance.random(), 1), 0.5, math.inf, math.nan])
        if chance.random() < 0.7:
            value = chance.random()
        trial.report(value, len(said) + first_step)
        said.append(trial.should_prune())
        is_failed = chance.random() < 0.02
        if said[-1] or is_failed or len(said) == EPOCHS:
            running.remove(trial)
            if is_failed:
                study.tell(trial, state=TrialState.FAIL)
            elif said[-1]:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, chance.random())
    return verdicts


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_verdicts_on_random_curves_are_optunas(ours, theirs, options, seed, direction, studies):
    wanted = run_curves(studies.create(theirs(**options), direction), seed=seed, first_step=1)
    study = studies.create(ours(**options), direction)
    found = run_curves(study, seed=seed, first_step=0)
    assert found == wanted
    assert any(any(each) for each in found)
    assert max(map(len, found)) > EPOCHS // 2  # some were promoted


class WatchedTrial(FrozenTrial):
    """A trial that counts how often its system attributes are read."""

    reads = 0

    @property
    def system_attrs(self) -> dict[str, Any]:
        self.reads += 1
        return self._system_attrs

    @system_attrs.setter
    def system_attrs(self, value: dict[str, Any]) -> None:
        self._system_attrs = value


class ListedStudy:
    """A study as far as :class:`RungValues` knows it."""

    def __init__(self) -> None:
        self.trials: list[WatchedTrial] = []

    def get_trials(self, deepcopy: bool) -> list[WatchedTrial]:
        assert not deepcopy
        return list(self.trials)

    def add(self, state: TrialState, *values: float) -> WatchedTrial:
        attributes = {f"completed_rung_{rung}": value for rung, value in enumerate(values)}
        value = values[-1] if state is TrialState.COMPLETE else None
        trial: Any = optuna.create_trial(state=state, value=value, system_attrs=attributes)
        trial.__class__ = WatchedTrial
        self.trials.append(trial)
        return trial


def test_a_trial_that_has_ended_is_read_once_and_an_open_one_until_it_ends():
    study: Any = ListedStudy()
    known = RungValues(study, lambda _, trial: 0)
    ended = [study.add(TrialState.PRUNED, 0.1 * each) for each in range(5)]
    still_open = study.add(TrialState.RUNNING, 0.25)
    for _ in range(3):
        known.update(study)
    assert [trial.reads for trial in ended] == [1] * 5
    first, second = Rung(0, "completed_rung_0"), Rung(0, "completed_rung_1")
    assert known.count(first) == 6
    assert known.count_better(first, 0.25, maximize=True) == 2
    assert known.count_better(first, 0.25, maximize=False) == 3
    assert known.count(second) == 0

    still_open.system_attrs["completed_rung_1"] = 0.7
    still_open.state = TrialState.COMPLETE
    known.update(study)
    reads = still_open.reads
    known.update(study)
    assert still_open.reads == reads
    assert (known.count(first), known.count(second)) == (6, 1)


def test_the_values_of_brackets_stay_apart():
    study: Any = ListedStudy()
    known = RungValues(study, lambda _, trial: int(trial.system_attrs["completed_rung_0"] > 1.0))
    for value in (0.5, 2.0, 3.0):
        study.add(TrialState.PRUNED, value)
    known.update(study)
    assert known.count(Rung(0, "completed_rung_0")) == 1
    assert known.count(Rung(1, "completed_rung_0")) == 2


@pytest.mark.parametrize(
    ("ours", "options"), [(SuccessiveHalving, HALVINGS[0]), (Hyperband, BRACKETS[0])]
)
def test_one_pruner_serves_two_studies_and_their_values_stay_apart(ours, options, studies):
    shared = ours(**options)
    first = [run_curves(studies.create(shared), seed=seed, first_step=0) for seed in (5, 6)]
    apart = [
        run_curves(studies.create(ours(**options)), seed=seed, first_step=0) for seed in (5, 6)
    ]
    assert first == apart


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
@pytest.mark.parametrize(
    ("ours", "options"), [(SuccessiveHalving, HALVINGS[0]), (Hyperband, BRACKETS[0])]
)
def test_a_copy_has_read_nothing_and_decides_the_same(ours, options, copied, studies):
    pruner = ours(**options)
    study = studies.create(pruner)
    wanted = run_curves(study, seed=7, first_step=0)
    again = copied(pruner)
    assert vars(again)["_known"] is None
    assert run_curves(studies.create(again), seed=7, first_step=0) == wanted
