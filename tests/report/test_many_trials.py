"""Reports of thousands of trials: what is drawn together stands for what happened, and nothing is written twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dlsearch.report import build
from dlsearch.report.facts.contents import Bar
from dlsearch.report.figures.search.occupancy import Clock, busy_level, merge_bars
from dlsearch.report.figures.search.timeline import MOST_DRAWN
from dlsearch.verification import report_file
from tests.report.conftest import study_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("many") / "report"
    build(study_record(n=MOST_DRAWN + 500, slots=16), out)
    return out


@pytest.mark.storm
def test_the_figures_of_thousands_stay_small_and_say_so(folder: Path) -> None:
    timeline, course = (
        (folder / "figures" / name).read_text("utf-8") for name in ("timeline.svg", "course.svg")
    )
    assert timeline.count("<path") < 100
    assert "Bars too thin to tell apart are drawn as one." in (folder / "index.html").read_text(
        "utf-8"
    )
    assert course.count("<use") > MOST_DRAWN, "every trial has its mark"
    assert course.count("style=") < 200, "which says once how it looks"


def test_each_half_point_shows_what_filled_most_of_it() -> None:
    clock = Clock(0.0, 10.0, [])
    bars = [
        Bar("a", 0.0, 4.0, "complete", 0),
        Bar("a", 4.0, 4.1, "pruned", 1),
        Bar("a", 4.1, 6.0, "complete", 2),
        Bar("a", 8.0, 8.001, "failed", 3),
        Bar("b", 2.0, 9.0, "pruned", 4),
        Bar("b", 10.0, 10.0, "failed", 5),  # began and ended with the study
    ]
    # half a point is half a second
    found = merge_bars(bars, {"a": 0, "b": 1}, clock, pixels_per_unit=1.0)
    assert found["complete"] == [(0, 0.0, 6.0)], "a tenth of a second does not interrupt it"
    assert found["failed"] == [(0, 8.0, 8.5)], "a short one alone is seen"
    assert found["pruned"] == [(1, 2.0, 9.0)]


def test_many_steps_become_their_mean() -> None:
    steps = [(0.1 * i, i % 2) for i in range(1000)]
    xs, ys = busy_level(steps, width=10)
    assert len(xs) == 20
    assert xs[0] == 0.0
    assert xs[-1] == pytest.approx(99.9)
    assert all(abs(y - 0.5) < 0.05 for y in ys)
    few = [(0.0, 1), (1.0, 0)]
    assert busy_level(few, width=10) == ([0.0, 1.0], [1.0, 0.0])


@pytest.mark.storm
def test_a_trial_is_one_line_of_the_record(folder: Path) -> None:
    text = (folder / "report.json").read_text("utf-8")
    record = json.loads(text)
    lines = text.splitlines()
    begin = lines.index('"trials": [') + 1
    assert [
        json.loads(line.rstrip(",")) for line in lines[begin : begin + len(record["trials"])]
    ] == record["trials"]
    assert re.findall(r'^"(\w+)": ', text, re.MULTILINE) == sorted(record)


def test_what_is_left_out_of_a_trial_to_run_again_comes_back(tmp_path: Path) -> None:
    record = study_record(n=20)
    record["study"]["options"] = {}
    for trial in record["trials"]:
        trial |= {
            "best_epoch": 0,
            "duplicate_of": None,
            "default": trial["number"] == 0,
            "enqueued": False,
            "infeasible": False,
        }
    build(record, tmp_path / "report")
    (tmp_path / "whole.json").write_text(json.dumps({"schema": 1, "study": record["study"], "replay": [
        {key: trial.get(key) for key in report_file.ABSENT | {"number": 0, "params": 0, "seed": 0, "state": 0}}
        for trial in record["trials"]
    ]}))  # fmt: skip
    written = json.loads((tmp_path / "report/report.json").read_text("utf-8"))["replay"]
    assert all(
        value is not None and value is not False for trial in written for value in trial.values()
    )
    assert [trial["best_epoch"] for trial in written] == [0] * 20
    assert written[0]["default"] is True
    again = report_file.load(tmp_path / "report/report.json")["replay"]
    assert again == report_file.load(tmp_path / "whole.json")["replay"]
