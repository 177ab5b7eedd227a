"""A realistic study record, simulated: its numbers are test data and results of nothing."""

from __future__ import annotations

import base64
import copy
import hashlib
import math
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 11, 21, 7, 0, tzinfo=UTC).timestamp()
CLASSES = [str(i) for i in range(10)]
SPACE: list[dict[str, Any]] = [
    {
        "name": "optimizer.lr",
        "kind": "float",
        "low": 1e-4,
        "high": 1e-1,
        "log": True,
        "step": None,
        "choices": None,
    }
    | {"when": None, "default": 0.001, "text": "tag(log, interval(1e-4, 1e-1))"},
    {
        "name": "model.dropout",
        "kind": "float",
        "low": 0.0,
        "high": 0.6,
        "log": False,
        "step": None,
        "choices": None,
    }
    | {"when": None, "default": 0.0, "text": "interval(0, 0.6)"},
    {
        "name": "data.batch_size",
        "kind": "categorical",
        "low": None,
        "high": None,
        "log": False,
        "step": None,
    }
    | {"choices": [32, 64, 128, 256], "when": None, "default": 64, "text": "32,64,128,256"},
    {
        "name": "model.width",
        "kind": "int",
        "low": 16,
        "high": 512,
        "log": True,
        "step": None,
        "choices": None,
    }
    | {"when": {"model": ["mlp"]}, "default": 128, "text": "tag(log, int(interval(16, 512)))"},
    {"name": "model", "kind": "categorical", "low": None, "high": None, "log": False, "step": None}
    | {"choices": ["lenet", "mlp"], "when": None, "default": "lenet", "text": "lenet,mlp"},
]


