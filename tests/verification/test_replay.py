"""Proposals are drawn, and verdicts repeated, from what they saw; whoever proposed beside them."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import sys

import pytest

from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.records.record import read_record
from dlsearch.report.load import REPLAY
from dlsearch.space.space import Space
from dlsearch.verification.proposals import draw_again
from dlsearch.verification.report_file import ABSENT
from dlsearch.verification.verdicts import judge_again
from tests.study.studies import complete, draft, failed, holder, opened

EPOCHS = 6
SPACE = [
    "optimizer.lr=tag(log, interval(1e-4, 1e-1))",
    "model.dropout=choice(0.0, 0.25, 0.5)",
    "optimizer.momentum=interval(0.0, 0.99)",
]
TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 4, "multivariate": True,
       "group": True, "constant_liar": True}  # fmt: skip
CMAES = {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1, "popsize": 4,
         "warn_independent_sampling": False}  # fmt: skip
QMC = {"_target_": "optuna.samplers.QMCSampler", "scramble": True}
NSGA2 = {"_target_": "optuna.samplers.NSGAIISampler", "population_size": 4}
RANDOM = {"_target_": "optuna.samplers.RandomSampler"}
GP = {"_target_": "optuna.samplers.GPSampler", "n_startup_trials": 4,
      "warn_independent_sampling": False}  # fmt: skip
GRID = {"_target_": "dlsearch.sampling.factory.grid"}
HALVING = {"_target_": "dlsearch.sampling.pruners.SuccessiveHalving", "min_resource": 1,
           "reduction_factor": 3}  # fmt: skip
HYPERBAND = {"_target_": "dlsearch.sampling.pruners.Hyperband", "min_resource": 1,
             "max_resource": EPOCHS, "reduction_factor": 3}  # fmt: skip
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 3}
PATIENT = {"_target_": "optuna.pruners.PatientPruner", "patience": 0, "wrapped_pruner": HALVING}


def value_of(params, epoch):
    """What a trial scores after an epoch: curves that cross, without any training."""
    distance = abs(math.log10(params["optimizer.lr"]) + 2.5) + params["optimizer.momentum"] / 3
    dip = 0.3 if epoch % 3 == 2 else 0.0
    return 1 / (1 + distance) - 0.5 ** (epoch + 1 + 4 * params["model.dropout"]) - dip


class Search:
    """A study that several handles serve, one step at a time in an order that a seed draws."""

    def __init__(self, folder, workers, n_trials, seed=0, function=None, **config):
        given = draft(n_trials, space=config.pop("space", SPACE), config={
            "sampler": config.pop("sampler", TPE), "pruner": config.pop("pruner", None),
            "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
        }, **config)  # fmt: skip
        if function is not None:
            given = dataclasses.replace(given, space=function)
        self.studies = [opened(folder, given) for _ in range(workers)]
        self.claimers = [opened(folder, given) for _ in range(workers)]  # as a worker's threads
        self.held = [None] * workers
        self.random = random.Random(seed)

    def run(self):
        working = list(range(len(self.held)))
        while working:
            which = self.random.choice(working)
            if not self.step(which):
                working.remove(which)
        return self.report()

    def step(self, which):
        study = self.studies[which]
        if self.held[which] is None:
            claim = self.claimers[which].claim(holder(f"w{which}"))
            if claim is None:
                return False
            self.held[which] = [claim, 0]
            return True
        claim, epoch = self.held[which]
        chance = self.random.random()
        if chance < 0.02:
            assert study.release(claim)
        elif chance < 0.04:
            assert study.finish(claim, failed("nan"))
        elif study.report(claim, epoch, value_of(claim.params, epoch)):
            assert study.finish(claim, {**complete(), "state": "pruned", "values": None})
        elif epoch + 1 == EPOCHS:
            assert study.finish(claim, complete(value_of(claim.params, epoch)))
        else:
            self.held[which][1] += 1
            return True
        self.held[which] = None
        return True

    def report(self):
        record = json.loads(json.dumps(read_record(self.studies[0]).to_json()))
        rows = [
            ABSENT | {key: trial[key] for key in REPLAY if trial.get(key) is not None}
            for trial in record["trials"]
        ]
        return {"study": record["study"], "replay": rows, "again": {"winner": record["winner"]}}

    def close(self):
        for study in [*self.studies, *self.claimers]:
            study.storage.close()


@pytest.fixture
def search(tmp_path):
    made = []

    def make(*arguments, **named):
        made.append(Search(tmp_path, *arguments, **named))
        return made[-1].run()

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def of_four_workers(tmp_path_factory):
    """The report of a study of four workers, as text."""
    search = Search(tmp_path_factory.mktemp("four"), 4, 16, pruner=MEDIAN)
    yield json.dumps(search.run())
    search.close()


@pytest.fixture
def report(of_four_workers):
    """The same, to be changed."""
    return json.loads(of_four_workers)


def test_proposals_are_drawn_again_alike(report):
    found = draw_again(report)
    assert (found.why_not, found.differs, found.unknown) == (None, [], [])
    assert found.drawn == 16
    assert any("-" in row["seen"].get("running", "") for row in report["replay"])


def test_verdicts_are_repeated_alike(report):
    found = judge_again(report)
    assert (found.why_not, found.differs, found.unknown) == (None, [], [])
    assert found.stops == sum(row["state"] == "pruned" for row in report["replay"]) > 0
    assert found.judged > found.stops, "also those that let a trial go on"


@pytest.mark.parametrize(
    ("sampler", "workers"),
    [
        (CMAES, 4),
        pytest.param(RANDOM, 4, marks=pytest.mark.storm),
        pytest.param(QMC, 1, marks=pytest.mark.storm),
        pytest.param(NSGA2, 1, marks=pytest.mark.storm),
        pytest.param(GP, 4, marks=pytest.mark.storm),  # it imports torch
    ],
    ids=["cmaes", "random", "qmc", "nsga2", "gp"],
)
def test_so_are_those_of_other_samplers(search, sampler, workers):
    report = search(workers, 16, seed=workers, sampler=sampler, pruner=MEDIAN)
    found = draw_again(report)
    assert (found.why_not, found.differs, found.unknown) == (None, [], [])
    assert found.drawn == 16
    assert "running" in json.dumps(report["replay"]) or workers == 1


@pytest.mark.parametrize(
    "pruner",
    [
        HALVING,
        pytest.param(HYPERBAND, marks=pytest.mark.storm),
        pytest.param(PATIENT, marks=pytest.mark.storm),
    ],
    ids=["halving", "hyperband", "patient"],
)
def test_so_are_those_of_other_pruners(search, pruner):
    report = search(4, 16, pruner=pruner)
    found = judge_again(report)
    assert (found.why_not, found.differs, found.unknown) == (None, [], [])
    assert found.stops == sum(row["state"] == "pruned" for row in report["replay"]) > 0
    assert found.judged > found.stops, "also those that let a trial go on"
    assert draw_again(report).differs == []


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [(TPE, MEDIAN), (TPE, HALVING), (CMAES, None), (TPE, HYPERBAND)],
    ids=["median", "halving", "cmaes", "hyperband"],
)
def test_so_are_those_of_a_comparison(search, sampler, pruner):
    """Each arm by what was seen of its own trials."""
    compared = {"compare": "model.dropout"}
    report = search(1 if sampler is CMAES else 3, 8, sampler=sampler, pruner=pruner, study=compared)
    assert len(report["replay"]) == 24
    found = draw_again(report)
    assert (found.why_not, found.differs, found.drawn) == (None, [], 24)
    if pruner is not None:
        verdicts = judge_again(report)
        assert (verdicts.why_not, verdicts.differs) == (None, [])
        assert verdicts.judged > 8


def test_a_changed_parameter_is_found(report):
    changed = copy.deepcopy(report)
    row = next(row for row in changed["replay"][6:] if row["state"] == "complete")
    row["params"]["optimizer.momentum"] /= 2
    found = draw_again(changed)
    assert row["number"] in [each.number for each in found.differs]
    (own,) = [each for each in found.differs if each.number == row["number"]]
    assert own.recorded == row["params"]
    assert own.again == report["replay"][row["number"]]["params"]


def test_a_changed_report_of_another_trial_is_found(report):
    for row in report["replay"]:
        if row["state"] == "complete":
            row["intermediate"] = [[epoch, -1.0] for epoch, _ in row["intermediate"]]
    found = judge_again(report)
    assert found.differs
    assert all(each.recorded and not each.again for each in found.differs)


def test_a_grid_is_drawn_again_alike(search):
    space = ["optimizer.lr=choice(0.001, 0.01)", "optimizer.momentum=choice(0.0, 0.5)",
             "model.dropout=choice(0.0, 0.25)"]  # fmt: skip
    found = draw_again(search(3, 8, space=space, sampler=GRID))
    assert (found.why_not, found.differs, found.drawn) == (None, [], 8)


def test_given_trials_and_duplicates_count_apart(search):
    space = ["optimizer.lr=choice(0.001, 0.01)", "optimizer.momentum=choice(0.0, 0.5)",
             "model.dropout=choice(0.0, 0.25, 0.5)"]  # fmt: skip
    given = {"optimizer.lr": 0.01, "optimizer.momentum": 0.5, "model.dropout": 0.0}
    report = search(3, 14, space=space, enqueue=[given])
    found = draw_again(report)
    assert (found.why_not, found.differs, found.unknown) == (None, [], [])
    assert any(row["duplicate_of"] is not None and row["seen"] for row in report["replay"])
    assert (found.given, found.drawn) == (1, 13)


@pytest.fixture
def function(tmp_path, monkeypatch):
    """A space of parameters that exist or not, with a constraint, as a function of the trial."""
    (tmp_path / "conditional.py").write_text(
        "def space(trial, cfg):\n"
        "    lr = trial.suggest_float('optimizer.lr', 1e-4, 1e-1, log=True)\n"
        "    trial.suggest_categorical('model.dropout', [0.0, 0.25, 0.5])\n"
        "    if trial.suggest_categorical('optimizer.nesterov', [True, False]):\n"
        "        trial.suggest_float('optimizer.momentum', 0.0, 0.99)\n"
        "        trial.set_constraint('slow', lr - 0.03)\n"
        "        return {'optimizer.name': 'sgd'}\n"
        "    return {'optimizer.momentum': 0.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    permission.grant(["conditional"])
    yield Space((), "conditional.space", ("conditional",))
    sys.modules.pop("conditional", None)


def test_so_are_those_of_a_function_with_conditions_and_constraints(search, function):
    report = search(3, 14, pruner=HALVING, function=function)
    assert any(row["infeasible"] for row in report["replay"])
    found = draw_again(report)
    assert (found.why_not, found.differs, found.drawn) == (None, [], 14)
    assert judge_again(report).differs == []


@pytest.mark.parametrize(
    ("sampler", "reason"),
    [
        ({"_target_": "mine.Sampler"}, "nothing is known of what mine.Sampler goes by"),
        (NSGA2, "optuna.samplers.NSGAIISampler goes by what workers wrote at the same time"),
    ],
    ids=["foreign", "nsga2"],
)
def test_a_sampler_that_cannot_be_repeated_is_named(report, sampler, reason):
    report["study"]["sampler"] = sampler
    found = draw_again(report)
    assert found.why_not is not None
    assert found.why_not.startswith(reason)
    assert found.differences_to_json() is None


def test_an_older_record_says_nothing(report):
    for row in report["replay"]:
        row["seen"] = row["verdict"] = None
    assert draw_again(report).why_not == "the record does not say what they saw"
    report["study"]["pruner"] = HALVING
    pruned = [row["number"] for row in report["replay"] if row["state"] == "pruned"]
    assert judge_again(report).unknown == pruned


def test_a_part_that_an_older_version_proposed_is_left_out(report):
    report["replay"][3]["seen"] = None
    found = draw_again(report)
    assert (found.drawn, found.unknown, found.differs) == (15, [3], [])
    report["study"]["sampler"] = CMAES
    assert "does not say what trial 3 saw" in str(draw_again(report).why_not)


@pytest.mark.parametrize(
    "seen",
    [{"trials": 99}, {"trials": 5, "running": "7"}, {"trials": 5, "running": "0-99999999999"},
     {"trials": 5, "running": "3,2"}, {"trials": -1}, {"trials": 5, "waiting": ["1"]}, [], "5"],
)  # fmt: skip
def test_what_cannot_have_been_seen_is_refused(report, seen):
    report["replay"][4]["seen"] = seen
    with pytest.raises(ConfigError, match="what trial 4 saw cannot be"):
        draw_again(report)


def test_a_value_that_was_not_searched_is_refused(report):
    report["replay"][4]["params"]["model.dropout"] = 0.33
    with pytest.raises(ConfigError, match=r"trial 4 has values that were not searched: '0\.33'"):
        draw_again(report)


def test_a_claim_stores_little(report):
    longest = max(len(json.dumps(row["seen"])) for row in report["replay"])
    assert longest < 80
    assert max(len(json.dumps(row["verdict"])) for row in report["replay"]) < 200
