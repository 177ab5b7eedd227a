"""What a proposal of our TPE costs beside Optuna's own, which proposes the same.

python benchmarks/samplers.py [--trials 100,1000,10000] [--dims 1,5,20] [--rounds 15] [--out FILE]

Both ask in turn, in studies that lie in memory and hold the same trials, with a new sampler for
each ask, as workers have it. A proposal that differs ends the benchmark. Times are of the process,
not of the clock: another program on the machine disturbs them less. What counts is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import machine
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import TrialState, create_trial

from dlsearch.sampling.fast_tpe.sampler import quicker

#: As in conf/sampler/tpe.yaml.
OPTIONS: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}
#: In turn, until there are enough.
KINDS: tuple[BaseDistribution, ...] = (
    FloatDistribution(1e-5, 1e-1, log=True),
    FloatDistribution(0.0, 0.9),
    IntDistribution(1, 8),
    CategoricalDistribution(["relu", "tanh", "gelu"]),
    FloatDistribution(1e-6, 1e-1, log=True),
    IntDistribution(8, 512, log=True),
)


def space(dims: int) -> dict[str, BaseDistribution]:
    """A mixed space."""
    return {f"p{n}": KINDS[n % len(KINDS)] for n in range(dims)}


def numbers_alone(dims: int) -> dict[str, BaseDistribution]:
    """A space of floats."""
    return {f"p{n}": FloatDistribution(0.0, 1.0) for n in range(dims)}


def sampler_of(number: int, *, ours: bool) -> BaseSampler:
    """A new one."""
    sampler = TPESampler(seed=number, **OPTIONS)
    return quicker(sampler) if ours else sampler


def filled(trials: int, dims: dict[str, BaseDistribution]) -> list[optuna.Study]:
    """Two studies with the same trials, a tenth of them pruned."""
    drawn = optuna.samplers.RandomSampler(seed=0)
    studies = [optuna.create_study() for _ in range(2)]
    for number in range(trials):
        params = {
            name: drawn.sample_independent(studies[0], None, name, dist)
            for name, dist in dims.items()
        }  # type: ignore[arg-type]
        pruned = number % 10 == 9
        trial = create_trial(
            state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
            value=None
            if pruned
            else float(sum(hash((name, str(value))) % 1000 for name, value in params.items())),
            params=params,
            distributions=dims,
            intermediate_values={0: float(number % 7)},
        )
        for study in studies:
            study.add_trial(trial)
    return studies


def asked(
    study: optuna.Study, dims: dict[str, BaseDistribution], *, ours: bool
) -> tuple[dict[str, Any], float]:
    """A proposal, and the milliseconds of the process that it took."""
    study.sampler = sampler_of(len(study.get_trials(deepcopy=False)), ours=ours)
    started = time.process_time()
    trial = study.ask(dims)
    took = 1e3 * (time.process_time() - started)
    study.tell(trial, float(trial.number % 13))
    return dict(trial.params), took


def measure(
    trials: int, dims: dict[str, BaseDistribution], rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of each ask, ours and Optuna's."""
    ours, theirs = filled(trials, dims)
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(rounds + 1):
        proposals = {}
        for mine in (True, False) if turn % 2 else (False, True):
            proposals[mine], took = asked(ours if mine else theirs, dims, ours=mine)
            if turn:  # the first reads what is there
                taken[mine].append(took)
        if proposals[True] != proposals[False]:
            raise SystemExit(f"the proposals differ: {proposals}")
    return taken[True], taken[False]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", default="100,1000,10000")
    parser.add_argument("--dims", default="1,2,5,10,20")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    rows = []
    for trials in map(int, given.trials.split(",")):
        for count in map(int, given.dims.split(",")):
            for name, dims in (("mixed", space(count)), ("floats", numbers_alone(count))):
                ours, theirs = measure(trials, dims, given.rounds)
                ratio = statistics.median(theirs) / statistics.median(ours)
                row = [
                    f"{trials:,}",
                    f"{count} {name}",
                    machine.spread(ours),
                    machine.spread(theirs),
                    f"{ratio:.2f}",
                ]
                rows.append(row)
    table = machine.table(
        ["trials", "dimensions", "**dlsearch**, ms", "Optuna, ms", "Optuna / dlsearch"], rows
    )
    n = f"median (least–most) of {given.rounds} asks, process time"
    machine.publish(f"{table}\n\n{machine.caption(n, ('dlsearch', 'optuna', 'numpy'))}", given.out)


if __name__ == "__main__":
    main()
