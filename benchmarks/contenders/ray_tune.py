"""Ray Tune over Lightning: two actors of one core, used again for one trial after another.

    python benchmarks/contenders/ray_tune.py FOLDER [--actors reused|fresh]

The grid is over the number of the configuration, so that all of the list are run. `fresh` is Ray's
default for a class: an actor a trial.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import work

#: what this process trains with: an actor that is used again has imported everything
_made: dict[str, Callable[[int], float]] = {}


def main() -> None:
    given, spec, folder = work.arguments(__doc__, actors=("reused", "fresh"))
    here = str(Path(__file__).resolve().parent)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = here  # the actors import this folder's modules
    import ray
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        import ray_tune

        tune.report({"val_accuracy": ray_tune.train(spec, folder, config["number"])})

    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / "ray"),
    )  # fmt: skip
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(len(spec["configs"]))))},
        tune_config=tune.TuneConfig(
            metric="val_accuracy", mode="max", reuse_actors=given.actors == "reused"
        ),
        run_config=tune.RunConfig(name="benchmark", storage_path=str(folder / "results")),
    )
    found = tuner.fit()
    ray.shutdown()
    if found.errors:
        raise SystemExit(f"{len(found.errors)} trials failed: {found.errors[0]}")


def train(spec: dict[str, Any], folder: Path, number: int) -> float:
    """One configuration, in an actor."""
    if "train" not in _made:
        import lit
        import torch

        torch.set_num_threads(1)
        _made["train"] = lit.make_training(spec, folder)
    return _made["train"](number)


if __name__ == "__main__":
    sys.exit(main())
