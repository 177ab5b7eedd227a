"""What a finished study is good for, from its store alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dlsearch.cli.commands.compare import compare
from dlsearch.cli.commands.export import export
from dlsearch.cli.commands.look import look
from dlsearch.cli.commands.predict import predict
from tests.e2e.running import TINY, Site

WORDS = [w for w in TINY if w != "study.finalize=false"] + [
    "data=digits",
    "sampler=random",
    "study.n_trials=2",
]
WORDS += ["study.confirm.top=1", "study.confirm.seeds=2"]


@pytest.fixture(scope="module")
def site(place: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two finished studies and one that is not, their data set gone; five digits as pictures."""
    site = place("use")
    for name, more in (
        ("one", ["seed=0"]),
        ("two", ["seed=1"]),
        ("open", ["study.finalize=false"]),
    ):
        site.run("-m", *WORDS, f"study.name={name}", *more)
    shutil.rmtree(site.store / "cache")
    pixels, labels = load_digits(return_X_y=True)
    for i in range(5):
        image = np.round(pixels[i] * (255 / 16)).astype(np.uint8).reshape(8, 8)
        (site.folder / "digits").mkdir(exist_ok=True)
        Image.fromarray(image).save(site.folder / "digits" / f"{i}_{labels[i]}.png")
    return site


@pytest.fixture
def store(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The verbs of this process work on the site's store."""
    monkeypatch.setenv("DLSEARCH_STORE", str(site.store))
    monkeypatch.chdir(site.folder)
    return site


def test_predict_needs_neither_data_nor_lightning_nor_mlflow(site: Site) -> None:
    code = (
        "import sys, json\nfrom dlsearch.cli.commands.predict import predict\n"
        "code = predict(['one', 'digits', '--json']);"
        "heavy = [m for m in ('pytorch_lightning', 'mlflow', 'torchmetrics', 'matplotlib') if m in sys.modules];"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    process = _python(site, code)
    found = json.loads(process)
    assert [row["file"] for row in found["predictions"]] == [
        f"digits/{i}_{i}.png" for i in range(5)
    ]
    assert all(0 < row["probability"] <= 1 and len(row["top"]) == 3 for row in found["predictions"])
    assert found["model"]["kind"] == "confirm"


def _python(site: Site, code: str) -> str:
    import os
    import subprocess

    environment = {**os.environ, "PYTHONPATH": site.path, "DLSEARCH_STORE": str(site.store)}
    done = subprocess.run(
        [site.python, "-c", code], cwd=site.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_exported_model_says_what_the_study_says(
    store: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(["one", "--out", "exported"]) == 0
    assert "allowed" in capsys.readouterr().out
    assert predict(["one", "digits", "--json"]) == predict(["exported", "digits", "--json"]) == 0
    first, second = _documents(capsys.readouterr().out)
    assert [r["class"] for r in first["predictions"]] == [r["class"] for r in second["predictions"]]
    assert (
        json.loads((store.folder / "exported/model.json").read_text())["test"]["n"]
        == first["model"]["test"]["n"]
    )


def _documents(text: str) -> list[dict[str, Any]]:
    parts = text.replace("}\n{", "}\n\0{").split("\0")
    return [json.loads(part) for part in parts]


def test_a_file_that_is_no_image_does_not_stop_the_others(
    store: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.png").write_text("no")
    assert predict(["one", "broken.png", "digits/0_0.png", "--top", "1"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("digits/0_0.png  ")
    assert said.err == "dlsearch: broken.png: is no image\n"


def test_what_cannot_be_used_is_one_line(site: Site) -> None:
    said = site.run("predict", "open", "digits", code=2)
    assert said.count("\n") == 1
    assert "'open' is not finalised" in said
    assert "there is no study 'none'" in site.run("export", "none", "--out", "x", code=2)


def test_the_kept_model_is_looked_into_and_its_run_has_the_page(
    store: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((store.store / "studies/one/report/report.json").read_text())
    first = record["test"]["main"]["inside"]
    assert first["n"] == 64
    assert first["gradients"]["layers"] == ["linear"]
    assert look(["one", "--json", "tracking.enabled=false"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in first if key != "curves"} == {
        k: v for k, v in first.items() if k != "curves"
    }
    page = Path(found["page"])
    assert page.read_text("utf-8").count("<figure") == 1  # the rows of the linear classifier
    (journal,) = page.parent.parent.glob("journal.a*.jsonl")
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {key: rows[-2][key] for key in ("file", "to")} == {"file": "look", "to": ""}
    assert (rows[-1]["row"], rows[-1]["status"]) == ("status", "FINISHED")
    assert look(["one/0", "digits", "--out", "mine", "tracking.enabled=false"]) == 0
    assert "looked at 5 examples of files" in capsys.readouterr().out
    assert json.loads(Path("mine/look.json").read_text())["gradients"] is None


def test_studies_of_the_store_are_compared(store: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(["one", "two", "--json", "--out", "page"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in facts["studies"]] == ["one", "two"]
    assert facts["data"]["verdict"] == "same"
    assert facts["curves"]["kind"] == "expected"
    assert [s["confirmed"]["n"] for s in facts["studies"]] == [2, 2]
    assert facts["pairs"][0]["confirmed"]["test"] == "Welch's t-test"
    assert facts["pairs"][0]["test"] is not None
    assert (store.folder / "page/index.html").is_file()
