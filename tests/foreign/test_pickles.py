"""Under an audit hook: whatever a training's checkpoint holds, only the process of a training unpickles it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.e2e.running import ROOT, Site

EXPERIMENT = """\
# @package _global_
defaults:
  - override /model: null
  - override /task: null
  - override /data: null
  - override /space: none
  - override /callbacks: none

task: {_target_: tests.foreign.checkpoints.Hyperparameters, lr: 0.02}
data: {_target_: tests.foreign.checkpoints.Digits, odd: true, shape: [64]}
callbacks: {history: {_target_: tests.foreign.checkpoints.History}}
study: {objective: val_acc, direction: maximize, n_trials: 2, confirm: {seeds: 1, top: 1}}
trainer: {max_epochs: 2, accelerator: cpu}
tracking: {enabled: false, system_metrics_s: null}
space:
  task.lr: tag(log, interval(0.01, 0.03))
"""
ADMITTED = "allow_targets=[tests.foreign]"
#: What runs in the process of a training, of a scoring, of an ensemble, and of a rehearsal.
TRIAL = ("run_trial", "run_test", "run_ensemble", "try_all")
VERBS = {
    "predict": ["predict", "odd", "digits.npy", ADMITTED],
    "export": ["export", "odd", "--out", "exported", ADMITTED],
    "look": ["look", "odd/0", ADMITTED],
    "report": ["report", "odd"],
    "verify": ["verify", "odd/0", ADMITTED],
    "ensemble": ["ensemble", "odd", "--top", "2", ADMITTED],
    "resume": ["--config-dir", "conf", "-m", "experiment=odd", ADMITTED, "study.name=odd", "study.n_trials=3"],
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("pickles"))
    (site.folder / "conf/experiment").mkdir(parents=True)
    (site.folder / "conf/experiment/odd.yaml").write_text(EXPERIMENT)
    np.save(site.folder / "digits.npy", load_digits().data[:3].astype(np.float32) / 16)
    watched(site, "--config-dir", "conf", "-m", "experiment=odd", ADMITTED, "study.name=odd")
    return site


def watched(site: Site, *words: str) -> list[str]:
    """Run a command; what pickles named in it and its children, and where."""
    log = site.folder / "pickles.txt"
    log.write_text("")
    path = f"{ROOT / 'tests/foreign/hook'}:{site.path}"
    site.run(*words, env={"PYTHONPATH": path, "PICKLES_LOG": str(log)})
    return log.read_text().splitlines()


@pytest.mark.storm
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_unpickles_outside_the_process_of_a_training(site, verb):
    if verb == "resume":  # the last: it goes on with the study
        assert Path(site.store / "studies/odd/t00000/ckpt/best.ckpt").is_file()
    seen = watched(site, *VERBS[verb])
    assert [line for line in seen if not any(f" {name} " in line for name in TRIAL)] == []
    if verb == "ensemble":
        assert any("tests.foreign.checkpoints.Vocabulary" in line for line in seen), (
            "the hook sees those that are unpickled there"
        )
