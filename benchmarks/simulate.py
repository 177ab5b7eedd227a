"""Ten thousand simulated trials through sampler, pruner and confirmation, in memory: seconds of this machine.

python benchmarks/simulate.py                       # 10,000 trials, random, successive halving
python benchmarks/simulate.py --trials 500 --sampler tpe
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import machine
import storage

from dlsearch.execution.clients.in_memory import InMemoryClient, VirtualClock
from dlsearch.execution.simulation import Simulator
from dlsearch.planning.open_study import document_of
from dlsearch.storage.attempts import Holder

EPOCHS = 9
PRUNERS = {
    "threshold": {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.6, "n_warmup_steps": 1},
    "sha": {
        "_target_": "dlsearch.sampling.pruners.SuccessiveHalving",
        "min_resource": 1,
        "reduction_factor": 3,
        "min_early_stopping_rate": 0,
        "bootstrap_count": 0,
    },
}
CONFIRM = {"top": 3, "seeds": 5, "racing": True, "refit": False}


def simulate(
    trials: int, sampler: str, pruner: str, slots: int, death_rate: float
) -> dict[str, Any]:
    """What a study of `trials` trials came to, and how long it took."""
    draft = storage.draft(sampler)
    draft.config["pruner"] = PRUNERS[pruner]
    draft.config["trainer"]["max_epochs"] = EPOCHS
    draft.config["study"].update(n_trials=trials, finalize=True, confirm=CONFIRM)
    document = document_of(draft, {}, {"provenance": {}, "sha": {"env": "", "code": ""}})
    clock = VirtualClock()
    client = InMemoryClient(document, clock=clock)
    holders = [Holder("simulated", "bench", 1, slot, f"cpu:{slot}") for slot in range(slots)]
    began = time.perf_counter()
    tally = Simulator(client, clock, holders, death_rate=death_rate).run()
    seconds = time.perf_counter() - began
    status = client.status()
    return {
        "trials": trials,
        "sampler": sampler,
        "pruner": pruner,
        "seconds": round(seconds, 1),
        "counts": dict(status.counts),
        "claims": dict(tally.claims),
        "epochs": tally.epochs,
        "virtual_hours": round(tally.virtual_s / 3600, 2),
        "best": status.best_value,
        "openings": len(client.test_scores()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", choices=list(storage.SAMPLERS), default="random")
    parser.add_argument("--pruner", choices=list(PRUNERS), default="threshold")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--deaths", type=float, default=0.02, help="chance that an attempt dies")
    given = parser.parse_args()
    found = simulate(given.trials, given.sampler, given.pruner, given.slots, given.deaths)
    print(f"{machine.cpu()}, {machine.cores()} cores")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
