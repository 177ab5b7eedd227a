"""The records in experiments/ are what ``dlsearch report`` wrote, whole, and ``make experiments`` makes them again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlsearch.app.serve import preload
from dlsearch.config.compose import compose_config
from dlsearch.report.facts.facts import facts
from dlsearch.report.load import view
from dlsearch.report.output import json_by_lines
from dlsearch.report.restore import restore_record
from dlsearch.verification import report_file, reproduce

ROOT = Path(__file__).resolve().parents[2]
RECORDS = sorted(path.parent for path in (ROOT / "experiments").glob("*/report.json"))


@pytest.mark.parametrize("folder", RECORDS, ids=[folder.name for folder in RECORDS])
def test_a_committed_record_is_as_it_was_written(folder: Path) -> None:
    sums = dict(
        line.split("  ", 1)[::-1]
        for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines()
    )
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {*sums, "SHA256SUMS", "config.yaml"}
    for name, digest in sums.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("folder", RECORDS, ids=[folder.name for folder in RECORDS])
def test_it_holds_no_path_of_the_machine_that_made_it(folder: Path) -> None:
    for name in ("report.json", "config.yaml"):
        assert not re.search(
            r"(?<![\w.])/(?:home|root|Users|tmp|work|mnt)/", (folder / name).read_text("utf-8")
        ), name


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two documents differ by more than the last digits of a number."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, (first, second) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(first, second, f"{path}[{place}]")
    elif isinstance(ours, float) and isinstance(theirs, float):
        if ours != pytest.approx(theirs, rel=1e-6, abs=1e-9):
            yield f"{path}: {ours}, recorded {theirs}"
    elif ours != theirs:
        yield f"{path}: {ours!r}, recorded {theirs!r}"


@pytest.mark.parametrize("folder", RECORDS, ids=[folder.name for folder in RECORDS])
def test_it_says_what_the_program_says_of_its_observations(folder: Path) -> None:
    """Where this fails, a wording or a computation changed: python benchmarks/rebuild_records.py."""
    recorded = json.loads((folder / "report.json").read_text("utf-8"))
    again = json.loads(json_by_lines(facts(view(restore_record(recorded)))))
    for of_a_forest in ("importances", "checklist"):  # another processor may draw other trees
        del recorded[of_a_forest], again[of_a_forest]
    assert list(differences(again, recorded)) == []


def test_make_experiments_makes_studies_that_are_named_like_their_experiments() -> None:
    found = re.search(r"^EXPERIMENTS \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    names = found[1].split()
    assert {"softmax_mnist", "lenet_mnist", "convnet_fashion_mnist"} <= set(names)
    assert {folder.name for folder in RECORDS} <= set(names)
    for name in names:
        assert compose_config([f"experiment={name}"]).study.name == name


@pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)
def test_it_can_be_run_again(folder: Path) -> None:
    report = report_file.load(folder / "report.json")
    document = reproduce.document_of(report)
    assert document["racing_rule"] == 1, "all of them began before there was another"
    assert preload([document["config"]])[2:], "its nets are admitted"
