"""Somebody else's module and data: the code of docs/own-model.md itself, in a folder outside, run from the wheel."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from tests.e2e.running import ROOT, Site, exactly

pytestmark = pytest.mark.storm


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with the wheel and the libraries that it needs, and without the checkout."""
    folder = tmp_path_factory.mktemp("clean")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=False)
    packages = next((folder / "venv/lib").iterdir()) / "site-packages"
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    # Path files are read in an interpreter's own site-packages alone: the editable checkout's is
    # not among them.
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return str(folder / "venv/bin/python")


@pytest.fixture(scope="module")
def study(place, python, warm, forks):
    text = (ROOT / "docs/own-model.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml|console)\n(.*?)```", text, re.DOTALL))
    site = place("own", cold=True)
    site.python, site.path = python, ""
    code = "import dlsearch; print(dlsearch.__file__)"
    where = subprocess.run(
        [python, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=site.folder
    )
    assert not where.stdout.startswith(str(ROOT))
    (site.folder / "wines").mkdir()
    (site.folder / "wines/__init__.py").write_text(blocks["python"])
    (file,) = re.findall(r"`(my-conf/\S+\.yaml)`", text)
    (site.folder / file).parent.mkdir(parents=True)
    (site.folder / file).write_text(blocks["yaml"])
    prompt, program, *words = shlex.split(blocks["console"])
    assert (prompt, program) == ("$", "dlsearch")
    small = [
        "study.n_trials=5",
        "trainer.max_epochs=3",
        "study.confirm.top=1",
        "study.confirm.seeds=2",
        "trainer.accelerator=cpu",
        "tracking.enabled=false",
    ]
    said = site.run(*words, *small, "hydra.launcher.workers=2")
    return Site(site.folder, warm, forks), said, blocks["python"]


def test_nothing_of_ours_is_imported_in_it(study):
    assert "dlsearch" not in study[2]


def test_it_is_searched(study):
    site, said, _ = study
    exactly(site, 5)
    rows = site.json("trials", "wines")
    assert all(set(row["params"]) == {"task.lr", "task.hidden", "data.batch_size"} for row in rows)
    assert rows[0]["params"] == {"task.lr": 0.01, "task.hidden": 16, "data.batch_size": 16}
    assert len({row["value"] for row in rows}) > 1
    assert "val_acc" in said


def test_its_winner_is_scored_on_its_test_set(study):
    site, said, _ = study
    (test,) = site.json("status", "wines")["test"]
    assert 0 < test["metrics"]["test_acc"] <= 1
    assert "test set, opened once for trial" in said
    assert (site.store / "studies/wines/report/index.html").is_file()
