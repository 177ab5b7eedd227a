"""``plan`` and ``-m`` accept and refuse the same words, and say the same of them."""

from __future__ import annotations

import re
import shlex

import pytest

from dlsearch.cli.main import main
from tests.e2e.running import ROOT

GOOD = [
    ["model=mlp"],
    ["model=mlp,lenet", "data=mnist"],
    ["model=mlp", "model.width=choice(1e2,2e2)"],
    ["model=mlp", "model.width=interval(16,64)"],
    ["model=mlp", "model.width='tag(log,int(interval(16,64)))'"],
    ["model=mlp", "model.width=1e2"],
    ["model=mlp", "+model.init=choice(xavier,normal)", "space=none"],
    ["model=mlp", "+task.head.kind=choice(a,b)"],
    ["model=mlp", "+optimizer@task.second=adam,sgd"],
    ["model=mlp", "~callbacks.early_stopping"],
    ["model=mlp", "trainer.max_steps=300", "pruner=hyperband"],
    ["model=mlp", "trainer.max_epochs=-1", "trainer.max_steps=20"],
    ["model=mlp", "trainer.strategy=auto", "trainer.fast_dev_run=2"],
    ["experiment=quickstart"],
    ["experiment=quickstart,mlp_mnist", "study.n_trials=4", "pruner=median", "trainer.max_epochs=2"],
    ["debug=fdr"],
    ["+hydra.sweeper.params={model.width:{choices:[16,32]}}", "model=mlp"],
    ["+hydra.sweeper.params={model.width:{interval:[16,32]}}", "model=mlp"],
    ["+hydra.sweeper.params={model.width:{type:int,low:16,high:32,step:4}}", "model=mlp"],
    ["+hydra.sweeper.params={optimizer.lr:{type:float,low:0.01,high:0.1,log:true}}", "model=mlp"],
    ["+hydra.sweeper.params={optimizer.lr:'interval(0.01,0.1)'}", "model=mlp"],
    ["+hydra.sweeper.params={optimizer.lr:'tag(log,interval(0.01,0.1))'}", "model=mlp"],
    ["+hydra.sweeper.params={model.dropout:'choice(0.1,0.2)'}", "model=mlp"],
    ["study.enqueue=[{optimizer.lr:0.01}]", "model=mlp"],
    ["hydra.launcher.workers=1", "model=mlp"],
]  # fmt: skip
BAD = [
    ["optimizer.lr=abc"],
    ["optimizer.lr=abc,0.1"],
    ["optimizer.lr=interval(1,0)"],
    ["optimizer.lr=loguniform(1,2)"],
    ["optimizer.lr=glob(*)"],
    ["optimizer.lrr=0.1"],
    ["optimizer.lrr=0.1,0.2"],
    ["model=resnett"],
    ["model=mlp,resnett"],
    ["model=interval(0,1)"],
    ["data.stream=true"],
    ["data.stream=true,false"],
    ["study.sampler=tpe"],
    ["study.n_trials=0"],
    ["study.n_trials=many"],
    ["study.n_trials=1,2"],
    ["study.objective=test/accuracy"],
    ["study.enqueue=[{optimizer.lr:abc}]"],
    ["trainer.logger=false"],
    ["trainer.strategy=ddp"],
    ["trainer.devices=2"],
    ["trainer.max_stepz=5"],
    ["+trainer.callbacks=[]"],
    ["trainer.max_epochs=-1"],
    ["experiment=quickstart,mlp_mnist"],
    ["experiment=quickstart,mlp_mnist", "study.n_trials=4", "pruner=median", "trainer.max_epochs=2",
     "model=mlp,lenet"],
    ["+optimizer@second=adam,sgd"],
    ["hydra/sweeper=optuna"],
    ["hydra.sweeper.n_trials=3"],
    ["+hydra.sweeper.n_trials=3"],
    ["+hydra.sweeper.search_space={optimizer.lr:{type:float,low:0.1,high:1}}"],
    ["+hydra.sweeper.custom_search_space=mine.configure"],
    ["+hydra.sweeper.direction=minimize"],
    ["+hydra.sweeper.params={optimizer.lr:{type:floaty,low:0.1,high:1}}"],
    ["+hydra.sweeper.params={optimizer.lr:{interval:[1]}}"],
    ["+hydra.sweeper.params={study.n_trials:'choice(1,2)'}"],
    ["hydra.launcher.workers=none"],
    ["pruner=hyperband", "pruner.min_resource=20"],
]  # fmt: skip


@pytest.fixture
def says(monkeypatch, capsys, tmp_path):
    """The exit code of a command, and its lines on stderr; a search ends where its first process would start."""

    def stop(*_):
        raise SystemExit(0)

    monkeypatch.setattr("dlsearch.app.search.SearchProcesses", stop)
    monkeypatch.setenv("DLSEARCH_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def says(*words: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        return int(end.value.code or 0), capsys.readouterr().err.splitlines()

    return says


def few_at_once(every):
    """A third of the cases in each run of the tests, the others in the storms."""
    return [
        pytest.param(words, id=" ".join(words), marks=[pytest.mark.storm] if index % 3 else [])
        for index, words in enumerate(every)
    ]


@pytest.mark.parametrize("words", few_at_once(GOOD))
def test_both_accept(says, words):
    assert says("plan", "-m", *words) == (0, [])
    assert says("-m", *words) == (0, [])


@pytest.mark.parametrize("words", few_at_once(BAD))
def test_both_refuse_with_the_same_line(says, words):
    planned = says("plan", "-m", *words)
    assert planned[0] == 2
    assert len(planned[1]) == 1, planned
    assert says("-m", *words) == planned


def test_the_plans_of_the_documentation(says):
    text = (ROOT / "docs/spaces.md").read_text()
    commands = re.findall(r"^\$ dlsearch (plan .*)$", text, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        assert says(*shlex.split(command)) == (0, []), command
