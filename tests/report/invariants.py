"""What holds in the report of any finished study, simulated or real; nothing here calls the report."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from typing import Any

from scipy import stats

from dlsearch.report.facts.confirmation import PROBABILITY


def invariants(f: dict[str, Any]) -> dict[str, bool]:
    """What holds in the report of any study of one objective, each under a name. Nothing here calls the report."""
    a, c, t = f["accounting"], f["confirmation"], f["trials"]
    sign = 1 if f["objectives"][0]["maximize"] else -1
    scored = [x for x in t if x["scored"]]
    best = max(scored, key=lambda x: (sign * x["values"][0], -x["number"]))
    steps = f["course"]["best_so_far"]
    rows = c["finalists"]
    win = rows[c["winner"]]
    done = [[r["value"] for r in row["replicas"] if r["value"] is not None] for row in rows]
    whole = [
        row for row, values in zip(rows, done, strict=True) if len(values) == max(map(len, done))
    ]
    test = f["test"]
    main = test["main"]
    data = f["study"]["data"]
    confusion = main["confusion"]
    spans = list(f["compute"]["bars"])
    near = math.isclose
    return {
        "states sum to what was asked": sum(a["counts"].values()) + a["not_started"] == a["asked"],
        "states are counted": a["counts"]
        == {s: sum(x["state"] == s for x in t) for s in a["counts"]},
        "numbers are 0, 1, 2": [x["number"] for x in t] == list(range(len(t))),
        "failures by reason sum": sum(a["failed_by_reason"].values()) == a["counts"]["failed"],
        "each failure is listed": {x["number"] for x in a["failures"]}
        == {x["number"] for x in t if x["state"] == "failed"},
        "each failure names its reason": all(x["reason"] for x in a["failures"]),
        "retried trials have several attempts": all(
            len(t[x["number"]]["attempts"]) > 1 for x in a["retried"]
        ),
        "attempts sum": a["attempts"] == sum(len(x["attempts"]) for x in t),
        "duplicates repeat an earlier trial": all(
            x["of"] < x["number"] and t[x["of"]]["params"] == t[x["number"]]["params"]
            for x in a["duplicates"]
        ),
        "only completed trials have values": all(
            bool(x["values"]) <= (x["state"] == "complete") for x in t
        ),
        "every number is finite": "NaN" not in json.dumps(f) and "Infinity" not in json.dumps(f),
        "the best is the best": f["best"] == best["number"],
        "best so far only improves": all(sign * (y[1] - x[1]) > 0 for x, y in pairwise(steps)),
        "best so far ends with the best": steps[-1] == [best["number"], best["values"][0]],
        "top trials are sorted": all(
            sign * t[x]["values"][0] >= sign * t[y]["values"][0] for x, y in pairwise(f["top"])
        ),
        "the distribution ends at one": near(f["course"]["distribution"][-1][1], 1.0),
        "device time is the sum over outcomes": near(
            f["compute"]["device_seconds"], sum(f["compute"]["by_state"].values()), rel_tol=1e-9
        ),
        "device time is the sum over attempts": near(
            f["compute"]["device_seconds"],
            sum(x["seconds"] for y in t for x in y["attempts"]),
            rel_tol=1e-9,
        ),
        "no slot ran two attempts at once": all(
            x[2] <= y[1] + 1e-6
            for slot in f["compute"]["slots"]
            for x, y in pairwise(sorted([s for s in spans if s[0] == slot], key=lambda s: s[1]))
        ),
        "slots are busy for at most all of the time": 0 < f["compute"]["utilisation"] <= 1,
        "one winner": sum(row["winner"] for row in rows) == 1 and f["won"]["value"] == win["mean"],
        "means are those of the replicas": all(
            near(row["mean"], math.fsum(v) / len(v), rel_tol=1e-9)
            for row, v in zip(rows, done, strict=True)
        ),
        "replicas are paired by seed": all(
            r["seed"] == c["seeds"][r["replica"]] for row in rows for r in row["replicas"]
        ),
        "seeds are fresh": not {x["seed"] for x in t} & set(c["seeds"])
        and len(set(c["seeds"])) == len(c["seeds"]),
        "of those with all seeds the winner is best": all(
            sign * (win["mean"] - row["mean"]) >= -1e-12 for row in whole
        ),
        "intervals hold their mean": all(
            row["interval"] is None or row["interval"][0] <= row["mean"] <= row["interval"][1]
            for row in [*rows, *c["comparisons"]]
        ),
        "the default was never dropped": rows[c["default"]]["dropped_after"] is None,
        "probabilities are those of the t test": all(
            x["probability"] is None
            or near(
                x["probability"],
                1 - stats.ttest_rel(*_columns(rows, x, sign), alternative="greater").pvalue,
                abs_tol=1e-6,
            )
            for x in c["comparisons"]
        )
        and c["probability_method"] == PROBABILITY,
        "the gain is the mean paired difference": near(
            f["claim"]["gain"], c["against_default"]["mean"], rel_tol=1e-9, abs_tol=1e-12
        ),
        "the drop is search minus mean": near(
            f["optimism"]["drop"],
            sign * (best["values"][0] - win["mean"]),
            rel_tol=1e-6,
            abs_tol=1e-12,
        ),
        "every score has its opening": {r["ledger_id"] for r in test["rows"]}
        == {r["ledger_id"] for r in test["openings"] if r["scored"]},
        "openings are counted": test["opened"]
        == len(test["openings"])
        == len(test["rows"]) + test["unscored"],
        "the confusion matrix holds every test example": sum(map(sum, confusion))
        == main["n"]
        == data["sizes"]["test"],
        "accuracy is its diagonal": near(
            main["accuracy"],
            sum(confusion[i][i] for i in range(len(confusion))) / main["n"],
            rel_tol=1e-6,
        ),
        "accuracy lies in its interval": main["wilson"][0] < main["accuracy"] < main["wilson"][1],
        "the exact interval is the wider one": main["clopper_pearson"][1]
        - main["clopper_pearson"][0]
        > main["wilson"][1] - main["wilson"][0],
        "the tested seeds are the winner's": {r["seed"] for r in main["replicas"]}
        <= set(c["seeds"]),
        "class shares sum to one": all(
            near(sum(b["shares"]), 1.0, rel_tol=1e-9) for b in f["data"]["balance"].values()
        ),
        "classes sum to the split": all(
            sum(data["class_counts"][s]) == data["sizes"][s] or s == "train" for s in data["sizes"]
        ),
        "no example in two splits": f["data"]["overlap_index"] == 0,
        "breaches are those of the trials": Counter(b["trial"] for b in f["breaches"])
        == Counter({x["number"]: len(x["breaches"]) for x in t if x["breaches"]}),
        "the checklist's items differ": len({r["item"] for r in f["checklist"]})
        == len(f["checklist"]),
        "the record does not contradict itself": all(x["ok"] for x in f["checks"]),
    }


def _columns(rows: list[dict[str, Any]], x: dict[str, Any], sign: int) -> list[list[float]]:
    return [
        [sign * rows[x[side]]["replicas"][i]["value"] for i in x["replicas"]]
        for side in ("of", "with")
    ]
