"""Study records, written by hand: their numbers are test data and results of nothing."""

from __future__ import annotations

import hashlib
from typing import Any

SEEDS = [11, 22, 33, 44, 55]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def study_record(
    name: str,
    *,
    scores: list[float],
    confirmed: list[float] | None = None,
    seeds: list[int] | None = None,
    sampler: str = "RandomSampler",
    objective: str = "val/accuracy",
    direction: str = "maximize",
    right: int | None = None,
    wrong: list[int] | None = None,
    data: str = "digits",
    **splits: str,
) -> dict[str, Any]:
    """A study of so many trials, its winner confirmed on `seeds`, its test set of 200 examples."""
    sign = 1 if direction == "maximize" else -1
    best = max(range(len(scores)), key=lambda i: sign * scores[i])
    names = {split: splits.get(split, f"{data}-{split}") for split in ("train", "val", "test")}
    record: dict[str, Any] = {
        "schema": 1,
        "study": {
            "name": name,
            "uuid": digest(name)[:32],
            "objectives": [objective],
            "directions": [direction],
            "state": "complete",
            "seed": 0,
            "n_trials": len(scores),
            "seconds": 60.0,
            "sampler": {"_target_": f"optuna.samplers.{sampler}"},
            "pruner": None,
            "config": {"model": {"width": len(name)}, "study": {"name": name}, "paths": {"store": f"/{name}"}},
            "space": [
                {"name": "optimizer.lr", "kind": "float", "low": 1e-4, "high": 0.1, "log": True, "step": None,
                 "choices": None, "when": None, "default": 0.001}
            ],
            "data": {
                "name": data,
                "sizes": {"train": 1000, "val": 100, "test": 200},
                "digests": {split: digest(text) for split, text in names.items()},
            },
            "model": {"n_params": 1234},
        },
        "trials": [
            {
                "number": i, "state": "complete", "params": {"optimizer.lr": 0.001 * (i + 1)},
                "value": v, "values": [v],
                "intermediate": [[0, v - 0.1 * sign], [1, v]], "seconds": 30.0, "epochs": 2, "default": i == 0,
                "duplicate_of": None, "attempts": [{"attempt": 1, "state": "complete", "seconds": 30.0}],
            }
            for i, v in enumerate(scores)
        ],
        "winner": {"number": best, "params": {"optimizer.lr": 0.001 * (best + 1)}, "value": scores[best]},
        "test": [],
    }  # fmt: skip
    if confirmed is not None:
        replicas = [
            {
                "replica": i,
                "seed": seed,
                "state": "complete",
                "value": v,
                "epochs": 2,
                "seconds": 31.0,
            }
            for i, (seed, v) in enumerate(zip(seeds or SEEDS, confirmed, strict=False))
        ]
        record["finalization"] = {
            "round": 1, "rounds": 1, "state": "complete", "kept": {"trial_number": best, "replica": 0},
            "checkpoint": f"studies/{name}/confirm/kept/ckpt/best.ckpt",
            "configurations": [{"trial_number": best, "winner": True, "default": False, "replicas": replicas}],
        }  # fmt: skip
    if right is not None:
        row = {"ledger_id": 1, "kind": "confirm", "trial_number": best, "n": 200, "evaluated_at": None,
               "metrics": {"test/accuracy": right / 200}, "errors": [{"index": i} for i in wrong or []]}  # fmt: skip
        record["test"].append(row)
    return record
