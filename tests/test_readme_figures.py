"""The figures of README's table of nets, and of the list of studies, are those of the committed records."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ROWS = [line for line in README.splitlines() if "/report.md)" in line and line.startswith("| ")]
STUDIES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/report.json"))
OVER_SEEDS = re.compile(
    r"test accuracy ([\d.]+) % \(([\d.]+) to ([\d.]+); n = (\d+)\)(\\\*)?"
    r"|([\d.]+) % on all (\d+) seeds(\\\*)?"
)


@cache
def record(name: str) -> Any:
    return json.loads((ROOT / "experiments" / name / "report.json").read_text())


def written_for(name: str) -> str:
    """What the table says of a study, as far as it is about that one."""
    row = next(row for row in ROWS if f"experiments/{name}/" in row)
    links = re.findall(r"experiments/(\w+)/", row)
    last_cell = row.split(" | ")[-1]
    if len(links) == 1:
        return last_cell
    return last_cell.split(f"{name}: ")[1]


def test_the_list_of_studies_says_the_same() -> None:
    for line in (ROOT / "experiments" / "README.md").read_text().splitlines():
        if link := re.match(r"\| \[(\w+)\]", line):
            cell = line.split(" | ")[-1].removesuffix(" |")
            assert cell in written_for(link[1])


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def test_each_committed_study_stands_in_the_table() -> None:
    linked = sorted(name for row in ROWS for name in re.findall(r"experiments/(\w+)/", row))
    assert linked == STUDIES


@pytest.mark.parametrize("name", STUDIES)
def test_the_test_figure_is_the_mean_over_seeds_with_students_interval(name: str) -> None:
    main = record(name)["test"]["main"]
    over_seeds = {row["metric"]: row for row in main["over_seeds"]}
    found = OVER_SEEDS.search(written_for(name))
    if found is None:
        assert name in {"polynomial_diabetes", "depth_mnist", "depth_cifar10"}
        return
    estimate = over_seeds["test/accuracy"]
    if found[1] is None:
        assert estimate["student"] is None
        told = [found[6], found[7], found[8]]
        expected = [percent(estimate["mean"]), str(estimate["n"])]
    else:
        told = [found[1], found[2], found[3], found[4], found[5]]
        low, high = estimate["student"]
        expected = [*map(percent, [estimate["mean"], low, high]), str(estimate["n"])]
    assert told == [*expected, "\\*" if record(name)["won"]["default"] else None]


def test_differences_are_those_of_the_records() -> None:
    comparison = record("stn_mnist")["confirmation"]["comparisons"][0]
    low, high = comparison["student"]
    points = f"+{percent(comparison['mean'])} points ({percent(low)} to {percent(high)}"
    assert points in written_for("stn_mnist")
    confirmation = record("transfer_fashion_mnist")["confirmation"]
    for place in (confirmation["winner"], confirmation["default"]):
        mean = confirmation["finalists"][place]["mean"]
        assert f"{percent(mean)} %" in written_for("transfer_fashion_mnist")


@pytest.mark.parametrize("name", ["depth_mnist", "depth_cifar10"])
def test_depths_are_means_of_the_confirmation(name: str) -> None:
    told = written_for(name)
    means = {percent(f["mean"]) for f in record(name)["confirmation"]["finalists"]}
    figures = re.findall(r"\d\d\.\d\d", told)
    assert len(figures) >= 4
    assert set(figures) <= means


def test_how_often_the_default_configuration_won() -> None:
    text = " ".join(README.split())
    default_won = [name for name in STUDIES if record(name)["won"]["default"]]
    alone = [n for n in default_won if len(record(n)["confirmation"]["finalists"]) == 1]
    assert f"In {len(default_won)} of the {len(STUDIES)} the default configuration won" in text
    assert len(alone) == 6
    assert "in six of these no other one was confirmed" in text
    short = [n for n in default_won if record(n)["study"]["n_trials"] == 2 and n != "stn_mnist"]
    assert len(short) == 3
    assert "three searches had two trials" in text
