"""A study that would fail is refused before anything is written; one that trains keeps its goals."""

from __future__ import annotations

import pytest

from tests.e2e.running import Site


def own(module, *more):
    """The words of a search of a module."""
    return [
        "--config-dir", "conf", "-m", "experiment=own", "allow_targets=[tests]", "trainer.max_epochs=1",
        "trainer.accelerator=cpu", "task.lr=tag(log,interval(0.01,0.1))", "study.n_trials=1",
        "study.finalize=false", "tracking.enabled=false", "tracking.system_metrics_s=null",
        f"task._target_=tests.foreign.rehearsed.{module}", *more,
    ]  # fmt: skip


RECIPE = """# @package _global_
defaults:
  - override /model: null
  - override /task: null
  - override /data: null
  - override /space: none
  - override /callbacks: none
task: {_target_: tests.foreign.rehearsed.Plain, width: 4, lr: 0.1}
data: {_target_: tests.foreign.rehearsed.Numbers, batch_size: 16}
"""


@pytest.fixture(scope="module")
def site(place) -> Site:
    site = place("rehearsal")
    (site.folder / "conf/experiment").mkdir(parents=True)
    (site.folder / "conf/experiment/own.yaml").write_text(RECIPE)
    return site


def listed(site: Site) -> list[str]:
    return sorted(str(path) for path in site.folder.rglob("*") if path != site.log)


def test_a_refused_command_leaves_nothing_behind(site):
    before = listed(site)
    checkpoint = "{_target_: pytorch_lightning.callbacks.ModelCheckpoint, dirpath: here}"
    said = site.run(
        *own("Plain", "study.objective=val_accuracy", f"+callbacks.c={checkpoint}"), code=2
    )
    assert said.splitlines() == [
        "dlsearch: study.objective: 'val_accuracy' is not logged: the module logs train_loss, val_acc, val_loss"
        " (hint: study.objective=val_acc)"
    ]
    assert listed(site) == before


def test_goals_are_settled_once_and_kept(site):
    typed = own("Draws", "study.objective=val_loss_epoch", "study.name=kept")
    said = site.run(*typed)
    assert "note: study.objective: 'val_loss_epoch' is logged as 'val_loss'" in said
    assert said.count("asks its logger for experiment.add_histogram") == 1
    study = site.json("status", "kept")
    assert (study["objective"], study["direction"]) == ("val_loss", "minimize")
    # the same command again rehearses nothing, and is the same study
    again = site.run(*typed, "study.n_trials=2")
    assert "is logged as" not in again
    assert "2 complete" in again


def test_a_study_may_begin_without(site):
    said = site.run(
        *own("WrongShape", "study.objective=val_acc", "study.rehearsal=false", "study.name=bold"),
        code=1,
    )
    assert "1 failed" in said
