"""``verify`` and ``reproduce`` on a study with pruned, killed, duplicate and failed trials; and six planted changes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from dlsearch.cli.main import main
from dlsearch.core import provenance
from dlsearch.execution.processes.forkserver import ForkServer
from tests.e2e.running import until

ADMITTED = "allow_targets=[planted]"
STUDY = [
    "-m", "study.name=s", "study.n_trials=6", "data=image_folder", "data.root=images", "data.num_classes=2",
    "data.shape=[1,8,8]", "data.val_size=16", "data.test_size=8", "data.num_workers=0", "data.batch_size=8",
    "data.augment.horizontal_flip=0.5", "model=mlp", "model.width=8", "model.depth=1", "model.dropout=0.2",
    "callbacks=none", "space.data.batch_size=null", "space.model.dropout=null", "optimizer.weight_decay=0",
    "trainer.max_epochs=6", "trainer.accelerator=cpu", "tracking.enabled=false", "tracking.system_metrics_s=null",
    "sampler=random", "study.default_first=false", ADMITTED, "hydra.launcher.workers=1",
    "study.confirm.top=1", "study.confirm.seeds=2",
    # The first is killed and goes on; the bound prunes the one that learns nothing; one diverges;
    # one is a duplicate.
    "worker.threads=1", "optimizer=sgd", "pruner=threshold", "pruner.lower=0.7", "pruner.n_warmup_steps=3",
    "study.enqueue=[{optimizer.lr:0.05},{optimizer.lr:1e-12},{optimizer.lr:1e30},{optimizer.lr:0.05}]",
    "optimizer.lr=choice(0.02,0.05,0.1,1e-12,1e30)",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(place):
    """Its first trial was killed outright after some epochs, and resumed."""
    site = place("again")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (site.folder / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 160, (8, 8), dtype=np.uint8) + np.uint8(60 * label)
            Image.fromarray(pixels).save(site.folder / "images" / name / f"{number:02}.png")
    (site.folder / "planted").mkdir()
    (site.folder / "planted/__init__.py").write_text("A = 1\n")
    site.words = [*STUDY, f"data.root={site.folder / 'images'}"]
    site.words.remove("data.root=images")
    with site.running(*site.words) as process:
        until(lambda: list(site.store.glob("studies/s/**/last.ckpt")), timeout=120)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    assert site.finished() == {}, "killed in its first trial"
    site.run(*site.words)
    return site


@pytest.fixture
def here(study, warm, monkeypatch, capsys):
    """``dlsearch verify`` in this process, on the warm server; returns its exit code and what it says."""
    monkeypatch.chdir(study.folder)
    monkeypatch.syspath_prepend(study.folder)
    monkeypatch.setenv("DLSEARCH_STORE", str(study.store))
    monkeypatch.setattr(
        ForkServer, "start", lambda *_, **__: ForkServer(warm.path, None, None, warm.key)
    )
    monkeypatch.setattr(ForkServer, "stop", lambda _: None)

    def run(*words):
        provenance.origin.cache_clear()
        provenance._all_packages.cache_clear()
        with pytest.raises(SystemExit) as end:
            main(["verify", ADMITTED, *words])
        code = end.value.code
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    yield run
    provenance.origin.cache_clear()
    provenance._all_packages.cache_clear()


def test_the_study_has_every_kind(study):
    rows = study.json("trials", "s")
    assert rows[0]["attempt"] == 2
    assert (rows[1]["state"], rows[2]["state"], rows[2]["reason"]) == ("pruned", "failed", "nan")
    assert rows[3]["duplicate_of"] == 0


def files(store):
    """When each was written; the database is compared by its rows."""
    return {
        p: p.stat().st_mtime_ns
        for p in store.rglob("*")
        if p.is_file() and not p.name.startswith("dlsearch.db")
    }


def test_all_of_them_are_equal(study, here):
    before = files(study.store)
    trials = study.rows("SELECT * FROM dlsearch_attempt"), study.rows("SELECT * FROM trials")
    code, said = here("s", "--sample", "20", "--json")
    found = json.loads(said)
    assert code == 0, said
    assert found["share"] == 1.0
    assert {0, 1, 2} <= {each["number"] for each in found["checked"]}
    assert 3 not in {each["number"] for each in found["checked"]}, "it took over a result"
    kinds = {(each["state"], each["resumed"]) for each in found["checked"]}
    assert {("complete", True), ("pruned", False), ("failed", False)} <= kinds
    assert all(len(each["again"]["state_sha256"]) == 64 for each in found["checked"])
    assert files(study.store) == before, "nothing of the study was touched"
    assert trials == (
        study.rows("SELECT * FROM dlsearch_attempt"),
        study.rows("SELECT * FROM trials"),
    )


def test_one_trial_says_so_in_a_line(here):
    code, said = here("s/1")
    assert (code, said.count("\n")) == (0, 1)
    assert said.startswith("trial 1 (pruned): equal, bit for bit: weights ")


def edit(site, change):
    """Change the study's document; returns what puts it back."""
    with closing(sqlite3.connect(site.store / "dlsearch.db")) as connection, connection:
        ((old,),) = connection.execute("SELECT document FROM dlsearch_study").fetchall()
        document = json.loads(old)
        change(document)
        connection.execute("UPDATE dlsearch_study SET document=?", (json.dumps(document),))

    def undo():
        with closing(sqlite3.connect(site.store / "dlsearch.db")) as connection, connection:
            connection.execute("UPDATE dlsearch_study SET document=?", (old,))

    return undo


