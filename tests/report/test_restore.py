"""A report is made again from what its ``report.json`` holds of the record."""

from __future__ import annotations

import json
from typing import Any

from dlsearch.report.facts.facts import facts
from dlsearch.report.load import view
from dlsearch.report.output import json_by_lines
from dlsearch.report.restore import restore_record


def written(record: dict[str, Any]) -> dict[str, Any]:
    """As ``report.json`` holds it; the words of a command in alphabetical order."""
    report = json.loads(json_by_lines(facts(view(record))))
    report["reproduce"]["winner"] = sorted((report["reproduce"]["winner"] or "").split())
    return report


def test_the_restored_record_gives_the_same_report(
    record: dict[str, Any], make_record: Any
) -> None:
    record["trials"][3]["breaches"] = [{"how": "loader", "what": "asked for the test loader"}]
    record["trials"][1]["notes"] = ["its curve starts anew", "and again"]
    record["trials"][2]["seal"] = {"by": "kernel", "landlock": 5}
    record["test_set"] = {
        "digest": "5e5t" * 16,
        "openings": [{"study": "lenet", "is_own": False}, {"study": "s", "is_own": True}],
    }
    for each in (record, make_record(confirmed=False), make_record(3, confirmed=False)):
        report = written(each)
        assert written(restore_record(report)) == report


def test_single_precision_comes_back_from_twelve_digits(record: dict[str, Any]) -> None:
    third = 0.3333333432674408  # a float32
    record["test"][-1]["metrics"]["test/accuracy"] = third
    restored = restore_record(written(record))
    assert restored["test"][-1]["metrics"]["test/accuracy"] == third
