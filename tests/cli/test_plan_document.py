"""What ``plan`` says of a search, and its JSON document, as kept here byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsearch.cli.commands.plan import plan

DOCUMENTS = Path(__file__).parent / "documents"
COMMON = [
    "model=lenet",
    "data=digits",
    "study.n_trials=4",
    "hydra.launcher.workers=1",
    "worker.threads=1",
    "trainer.accelerator=cpu",
    "paths.store=/store",
    "paths.data=/data",
]
SEARCHES = {
    "epochs": ["optimizer.lr=tag(log, interval(1e-4, 1e-1))", "model.dropout=choice(0.0, 0.5)"],
    "steps": [
        "optimizer.lr=choice(0.1, 0.01)",
        "trainer.max_epochs=null",
        "trainer.max_steps=500",
        "study.confirm=false",
        "sampler=grid",
        "space=none",
    ],
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_plan_and_its_document(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*COMMON, *SEARCHES[name]]
    assert plan([*words, "--json"]) == 0
    assert capsys.readouterr().out == (DOCUMENTS / f"plan.{name}.json").read_text("utf-8")
    assert plan(words) == 0
    assert capsys.readouterr().out == (DOCUMENTS / f"plan.{name}.txt").read_text("utf-8")
