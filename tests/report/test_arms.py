"""The report of a comparison opens with one claim over its arms; that of a plain search makes none."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from dlsearch.report import build
from dlsearch.report.facts.arms import correct_by_holm
from dlsearch.report.facts.facts import facts
from dlsearch.report.load import view
from tests.report.records import SEEDS, study_record

MINUS = "−"


def comparison(options: dict[Any, list[float | None]], **changes: Any) -> dict[str, Any]:
    """A record of three trials an option; of each the third, its best, is confirmed with these values."""
    scores = [0.9 + number / 1000 for number in range(3 * len(options))]
    record = study_record("moved", scores=scores, **changes)
    study = record["study"]
    study["config"]["study"]["compare"] = "transfer.weights"
    choices = list(options)
    study["space"].append(
        {"name": "transfer.weights", "kind": "categorical", "low": None, "high": None, "log": False,
         "step": None, "choices": choices, "when": None, "default": None}
    )  # fmt: skip
    for trial in record["trials"]:
        trial["params"]["transfer.weights"] = choices[trial["number"] % len(choices)]
        trial["default"] = trial["number"] < len(choices)
    rows = []
    for place, (option, values) in enumerate(options.items()):
        if not values:
            continue
        number = place + 2 * len(choices)
        rows.append(
            {"trial_number": number, "winner": False, "default": False, "search_value": scores[number],
             "params": {"optimizer.lr": 0.01, "transfer.weights": option},
             "replicas": [
                 {"replica": i, "seed": SEEDS[i], "state": "complete" if v is not None else "failed",
                  "value": v, "epochs": 2, "seconds": 31.0} for i, v in enumerate(values)]}
        )  # fmt: skip
    sign = 1 if study["directions"] == ["maximize"] else -1
    rows.sort(key=lambda row: -sign * sum(r["value"] or 0 for r in row["replicas"]))
    rows[0]["winner"] = True
    record["finalization"] = {
        "round": 1, "rounds": 1, "state": "complete", "top": 1, "racing": False, "refit": False, "seeds": SEEDS,
        "kept": {"trial_number": rows[0]["trial_number"], "replica": 0}, "checkpoint": "x/best.ckpt",
        "configurations": rows,
    }  # fmt: skip
    record["winner"] = {
        "number": rows[0]["trial_number"],
        "params": rows[0]["params"],
        "value": 0.9,
    }
    return record


def facts_of(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(facts(view(record)), allow_nan=False))


MOVED = [0.80, 0.81, 0.79, 0.82, 0.80]
NOTHING = [0.78, 0.80, 0.78, 0.79, 0.79]


def test_two_arms_are_one_claim_with_a_paired_interval() -> None:
    f = facts_of(comparison({None: NOTHING, "study:lenet_mnist": MOVED}))
    (pair,) = f["arms"]["pairs"]
    test = stats.ttest_rel(MOVED, NOTHING)
    assert (pair["of"], pair["with"]) == (1, 0)
    assert pair["p"] == pair["holm"] == pytest.approx(test.pvalue)
    assert pair["student"] == pytest.approx(list(test.confidence_interval(0.95)))
    assert pair["p"] < 0.05
    headline = f["claim"]["headline"]
    assert headline.startswith("transfer.weights=study:lenet_mnist reached val/accuracy 80.40")
    assert "1.60 points better than transfer.weights=null (78.80" in headline
    assert "n = 5 seeds, paired" in headline
    told = " ".join(f["claim"]["sentences"])
    assert "Each of the 2 options of transfer.weights had a search of its own of 3 trials." in told
    assert "the same 5 fresh seeds" in told
    assert f["claim"]["gain"] is None
    assert f["default"] is None
    assert f["confirmation"]["against_default"] is None
    assert [check for check in f["checks"] if not check["ok"] and "option" in check["check"]] == []
    text = json.dumps([f["claim"], f["limits"]])
    assert "default configuration" not in text


def test_what_may_be_chance_is_called_so() -> None:
    f = facts_of(
        comparison({None: [0.80, 0.78, 0.81, 0.79, 0.80], "a": [0.79, 0.80, 0.80, 0.80, 0.80]})
    )
    assert "which may be chance" in f["claim"]["headline"]
    assert MINUS in f["claim"]["headline"]  # the interval reaches below zero
    assert "better than" not in f["claim"]["headline"]
    equal = facts_of(comparison({None: MOVED, "a": MOVED}))
    assert "no difference on average" in equal["claim"]["headline"]
    assert equal["arms"]["pairs"][0]["p"] == 1.0


def test_of_several_arms_all_pairs_are_corrected() -> None:
    options = {
        "a": NOTHING,
        "b": MOVED,
        "c": [v - 0.03 for v in MOVED],
        "d": [0.80, 0.80, 0.79, 0.81, 0.81],
    }
    f = facts_of(comparison(options))
    pairs = f["arms"]["pairs"]
    assert len(pairs) == 6
    # all differences between b and c are equal: there is no p value, and nothing is concluded
    p_values = [pair["p"] for pair in pairs if pair["p"] is not None]
    assert len(p_values) == 5
    assert [p["holm"] for p in pairs if p["p"] is not None] == pytest.approx(
        correct_by_holm(p_values)
    )
    assert all(pair["mean"] >= 0 for pair in pairs)
    headline = f["claim"]["headline"]
    assert headline.startswith("Of 4 options of transfer.weights, b has the best mean")
    assert "its lead over c and d may be chance" in headline or "lead over" in headline
    assert any(
        "corrected for 5 pairs" in each or "corrected for 6 pairs" in each
        for each in f["claim"]["sentences"]
    )


def test_losses_are_better_where_they_are_smaller() -> None:
    f = facts_of(comparison({"a": NOTHING, "b": MOVED}, objective="val/loss", direction="minimize"))
    assert f["claim"]["headline"].startswith("transfer.weights=a reached val/loss 0.7880")
    assert f["arms"]["pairs"][0]["mean"] == pytest.approx(0.016)


def test_an_arm_that_was_not_confirmed_is_named() -> None:
    f = facts_of(comparison({"a": NOTHING, "b": [], "c": MOVED}))
    assert [row["finalist"] is None for row in f["arms"]["arms"]] == [False, True, False]
    assert "No trial of b was completed: it is not compared." in f["claim"]["sentences"]
    one = facts_of(comparison({"a": NOTHING, "b": []}))
    assert "nothing to compare" in one["claim"]["headline"]


def test_without_a_confirmation_nothing_is_claimed() -> None:
    record = comparison({"a": NOTHING, "b": MOVED})
    record["finalization"] = None
    record["trials"] = record["trials"][:5]
    f = facts_of(record)
    assert "nothing is claimed" in f["claim"]["headline"]
    assert "not spent yet (a 3 and b 2 trials are over)" in f["claim"]["sentences"][0]


def test_a_record_that_confirmed_another_trial_contradicts_itself() -> None:
    record = comparison({"a": NOTHING, "b": MOVED})
    row = record["finalization"]["configurations"][0]
    assert row["trial_number"] == 5
    row["trial_number"] = 3
    found = [check for check in facts_of(record)["checks"] if "option that is" in check["check"]]
    assert [check["found"] for check in found] == ["trial 5 of transfer.weights=b is not"]


def test_the_correction_is_holm_s() -> None:
    assert correct_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_by_holm([0.6, 0.9]) == [1.0, 1.0]
    assert correct_by_holm([]) == []


def test_the_pages_open_with_the_arms(tmp_path: Path) -> None:
    record = comparison({None: NOTHING, "<b>study:x</b>": MOVED, "c": NOTHING})
    page = build(record, tmp_path / "report").read_text("utf-8")
    claim = page[page.index('id="claim"') : page.index('aria-label="Contents"')]
    assert claim.count("<table>") == 3
    assert "The options of transfer.weights, each after a search of 3 trials" in claim
    assert "&lt;b&gt;study:x&lt;/b&gt;" in claim
    assert "<b>study:x" not in page
    assert "corrected for 3 pairs by Holm" in claim
    text = (tmp_path / "report/report.md").read_text("utf-8")
    assert "| option of `transfer.weights` |" in text
    assert text.index("option of") < text.index("## Provenance")


def test_its_facts_fit_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = resources.files("dlsearch.report").joinpath("schema.json").read_text("utf-8")
    schema = json.loads(text)
    part = {**schema["properties"]["arms"], "$defs": schema["$defs"]}
    found = facts_of(comparison({"a": NOTHING, "b": MOVED, "c": []}))["arms"]
    assert [e.message for e in jsonschema.Draft202012Validator(part).iter_errors(found)] == []


def test_a_plain_search_names_its_gain_the_search_s_and_compares_no_options() -> None:
    record = comparison({None: NOTHING, "a": MOVED})
    del record["study"]["config"]["study"]["compare"]
    record["study"]["space"].append(
        {**record["study"]["space"][0], "name": "transfer.lr", "when": {"transfer.weights": ["a"]}}
    )
    rows = record["finalization"]["configurations"]
    next(row for row in rows if not row["winner"])["default"] = True
    f = facts_of(record)
    assert f["arms"] is None
    assert "better than the default configuration" in f["claim"]["headline"]
    told = " ".join(f["claim"]["sentences"])
    assert (
        "The default configuration was not searched: the difference is the gain of the search"
        in told
    )
    assert any("study.compare=transfer.weights gives each" in limit for limit in f["limits"])
