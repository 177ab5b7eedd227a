"""A study that counts its progress in steps: axes, tables and sentences say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlsearch.config.progress import ProgressUnit
from dlsearch.report import build
from dlsearch.report.compare.studies import describe_study
from dlsearch.report.compare.text import _progress_row
from dlsearch.report.facts.confirmation import describe_confirmation
from dlsearch.report.figures.inside.loss import draw_loss
from dlsearch.report.load import view
from dlsearch.report.progress import progress_unit, training_limit
from tests.report.records import study_record

STEPS = 240


def record_in(unit: str, trainer: dict[str, Any]) -> dict[str, Any]:
    """A confirmed study of three trials that reported at 119 and 239 of these units."""
    record = study_record("a", scores=[0.5, 0.7, 0.6], confirmed=[0.68, 0.7, 0.69, 0.71, 0.66])
    record["study"]["model"]["progress_unit"] = unit
    record["study"]["config"]["trainer"] = trainer
    (configuration,) = record["finalization"]["configurations"]
    for training in [*record["trials"], *configuration["replicas"]]:
        value = training["value"]
        training["intermediate"] = [[119, value - 0.1], [239, value]]
        training["epochs"] = STEPS
        training["best_epoch"] = 239
        training["summary"] = {"best/train/accuracy": value + 0.1, "best/val/accuracy": value}
    return record


@pytest.fixture
def in_steps() -> dict[str, Any]:
    return record_in("step", {"max_epochs": None, "max_steps": STEPS})


@pytest.fixture
def pages(in_steps: dict[str, Any], tmp_path: Path) -> Path:
    folder = tmp_path / "report"
    build(in_steps, folder)
    return folder


@pytest.mark.parametrize(
    ("study", "unit", "limit"),
    [
        ({}, "epoch", None),
        ({"config": {"trainer": {"max_epochs": 8, "max_steps": None}}}, "epoch", 8),
        ({"config": {"trainer": {"max_epochs": None, "max_steps": 90}}}, "step", 90),
        (
            {
                "model": {"progress_unit": "step"},
                "config": {"trainer": {"max_epochs": None, "max_steps": 90}},
            },
            "step",
            90,
        ),
        (
            {
                "model": {"progress_unit": "episode"},
                "config": {"trainer": {"max_epochs": None, "max_steps": 90}},
            },
            "episode",
            None,
        ),
    ],
)
def test_the_unit_and_the_limit_are_those_of_the_record(
    study: dict[str, Any], unit: str, limit: int | None
) -> None:
    assert progress_unit(study) == unit
    assert training_limit(study) == limit


def test_the_end_of_a_training_is_beside_its_limit_in_steps(in_steps: dict[str, Any]) -> None:
    confirmation = describe_confirmation(view(in_steps))
    assert confirmation is not None
    assert confirmation["finalists"][0]["ends"] == {"best": 239, "epochs": STEPS, "limit": STEPS}


def test_the_figures_are_by_step(pages: Path) -> None:
    html = (pages / "index.html").read_text()
    for name in ("curves", "seeds"):
        assert f"{name}.svg" in html or (pages / "figures" / f"{name}.svg").is_file()
    assert "val/accuracy by step." in html
    assert "with a dot at the best step" in html
    assert "each replica's best step" in html or "each replica&#39;s best step" in html
    assert "validation examples at the best step, mean over the seeds" in html


def test_no_page_of_it_speaks_of_epochs(pages: Path) -> None:
    html = (pages / "index.html").read_text()
    assert ">Best step<" in html
    assert ">Steps<" in html
    assert "steps count from 0. The checkpoint of the best step is" in html
    words = (pages / "report.md").read_text()
    assert " steps | time |" in words
    for text in (html, words):
        assert "epoch" not in text.lower()


def test_a_study_in_epochs_says_epochs(tmp_path: Path) -> None:
    record = record_in("epoch", {"max_epochs": STEPS, "max_steps": None})
    build(record, tmp_path / "report")
    html = (tmp_path / "report" / "index.html").read_text()
    assert ">Best epoch<" in html
    assert "val/accuracy by epoch." in html
    assert "best step" not in html


def test_a_comparison_names_the_unit_of_each_study(in_steps: dict[str, Any]) -> None:
    in_epochs = record_in("epoch", {"max_epochs": STEPS})
    steps, epochs = (describe_study(each, view(each)) for each in (in_steps, in_epochs))
    assert steps["progress_unit"] is ProgressUnit.STEP
    assert json.loads(json.dumps(steps))["progress_unit"] == "step"
    assert "progress_unit" not in epochs
    assert _progress_row([steps])[:2] == ("steps", ["720"])
    assert _progress_row([epochs])[:2] == ("epochs", ["720"])
    assert _progress_row([steps, epochs])[:2] == ("progress", ["720 steps", "720 epochs"])


def test_the_losses_by_epoch_do_not_mark_a_step() -> None:
    """What a training in steps logs of its losses is by epoch; the step that was kept is none."""
    points = [[epoch, 1 / (epoch + 1)] for epoch in range(4)]
    curves: Any = {"metric": "loss", "train": points, "val": points, "best": 239}
    plate = draw_loss({"curves": curves})
    assert plate is not None
    assert "239" not in plate.caption
    kept = draw_loss({"curves": {**curves, "best": 2}})
    assert kept is not None
    assert "marks epoch 2" in kept.caption
