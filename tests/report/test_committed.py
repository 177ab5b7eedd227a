"""The records in experiments/ are what ``dlsearch report`` wrote, whole, and ``make experiments`` makes them again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from dlsearch.app.serve import preload
from dlsearch.config.compose import compose_config
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
