"""The Hydra Optuna sweeper over Lightning, with Hydra's basic launcher or two processes of joblib.

    python benchmarks/contenders/hydra_sweep.py FOLDER [--launcher basic|joblib]

Its grid sampler goes over the number of the configuration: an explicit list of sets is more than
the sweeper takes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import work
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

_made: dict[str, Callable[[int], float]] = {}


def train(cfg: DictConfig) -> float:
    """One configuration; a process that is used again has imported everything."""
    if "train" not in _made:
        import lit

        folder = Path(cfg.folder)
        _made["train"] = lit.make_training(json.loads((folder / "spec.json").read_text()), folder)
    return _made["train"](int(cfg.number))


@hydra.main(config_name="benchmark", version_base="1.3", config_path=None)
def sweep(cfg: DictConfig) -> float:
    import hydra_sweep  # not this module, which joblib would send by value with every job

    return hydra_sweep.train(cfg)


def main() -> None:
    given, spec, folder = work.arguments(__doc__, launcher=("basic", "joblib"))
    # joblib's processes import this folder's modules
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    ConfigStore.instance().store("benchmark", {"number": 0, "folder": ""})
    jobs = 2 if given.launcher == "joblib" else 1
    numbers = ",".join(str(number) for number in range(len(spec["configs"])))
    sys.argv[1:] = [
        "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", f"hydra/launcher={given.launcher}",
        "hydra.sweeper.direction=maximize", f"hydra.sweeper.n_trials={len(spec['configs'])}",
        f"hydra.sweeper.n_jobs={jobs}", f"hydra.sweep.dir={folder / 'multirun'}", f"folder={folder}",
        f"number=choice({numbers})", *([f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []),
    ]  # fmt: skip
    sweep()


if __name__ == "__main__":
    main()
