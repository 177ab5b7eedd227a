"""report.json against its published schema, and against what must hold in any study."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from importlib import resources
from itertools import pairwise
from typing import Any

import pytest
from scipy import stats

from dlsearch.report.confirmation import PROBABILITY
from dlsearch.report.facts import facts
from dlsearch.report.load import view

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator() -> Any:
    """Of the schema that is in the package."""
    schema = json.loads(resources.files("dlsearch.report").joinpath("schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def facts_of(record: dict[str, Any]) -> dict[str, Any]:
    """As ``report.json`` holds them."""
    return json.loads(json.dumps(facts(view(record)), allow_nan=False))


def everything(record: dict[str, Any]) -> dict[str, Any]:
    """The simulated study, with a lost replica and a breach beside its pruned, failed, retried and duplicate trials."""
    final = record["finalization"]
    lost = final["configurations"][0]["replicas"][3]
    lost.update(state="failed", reason="lost", value=None, values=None)
    done = [r["value"] for r in final["configurations"][0]["replicas"] if r["value"] is not None]
    final["configurations"][0]["mean"] = sum(done) / len(done)
    record["trials"][3]["breaches"] = [{"how": "loader", "what": "asked for the test loader"}]
    return record


def test_the_schema_holds(validator: Any, record: dict[str, Any], make_record: Any) -> None:
    for r in (everything(record), make_record(confirmed=False), make_record(3, confirmed=False)):
        f = facts_of(r)
        assert [e.message for e in validator.iter_errors(f)] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f.pop("claim"),
        lambda f: f.update(extra=1),
        lambda f: f["trials"][0].update(state="COMPLETE"),
        lambda f: f["confirmation"]["comparisons"][0].update(probability=1.5),
        lambda f: f["checklist"][0].update(answer="perhaps"),
        lambda f: f["confirmation"]["finalists"][0].update(interval=[1.0]),
    ],
)
def test_the_schema_refuses(validator: Any, record: dict[str, Any], damage: Any) -> None:
    f = facts_of(record)
    damage(f)
    assert not validator.is_valid(f)


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
    whole = [row for row, values in zip(rows, done, strict=True) if len(values) == max(map(len, done))]
    test = f["test"]
    main = test["main"]
    data = f["study"]["data"]
    confusion = main["confusion"]
    spans = list(f["compute"]["bars"])
    near = math.isclose
    return {
        "states sum to what was asked": sum(a["counts"].values()) + a["not_started"] == a["asked"],
        "states are counted": a["counts"] == {s: sum(x["state"] == s for x in t) for s in a["counts"]},
        "numbers are 0, 1, 2": [x["number"] for x in t] == list(range(len(t))),
        "failures by reason sum": sum(a["failed_by_reason"].values()) == a["counts"]["failed"],
        "each failure is listed": {x["number"] for x in a["failures"]}
        == {x["number"] for x in t if x["state"] == "failed"},
        "each failure names its reason": all(x["reason"] for x in a["failures"]),
        "retried trials have several attempts": all(len(t[x["number"]]["attempts"]) > 1 for x in a["retried"]),
        "attempts sum": a["attempts"] == sum(len(x["attempts"]) for x in t),
        "duplicates repeat an earlier trial": all(
            x["of"] < x["number"] and t[x["of"]]["params"] == t[x["number"]]["params"] for x in a["duplicates"]
        ),
        "only completed trials have values": all(bool(x["values"]) <= (x["state"] == "complete") for x in t),
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
            f["compute"]["device_seconds"], sum(x["seconds"] for y in t for x in y["attempts"]), rel_tol=1e-9
        ),
        "no slot ran two attempts at once": all(
            x[2] <= y[1] + 1e-6
            for slot in f["compute"]["slots"]
            for x, y in pairwise(sorted([s for s in spans if s[0] == slot], key=lambda s: s[1]))
        ),
        "slots are busy for at most all of the time": 0 < f["compute"]["utilisation"] <= 1,
        "one winner": sum(row["winner"] for row in rows) == 1 and f["won"]["value"] == win["mean"],
        "means are those of the replicas": all(
            near(row["mean"], math.fsum(v) / len(v), rel_tol=1e-9) for row, v in zip(rows, done, strict=True)
        ),
        "replicas are paired by seed": all(
            r["seed"] == c["seeds"][r["replica"]] for row in rows for r in row["replicas"]
        ),
        "seeds are fresh": not {x["seed"] for x in t} & set(c["seeds"]) and len(set(c["seeds"])) == len(c["seeds"]),
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
            f["optimism"]["drop"], sign * (best["values"][0] - win["mean"]), rel_tol=1e-6, abs_tol=1e-12
        ),
        "every score has its opening": {r["ledger_id"] for r in test["rows"]}
        == {r["ledger_id"] for r in test["openings"] if r["scored"]},
        "openings are counted": test["opened"] == len(test["openings"]) == len(test["rows"]) + test["unscored"],
        "the confusion matrix holds every test example": sum(map(sum, confusion)) == main["n"] == data["sizes"]["test"],
        "accuracy is its diagonal": near(
            main["accuracy"], sum(confusion[i][i] for i in range(len(confusion))) / main["n"], rel_tol=1e-6
        ),
        "accuracy lies in its interval": main["wilson"][0] < main["accuracy"] < main["wilson"][1],
        "the exact interval is the wider one": main["clopper_pearson"][1] - main["clopper_pearson"][0]
        > main["wilson"][1] - main["wilson"][0],
        "the tested seeds are the winner's": {r["seed"] for r in main["replicas"]} <= set(c["seeds"]),
        "class shares sum to one": all(
            near(sum(b["shares"]), 1.0, rel_tol=1e-9) for b in f["data"]["balance"].values()
        ),
        "classes sum to the split": all(
            sum(data["class_counts"][s]) == data["sizes"][s] or s == "train" for s in data["sizes"]
        ),
        "no example in two splits": f["data"]["overlap_index"] == 0,
        "breaches are those of the trials": Counter(b["trial"] for b in f["breaches"])
        == Counter({x["number"]: len(x["breaches"]) for x in t if x["breaches"]}),
        "the checklist's items differ": len({r["item"] for r in f["checklist"]}) == len(f["checklist"]),
        "the record does not contradict itself": all(x["ok"] for x in f["checks"]),
    }


def _columns(rows: list[dict[str, Any]], x: dict[str, Any], sign: int) -> list[list[float]]:
    return [[sign * rows[x[side]]["replicas"][i]["value"] for i in x["replicas"]] for side in ("of", "with")]


def test_the_invariants_hold(record: dict[str, Any]) -> None:
    f = facts_of(everything(record))
    states = {x["state"] for x in f["trials"]}
    assert {"complete", "pruned", "failed"} <= states
    assert f["accounting"]["retried"]
    assert f["accounting"]["duplicates"]
    found = invariants(f)
    assert len(found) >= 30
    assert [name for name, holds in found.items() if not holds] == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: f["accounting"]["counts"].update(failed=2), "states are counted"),
        (lambda f: f["trials"].reverse(), "numbers are 0, 1, 2"),
        (lambda f: f["confirmation"]["finalists"][0].update(mean=0.5), "means are those of the replicas"),
        (lambda f: f["confirmation"]["seeds"].reverse(), "replicas are paired by seed"),
        (lambda f: f["test"]["openings"].pop(), "every score has its opening"),
        (
            lambda f: f["confirmation"]["comparisons"][0].update(probability=0.5),
            "probabilities are those of the t test",
        ),
    ],
)
def test_an_invariant_can_fail(record: dict[str, Any], damage: Any, named: str) -> None:
    f = copy.deepcopy(facts_of(record))
    assert invariants(f)[named]
    damage(f)
    assert not invariants(f)[named]
