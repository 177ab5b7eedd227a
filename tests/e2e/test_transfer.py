"""From one study to the next, and what its best trials say together; over the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.running import TINY, Site

pytestmark = pytest.mark.storm

LEFT_OUT = ("study.finalize=false", "model=linear", "data.train_size=64", "trainer.max_epochs=1")
WORDS = [word for word in TINY if word not in LEFT_OUT] + [
    "data=digits",
    "sampler=random",
    "model=mlp",
]
WORDS += ["model.width=16", "data.train_size=128", "trainer.max_epochs=2", "study.confirm.top=1"]
WORDS += ["study.confirm.seeds=2", "study.n_trials=3"]


@pytest.fixture(scope="module")
def site(place: Callable[..., Site]) -> Site:
    """A finished study, and one that began with its result and searched what to freeze."""
    site = place("transfer")
    site.run("-m", *WORDS, "study.name=source")
    said = site.run(
        "-m", *WORDS, "study.name=moved", "seed=5", "transfer=features,finetune", "transfer.weights=study:source",
        "optimizer.lr=0.01", "optimizer.weight_decay=0",
    )  # fmt: skip
    assert "2 begin anew" in said
    return site


def report(site: Site, name: str) -> Any:
    return json.loads((site.store / f"studies/{name}/report/report.json").read_text())


def test_the_study_knows_what_it_began_with(site: Site) -> None:
    study = report(site, "moved")["study"]
    (sha,) = study["config"]["transfer"]["sha256"].values()
    weights = study["provenance"]["weights"]["study:source"]
    assert weights["sha256"] == sha
    assert weights["from"]["study"]["name"] == "source"
    assert len(weights["new"]) == len(weights["left_out"]) == 2
    source = report(site, "source")
    kept = {
        r["state_sha256"]
        for c in source["again"]["finalization"]["configurations"]
        for r in c["replicas"]
    }
    assert sha in kept  # the digest of the source's own record


@pytest.mark.parametrize("regime", ["features", "finetune"])
def test_a_single_training_begins_with_it_too(site: Site, regime: str) -> None:
    words = [word for word in WORDS if not word.startswith(("study.", "sampler", "space."))]
    said = site.run(*words, f"transfer={regime}", "transfer.weights=study:source")
    assert "2 begin anew" in said


def test_its_trials_are_verified_with_the_same_weights_and_refused_with_others(site: Site) -> None:
    """Last of all the source goes: the study keeps what it began with."""
    said = site.run("verify", "moved/0")
    assert "equal, bit for bit" in said
    (kept,) = (site.store / "weights").iterdir()
    other = next((site.store / "studies/moved/confirm").glob("*/ckpt/best.ckpt"))
    before = kept.read_bytes()
    shutil.copyfile(other, kept)
    try:
        said = site.run("verify", "moved/0", code=2)
    finally:
        kept.write_bytes(before)
    assert "  weights: recorded " in said


def test_another_result_of_the_source_is_no_part_of_it(site: Site) -> None:
    words = [
        *WORDS,
        "study.name=moved",
        "seed=5",
        "transfer=features,finetune",
        "optimizer.lr=0.01",
    ]
    said = site.run(
        "-m", *words, "optimizer.weight_decay=0", "transfer.weights=study:source/1", code=2
    )
    assert said.count("\n") == 1
    assert "transfer" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [(["transfer.weights=study:none"], "no study 'none'"),
     (["transfer.weights=study:fresh"], "cannot begin with its own result"),
     (["transfer.weights=study:source", "model.width=8"], "this net as"),
     (["transfer.weights=study:source", "transfer.freeze=choice(loaded,'none.*')"], "'none.*' matches no tensor")],
)  # fmt: skip
def test_what_cannot_be_moved_is_one_line_and_writes_nothing(
    site: Site, words: list[str], why: str
) -> None:
    said = site.run("-m", *WORDS, "study.name=fresh", *words, code=2)
    assert said.count("\n") == 1
    assert said.startswith("dlsearch: transfer.")
    assert why in said
    assert not (site.store / "studies/fresh").exists()


def test_the_test_set_is_opened_once_for_an_ensemble(site: Site) -> None:
    openings = "SELECT kind FROM dlsearch_test_evaluation WHERE study='source' ORDER BY id"
    assert "the test set stayed closed" in site.run(
        "ensemble", "source", "--top", "2", "--validation"
    )
    assert site.rows(openings) == [("confirm",)]
    found = json.loads(
        site.run("ensemble", "source", "--top", "3", "--json", "tracking.enabled=false")
    )
    again = site.run("ensemble", "source", "--top", "3")
    assert "was not opened again" in again
    assert f"{found['test'][found['chosen']]['accuracy']:.4f}" in again
    assert "opened for no other" in site.run("ensemble", "source", "--top", "2", code=2)
    assert site.rows(openings) == [("confirm",), ("ensemble",)]
    assert found["validation"]["n"] == 64
    recorded = site.rows(
        "SELECT number, value FROM trials JOIN trial_values USING (trial_id) JOIN studies USING (study_id)"
        " WHERE study_name='source'"
    )
    for number, value in recorded:  # as each trial was validated
        assert found["validation"]["each"][f"trial {number}"]["accuracy"] == pytest.approx(value)
    document = json.loads(
        site.rows("SELECT document FROM dlsearch_test_evaluation WHERE kind='confirm'")[0][0]
    )
    assert found["test"]["single"]["accuracy"] == pytest.approx(
        document["metrics"]["test/accuracy"]
    )
    shown = report(site, "source")["test"]
    assert shown["opened"] == 2
    assert shown["main"]["replicas"]  # what is quoted is the model that is kept
    assert shown["ensembles"][0]["members"] == found["members"]
    assert "was opened 2 times" in (site.store / "studies/source/report/report.md").read_text()