def iso(seconds: float) -> str:
    """`seconds` after the start of the simulated study."""
    return (
        datetime.fromtimestamp(START + seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def sha(text: str) -> str:
    """A digest to show."""
    return hashlib.sha256(text.encode()).hexdigest()


def _params(rng: random.Random, number: int) -> dict[str, Any]:
    if number == 0:
        return {d["name"]: d["default"] for d in SPACE if d["name"] != "model.width"}
    params = {
        "optimizer.lr": 10 ** rng.uniform(-4, -1),
        "model.dropout": rng.uniform(0, 0.6),
        "data.batch_size": rng.choice([32, 64, 128, 256]),
        "model": rng.choice(["lenet", "lenet", "mlp"]),
    }
    if params["model"] == "mlp":
        params["model.width"] = int(2 ** rng.uniform(4, 9))
    return params


def _final(params: dict[str, Any], rng: random.Random) -> float:
    lr = math.log10(params["optimizer.lr"]) + 2.2
    lost = (
        0.008
        + 0.011 * lr**2
        + 0.05 * (params["model.dropout"] - 0.2) ** 2
        + 0.006 * (params["model"] == "mlp")
    )
    noise = abs(rng.gauss(0, 0.0015))
    return float(1 - lost - noise - (0.6 if lr > 1.1 else 0.0))


def _confusion(rng: random.Random, n: int, accuracy: float) -> list[list[int]]:
    table = [[0] * 10 for _ in range(10)]
    for i in range(10):
        table[i][i] = n // 10
    for _ in range(round(n * (1 - accuracy))):
        i = rng.choice([2, 3, 4, 5, 7, 8, 9, 9, 4])
        j = (
            {4: 9, 9: 4, 3: 5, 5: 3, 7: 2}.get(i, 8)
            if rng.random() < 0.6
            else rng.choice(range(10))
        )
        if i != j:
            table[i][i] -= 1
            table[i][j] += 1
    return table


def _picture(rng: random.Random, side: int = 28) -> dict[str, Any]:
    x, y, r = rng.uniform(10, 18), rng.uniform(10, 18), rng.uniform(4, 9)
    pixels = bytes(
        max(0, min(255, round(255 * math.exp(-((math.hypot(i - x, j - y) - r) ** 2) / 4))))
        for j in range(side)
        for i in range(side)
    )
    return {"shape": [side, side, 1], "data": base64.b64encode(pixels).decode()}


def study_record(
    n: int = 24, slots: int = 2, seed: int = 3, epochs: int = 12, confirmed: bool = True
) -> dict[str, Any]:
    """A study of `n` trials: completed, pruned, failed by NaN and by an exception, retried, a duplicate; finalised."""
    rng = random.Random(seed)
    free = [0.0] * slots
    trials: list[dict[str, Any]] = []
    for number in range(n):
        params = copy.deepcopy(trials[5]["params"]) if number == 17 else _params(rng, number)
        final = _final(params, rng)
        slot = min(range(slots), key=lambda s: free[s])
        begun, each = (
            free[slot] + 0.4,
            rng.uniform(2.0, 3.2) * (1.5 if params["data.batch_size"] == 32 else 1.0),
        )
        scores = [
            [e, round(final - (final - 0.55) * math.exp(-0.75 * (e + 1)) + rng.gauss(0, 0.0012), 4)]
            for e in range(epochs)
        ]
        state, reason, error = "complete", None, None
        if number in (6, 19):
            state, reason, error = (
                "failed",
                "nan",
                "train/loss is nan in epoch 3 (global step 2814)",
            )
            scores = scores[:3]
        elif number == 11:
            state, reason = "failed", "exception"
            error = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x400 and 256x120)"
            scores = []
        elif number > 4 and final < 0.975 and rng.random() < 0.8:
            state, scores = "pruned", scores[: rng.choice([3, 3, 6])]
        seconds = each * max(1, len(scores)) + 0.8
        where = {"worker": "w0", "slot": slot, "device": "cpu", "host": "box"}
        attempts: list[dict[str, Any]] = []
        if number == 8:
            attempts.append(
                {"attempt": 1, "state": "lost", "reason": "lost", **where, "started": iso(begun)}
                | {"ended": iso(begun + 11), "seconds": 11.0, "run_id": None}
            )
            begun += 12.5
        attempts.append(
            {
                "attempt": len(attempts) + 1,
                "state": state,
                "reason": reason,
                **where,
                "started": iso(begun),
            }
            | {
                "ended": iso(begun + seconds),
                "seconds": round(seconds, 3),
                "run_id": sha(str(number))[:32],
            }
        )
        free[slot] = begun + seconds
        best = max(scores, key=lambda p: p[1]) if scores else None
        value = best[1] if state == "complete" and best else None
        trials.append(
            {
                "number": number,
                "state": state,
                "reason": reason,
                "error": error,
                "params": params,
                "value": value,
                "values": None if value is None else [value],
                "intermediate": scores,
                "started": attempts[0]["started"],
                "ended": attempts[-1]["ended"],
                "seconds": round(sum(a["seconds"] for a in attempts), 3),
                "seed": 1000 + number,
                "duplicate_of": 5 if number == 17 else None,
                "default": number == 0,
                "enqueued": number == 0,
                "epochs": len(scores),
                "best_epoch": best[0] if best else None,
                "n_params": 61706,
                "summary": {
                    "best/val/accuracy": value,
                    "best/train/accuracy": round(value + 0.006, 4),
                }
                | {
                    "final/train/loss": round(1.1 - value, 4),
                    "final/val/loss": round(1.15 - value, 4),
                }
                if value
                else {},
                "attempts": attempts,
                "state_sha256": sha(f"state {number}"),
                "metrics_sha256": sha(f"metrics {number}"),
                "split_sha256": {k: sha(k) for k in ("train", "val")},
                "breaches": [],
            }
        )
    winner = max(
        (t for t in trials if t["value"] is not None),
        key=lambda t: (t["value"], -t["number"]),
        default=None,
    )
    end = max(free, default=0.0)
    record = {
        "schema": 1,
        "study": _study(n, slots, end),
        "trials": trials,
        "winner": {k: winner[k] for k in ("number", "params", "value", "values")}
        if winner
        else None,
        "test": [_ledger_row(rng, winner, end)] if winner else [],
        "finalization": None,
    }
    return finalised(record) if confirmed and winner else record


def _replica(
    rng: random.Random, i: int, seed: int, level: float, epochs: int, begun: float
) -> dict[str, Any]:
    """One more training of a configuration whose score is around `level`."""
    final = level + rng.gauss(0, 0.0004)
    last = epochs - (3 if i == 2 else 0)
    scores = [
        [e, round(final - (final - 0.55) * math.exp(-0.75 * (e + 1)) + rng.gauss(0, 0.0004), 4)]
        for e in range(last)
    ]
    best = max(scores, key=lambda p: p[1])
    where = {"worker": "w0", "slot": i % 2, "device": f"cpu:{i % 2}", "host": "box"}
    return {
        "replica": i,
        "seed": seed,
        "state": "complete",
        "reason": None,
        "value": best[1],
        "values": [best[1]],
        "epochs": last,
        "best_epoch": best[0],
        "seconds": 30.0 + i,
        "intermediate": scores,
        "summary": {
            "best/val/accuracy": best[1],
            "best/train/accuracy": round(best[1] + 0.005 + 0.0003 * i, 4),
        }
        | {"best/train/loss": 0.021, "best/val/loss": 0.041},
        "state_sha256": sha(f"replica {seed} {level}"),
        "split_sha256": {k: sha(k) for k in ("train", "val")},
        "attempts": [
            {"attempt": 1, "state": "complete", "reason": None, **where, "started": iso(begun)}
            | {"ended": iso(begun + 30 + i), "seconds": 30.0 + i, "run_id": None}
        ],
    }


def finalised(record: dict[str, Any], top: int = 3, n: int = 5, epochs: int = 12) -> dict[str, Any]:
    """The record after its confirmation: the second of the search wins, the third is dropped after two seeds."""
    rng = random.Random(11)
    end = record["study"]["seconds"]
    seeds = [70001 + 13 * i for i in range(n)]
    ranked: list[dict[str, Any]] = []
    for t in sorted(
        (t for t in record["trials"] if t["value"] is not None),
        key=lambda t: (-t["value"], t["number"]),
    ):
        if len(ranked) < top and all(t["params"] != other["params"] for other in ranked):
            ranked.append(t)
    default = next((t for t in record["trials"] if t["default"]), None)
    runs = [(t, t["default"]) for t in ranked]
    if not any(is_default for _, is_default in runs):
        runs.append((default or {"number": None, "params": {}, "value": None}, True))
    won = ranked[min(1, len(ranked) - 1)]
    configurations = []
    for i, (t, is_default) in enumerate(runs):
        level = (0.9911 if t is won else 0.9903 - 0.0008 * i) if not is_default else 0.9868
        done = 2 if i == 2 and not is_default else n
        replicas = [_replica(rng, k, seeds[k], level, epochs, end + 40 * k) for k in range(done)]
        mean = sum(r["value"] for r in replicas) / len(replicas)
        configurations.append(
            {
                "trial_number": t["number"],
                "default": is_default,
                "params": t["params"],
                "search_value": t["value"],
            }
            | {
                "mean": mean,
                "dropped_after": done if done < n else None,
                "winner": t is won,
                "replicas": replicas,
            }
        )
    mine = next(c for c in configurations if c["winner"])
    kept = max(mine["replicas"], key=lambda r: (r["value"], -r["replica"]))
    record["finalization"] = {
        "round": 1,
        "rounds": 1,
        "top": top,
        "seeds": seeds,
        "racing": True,
        "refit": False,
        "state": "complete",
        "configurations": configurations,
        "kept": {"trial_number": won["number"], "replica": kept["replica"]},
        "checkpoint": f"studies/quickstart/confirm-{won['number']}-{kept['replica']}/best.ckpt",
    }
    record["winner"] = {"number": won["number"], "params": won["params"], "value": mine["mean"]} | {
        "values": [mine["mean"]],
        "search_value": won["value"],
        "confirmed": True,
        "default": mine["default"],
    }
    row = record["test"][0]
    accuracy = row["metrics"]["test/accuracy"]
    row.update(
        trial_number=won["number"],
        round=1,
        seed=kept["seed"],
        value=kept["value"],
        first_layer=_filters(rng),
    )
    row["replicas"] = [
        {"replica": i, "seed": s}
        | {
            "metrics": {
                "test/accuracy": round(
                    accuracy + (0 if i == kept["replica"] else 0.0003 * (i - 2)), 4
                )
            }
        }
        for i, s in enumerate(seeds)
    ]
    record["openings"] = [
        {k: row[k] for k in ("kind", "trial_number", "seed", "round")}
        | {"ledger_id": 1, "evaluated_at": iso(end + 40), "scored": False},
        {k: row[k] for k in ("kind", "trial_number", "seed", "round", "evaluated_at")}
        | {"ledger_id": 2, "scored": True},
    ]
    row["ledger_id"] = 2
    return record


def _filters(rng: random.Random) -> dict[str, Any]:
    """Six filters of 5×5, as the record holds a first layer."""
    raw = bytes(rng.randrange(1, 256) for _ in range(6 * 25))
    return {
        "layer": "features.0",
        "type": "Conv2d",
        "total": 6,
        "shape": [6, 1, 5, 5],
        "steps": [0.002] * 6,
    } | {"data": base64.b64encode(raw).decode()}


def _ledger_row(rng: random.Random, winner: dict[str, Any], end: float) -> dict[str, Any]:
    confusion = _confusion(rng, 10000, 0.9882)
    right = sum(confusion[i][i] for i in range(10))
    errors = [
        {"index": 17 + 611 * i, "label": (i * 3) % 10, "prediction": (i * 3 + 4) % 10}
        | {"confidence": round(0.9999 - 0.004 * i, 4), "image": _picture(rng)}
        for i in range(16)
    ]
    return {
        "ledger_id": 1,
        "kind": "confirm",
        "trial_number": winner["number"],
        "seed": 90001,
        "evaluated_at": iso(end + 42),
        "n": 10000,
        "metrics": {
            "test/accuracy": right / 10000,
            "test/loss": 0.0391,
            "test/f1": round(right / 10000 - 0.0002, 4),
        },
        "confusion": confusion,
        "classes": CLASSES,
        "errors": errors,
        "value": round(winner["value"] - 0.0011, 4),
    }


def _study(n: int, slots: int, end: float) -> dict[str, Any]:
    return {
        "name": "quickstart",
        "uuid": "5f0f2c1e-0000-4000-8000-2f4b6a1d9c11",
        "directions": ["maximize"],
        "objectives": ["val/accuracy"],
        "created": iso(0),
        "state": "complete",
        "seed": 0,
        "n_trials": n,
        "timeout": None,
        "seconds": round(end + 1.5, 3),
        "slots": [
            {"worker": "w0", "slot": s, "device": "cpu", "host": "box"} for s in range(slots)
        ],
        "sampler": {
            "_target_": "optuna.samplers.TPESampler",
            "multivariate": True,
            "n_startup_trials": 8,
        },
        "pruner": {
            "_target_": "optuna.pruners.HyperbandPruner",
            "min_resource": 3,
            "reduction_factor": 2,
        },
        "config": {"seed": 0, "trainer": {"max_epochs": 12}},
        "overrides": ["experiment=quickstart", "study.n_trials=24", "model=lenet,mlp"],
        "command": "dlsearch -m experiment=quickstart study.n_trials=24 'model=lenet,mlp'",
        "space": copy.deepcopy(SPACE),
        "sha": {k: sha(k) for k in ("config", "space", "data", "env", "code")},
        "provenance": {
            "commit": sha("commit")[:40],
            "dirty": False,
            "python": "3.11.9",
            "platform": "Linux-6.1-x86_64",
            "cpu": "Example CPU @ 2.50GHz",
            "cores": 2,
            "gpus": [],
            "threads": 1,
            "packages": {"torch": "2.15.0", "optuna": "5.0.0", "pytorch-lightning": "2.6.6"},
            "lock": sha("lock"),
            "hostname": "box",
        },
        "data": {
            "name": "MNIST",
            "shape": [1, 28, 28],
            "num_classes": 10,
            "classes": CLASSES,
            "sizes": {"train": 50000, "val": 10000, "test": 10000},
            "digests": {k: sha(k) for k in ("train", "val", "test")},
            "class_counts": {
                "train": [5000 + 7 * i for i in range(10)],
                "val": [1000] * 10,
                "test": [1000] * 10,
            },
            "overlap": {"index": 0, "content": 0},
        },
        "model": {
            "n_params": 61706,
            "macs": 416520,
            "layers": [
                {"name": "features.0", "type": "Conv2d", "in": [1, 28, 28], "out": [6, 28, 28]}
                | {"params": 156, "macs": 117600},
                {"name": "features.3", "type": "Conv2d", "in": [6, 14, 14], "out": [16, 10, 10]}
                | {"params": 2416, "macs": 240000},
                {
                    "name": "classifier.1",
                    "type": "Linear",
                    "in": [400],
                    "out": [120],
                    "params": 48120,
                    "macs": 48000,
                },
                {
                    "name": "classifier.3",
                    "type": "Linear",
                    "in": [120],
                    "out": [84],
                    "params": 10164,
                    "macs": 10080,
                },
                {
                    "name": "classifier.5",
                    "type": "Linear",
                    "in": [84],
                    "out": [10],
                    "params": 850,
                    "macs": 840,
                },
            ],
        },
    }


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    """The builder of records."""
    return study_record


@pytest.fixture(scope="module")
def whole_record() -> dict[str, Any]:
    """The record of the simulated study, for reading alone."""
    return study_record()


@pytest.fixture
def record() -> dict[str, Any]:
    """The record of the simulated study of 24 trials."""
    return study_record()
