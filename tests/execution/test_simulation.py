"""Simulated studies: the bookkeeping of whole searches, with deaths, in a second and without a process."""

from __future__ import annotations

import time

import pytest

from dlsearch.execution.clients.in_memory import InMemoryClient, VirtualClock
from dlsearch.execution.clients.loopback import LoopbackClient
from dlsearch.execution.simulation import Simulator, synthetic_curve
from dlsearch.planning.open_study import document_of
from dlsearch.study.models import Claim
from dlsearch.study.states import AttemptKind, AttemptState, RecordedTrialState
from tests.study.studies import draft, holder

SAMPLERS = {
    "random": "optuna.samplers.RandomSampler",
    "tpe": "optuna.samplers.TPESampler",
}
PRUNER = {
    "_target_": "dlsearch.sampling.pruners.SuccessiveHalving",
    "min_resource": 1,
    "reduction_factor": 3,
    "bootstrap_count": 0,
}
SPACE = ["optimizer.lr=tag(log, interval(1e-4, 1e-1))", "model.dropout=interval(0.0, 0.5)"]
SEEDS = 3


def simulate(trials, *, sampler="random", deaths=0.0, loopback=False, seed=0):
    config = {"sampler": {"_target_": SAMPLERS[sampler]}, "pruner": PRUNER}
    confirm = {"top": 2, "seeds": SEEDS, "racing": False, "refit": True}
    given = draft(trials, space=SPACE, config=config, study={"confirm": confirm})
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    clock = VirtualClock()
    memory = InMemoryClient(document, clock=clock)
    client = LoopbackClient(memory) if loopback else memory
    holders = [holder("simulated", slot) for slot in range(4)]
    tally = Simulator(client, clock, holders, death_rate=deaths, seed=seed).run()
    return memory, tally


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("deaths", [0.0, 0.1])
def test_a_whole_study_ends_with_its_total_and_one_scoring(sampler, deaths):
    client, tally = simulate(60, sampler=sampler, deaths=deaths)
    counts = client.status().counts
    assert sum(counts.values()) == 60
    assert counts.keys() <= {
        RecordedTrialState.COMPLETE,
        RecordedTrialState.PRUNED,
        RecordedTrialState.FAILED,
    }
    assert counts[RecordedTrialState.PRUNED] > 10
    assert client.live_attempts() == []
    assert (tally.ends[AttemptState.LOST] > 0) is (deaths > 0)
    assert sum(tally.claims.values()) == len(client.attempts()) == sum(tally.ends.values())
    complete = [each for each in client.attempts() if each.state is AttemptState.COMPLETE]
    replicas = [each for each in complete if each.kind is AttemptKind.CONFIRM]
    assert len({each.number for each in replicas}) == len(replicas) == 2 * SEEDS + SEEDS
    assert [score["metrics"].keys() for score in client.test_scores() if score is not None] == [
        {"test/accuracy"}
    ]


def test_the_same_seed_gives_the_same_study():
    first, second = (simulate(40, deaths=0.1)[0] for _ in range(2))
    assert first.status() == second.status()
    assert [each.number for each in first.attempts()] == [each.number for each in second.attempts()]


def test_a_simulation_through_json_is_the_same():
    plain, sent = simulate(20), simulate(20, loopback=True)
    assert plain[0].status() == sent[0].status()
    assert plain[1] == sent[1]


@pytest.mark.storm
@pytest.mark.slow
def test_ten_thousand_trials_with_halving_take_less_than_a_minute_of_one_core():
    began = time.process_time()
    client, _ = simulate(10_000)
    assert time.process_time() - began < 60.0
    counts = client.status().counts
    assert sum(counts.values()) == 10_000
    assert counts[RecordedTrialState.PRUNED] > 8_000


def test_a_better_learning_rate_ends_higher():
    def last(rate):
        claim = Claim(AttemptKind.TRIAL, 0, 1, "t", {"optimizer.lr": rate}, 0, None)
        return synthetic_curve(claim, 9)[-1]

    assert last(0.003) > last(0.0001)
    assert last(0.003) > last(0.1)
