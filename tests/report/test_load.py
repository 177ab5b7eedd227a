"""Reading a record: what is derived from it, and what is held against it."""

from __future__ import annotations

from typing import Any

import pytest

from dlsearch.report.load import RecordError, clean, view


def test_the_best_of_the_search_and_the_winner_of_the_confirmation(record: dict[str, Any]) -> None:
    v = view(record)
    done = [t["value"] for t in record["trials"] if t["state"] == "complete"]
    assert v.best is not None
    assert v.winner is not None
    assert v.best.values == (max(done),)
    # Fresh seeds chose another trial than the search.
    assert v.winner.number == record["winner"]["number"] != v.best.number
    assert [c for c in v.checks if not c["ok"]] == []


def test_without_a_confirmation_the_best_of_the_search_wins(make_record: Any) -> None:
    record = make_record(confirmed=False)
    v = view(record)
    assert v.finalization is None
    assert v.winner is v.best
    assert v.best is not None
    assert v.best.number == record["winner"]["number"]
    assert [c for c in v.checks if not c["ok"]] == []


def test_of_equal_trials_the_first_wins(record: dict[str, Any]) -> None:
    for t in record["trials"]:
        if t["state"] == "complete":
            t.update(value=0.5, values=[0.5])
    v = view(record)
    assert v.best is not None
    assert v.best.number == 0


def test_a_value_that_is_not_finite_never_wins(record: dict[str, Any]) -> None:
    record["trials"][1].update(state="complete", value=float("inf"), values=[float("inf")])
    record["trials"][2].update(state="complete", value=float("nan"), values=None)
    v = view(record)
    assert v.best is not None
    assert v.best.number not in (1, 2)
    assert [c["found"] for c in v.checks if not c["ok"]] == ["trial 1 has none; trial 2 has none"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda r: r["winner"].update(number=1), "recorded winner"),
        (lambda r: r.update(winner=None), "recorded winner"),
        (
            lambda r: r["finalization"]["configurations"][0]["replicas"][1].update(seed=5),
            "same seed",
        ),
        (
            lambda r: r["trials"][2].update(seed=r["finalization"]["seeds"][0]),
            "no trial of the search had one",
        ),
        (lambda r: r["finalization"]["configurations"][-1].update(default=False), "never dropped"),
        (
            lambda r: r["finalization"]["configurations"][-1].update(dropped_after=2),
            "never dropped",
        ),
        (
            lambda r: [
                x.update(value=0.5, values=[0.5])
                for x in r["finalization"]["configurations"][1]["replicas"]
            ],
            "best mean",
        ),
        (lambda r: r["openings"].pop(), "ledger of openings"),
        (lambda r: r["study"]["data"]["overlap"].update(index=3), "two splits"),
        (lambda r: r["trials"].pop(3), "numbered"),
        (lambda r: r["trials"][6].update(reason=None), "reason"),
        (lambda r: r["trials"][23].update(state="running"), "no running trial"),
        (lambda r: r["test"][0].update(trial_number=99), "test-set evaluation"),
    ],
)
def test_a_record_that_contradicts_itself_is_told(
    record: dict[str, Any], damage: Any, said: str
) -> None:
    damage(record)
    assert any(said in c["check"] for c in view(record).checks if not c["ok"])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda r: r.update(schema=2), "schema"),
        (lambda r: r.pop("study"), "study"),
        (lambda r: r["study"].update(directions=[]), "study.directions"),
        (lambda r: r["trials"][0].update(state="COMPLETE"), "trials"),
    ],
)
def test_a_record_of_another_form_is_refused(
    record: dict[str, Any], damage: Any, named: str
) -> None:
    damage(record)
    with pytest.raises(RecordError, match=named):
        view(record)


def test_rates_read_in_per_cent_and_losses_do_not(record: dict[str, Any]) -> None:
    assert view(record).objectives[0].percent
    record["study"]["objectives"] = ["val/loss"]
    assert not view(record).objectives[0].percent


def test_clean_spells_out_what_cannot_be_printed() -> None:
    assert clean(
        {"a\x00": ["\u202eb", "\ud800", "naïve ☃", float("nan"), float("inf"), 1, True, None]}
    ) == {"a\\u0000": ["\\u202eb", "\\ud800", "naïve ☃", None, None, 1, True, None]}