def plant_config(site, _):
    return edit(site, lambda document: document["config"]["task"].update(label_smoothing=0.1)), []


def plant_seed(site, _):
    return edit(site, lambda document: document.update(seed=5)), []


def plant_threads(_site, _):
    return lambda: None, ["worker.threads=2"]


def plant_data(site, _):
    path = site.folder / "images/dark/00.png"
    old = path.read_bytes()
    Image.fromarray(np.full((8, 8), 7, dtype=np.uint8)).save(path)
    return lambda: path.write_bytes(old), []


def plant_code(site, _):
    path = site.folder / "planted/__init__.py"
    path.write_text("A = 2\n")
    return lambda: path.write_text("A = 1\n"), []


def plant_package(site, monkeypatch):
    folder = site.folder / "packages/planted-1.0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site.folder / "packages")
    return lambda: None, []


PLANTED = [
    (plant_config, "task.label_smoothing: recorded 0.0, now 0.1"),
    (plant_seed, "seed: recorded "),
    (plant_threads, "threads: recorded 1, now 2"),
    (plant_data, "data "),
    (plant_code, "code planted/__init__.py: recorded "),
    (plant_package, "package planted: recorded nothing, now 1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "named"), PLANTED)
def test_a_planted_change_is_refused_by_name(study, here, monkeypatch, plant, named):
    undo, words = plant(study, monkeypatch)
    try:
        code, said = here("s/0", *words)
    finally:
        undo()
    assert code == 2, said
    assert said.startswith("trial 0 (complete, resumed): not trained: ")
    assert f"\n  {named}" in said


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(PLANTED[:1], id="config", marks=pytest.mark.storm),
        pytest.param(PLANTED[1:2], id="seed", marks=pytest.mark.storm),
        pytest.param(PLANTED[2:], id="the rest"),
    ],
)
def test_the_six_planted_changes_are_named_by_the_command_itself(study, monkeypatch, planted):
    """A record that was changed is refused before this machine is looked at; what differs there is named together."""
    made = [plant(study, monkeypatch) for plant, _ in planted]
    path = f"{study.folder / 'packages'}:{study.path}" if len(planted) > 1 else study.path
    words = [word for _, given in made for word in given]
    try:
        said = study.run("verify", "s/0", ADMITTED, *words, code=2, env={"PYTHONPATH": path})
    finally:
        for undo, _ in reversed(made):
            undo()
    lines = said.splitlines()
    assert lines[0].startswith("trial 0 (complete, resumed): not trained: ")
    assert len(lines[1:-1]) >= len(planted)
    for _, named in planted:
        assert any(line.startswith(f"  {named}") for line in lines[1:-1]), said


def test_anyway_trains_and_says_what_it_comes_to(study, here):
    undo, _ = plant_code(study, None)
    try:
        code, said = here("s/1", "--anyway")
    finally:
        undo()
    assert code == 0
    assert "equal, bit for bit" in said
    assert "although code planted/__init__.py" in said

    with closing(sqlite3.connect(study.store / "dlsearch.db")) as connection, connection:
        query = "SELECT id, result FROM dlsearch_attempt WHERE kind='trial' AND number=1"
        ((row, result),) = connection.execute(query).fetchall()
        forged = json.dumps(json.loads(result) | {"state_sha256": "0" * 64})
        connection.execute("UPDATE dlsearch_attempt SET result=? WHERE id=?", (forged, row))
    try:
        code, said = here("s/1")
    finally:
        with closing(sqlite3.connect(study.store / "dlsearch.db")) as connection, connection:
            connection.execute("UPDATE dlsearch_attempt SET result=? WHERE id=?", (result, row))
    assert code == 1
    assert "trial 1 (pruned): NOT equal" in said
    assert f"  state_sha256: recorded {'0' * 64}, again " in said


@pytest.mark.parametrize(("words", "said"), [
    (["s/3"], "s/3: took over the result of trial 0"),
    (["s/99"], "s/99: there is no such trial"),
    (["nobody"], "there is no study 'nobody'"),
    (["s", "optimizer.lr=1"], "optimizer.lr: verify trains what the record says"),
    (["s", "--sample", "0"], "--sample: expected at least 1"),
])  # fmt: skip
def test_bad_input_is_one_line(here, words, said):
    code, found = here(*words)
    assert code == 2
    assert said in found
    assert found.count("\n") == 1


@pytest.mark.storm
def test_the_study_is_reproduced_from_its_report_alone(study):
    report = study.store / "studies/s/report/report.json"
    moved = study.folder / "received.json"
    moved.write_text(report.read_text())
    found = study.json("reproduce", str(moved), "--store", str(study.folder / "other"), ADMITTED)
    assert found["equal"] is True
    assert [trial["verdict"] for trial in found["trials"]] == ["equal"] * 6
    assert found["winner"]["equal"]
    assert found["proposals"] == [], "random sampling: drawn again"
    assert (study.folder / "other/studies/s/report/index.html").is_file()
