"""Options of searched groups: in folders, put elsewhere, and as whole recipes; and values in their key's type."""

from __future__ import annotations

import functools

import pytest

from dlsearch.config.compose import compose_config, hydra_groups
from dlsearch.core.errors import ConfigError
from dlsearch.planning.draft import make_draft
from dlsearch.study.trial_config import trial_config

FILES = {
    "task/head/small.yaml": "hidden: 8\n",
    "task/head/large.yaml": "hidden: 64\n",
    "experiment/narrow.yaml": """
        # @package _global_
        defaults: [{override /model: mlp}, {override /space: none}]
        model: {width: 8, depth: 1}
        trainer: {max_epochs: 2}
        study: {n_trials: 4, name: narrow}
        space: {optimizer.lr: "interval(0.01, 0.1)", model.depth: "choice(1, 2)"}
        """,
    "experiment/wide.yaml": """
        # @package _global_
        defaults: [{override /model: lenet}, {override /space: none}]
        trainer: {max_epochs: 2}
        study: {n_trials: 4, name: wide}
        space: {optimizer.lr: "interval(0.01, 0.1)"}
        """,
    "experiment/longer.yaml": """
        # @package _global_
        trainer: {max_epochs: 5}
        study: {n_trials: 5}
        """,
    "experiment/otherwise.yaml": """
        # @package _global_
        defaults: [{override /space: none}]
        trainer: {max_epochs: 2}
        study: {n_trials: 4}
        space: {optimizer.lr: "interval(0.5, 0.6)"}
        """,
    "preset/loud.yaml": """
        # @package model
        dropout: 0.5
        """,
    "preset/calm.yaml": """
        # @package model
        dropout: 0.1
        """,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from textwrap import dedent

    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip())
    return str(folder)


@pytest.fixture(scope="module")
def make(folder):
    @functools.cache
    def make(*overrides):
        def compose(given):
            return compose_config(list(given), config_dirs=[folder], with_hydra=True)

        return make_draft(compose, list(overrides), params=None, groups=hydra_groups([folder]))

    return make


def config_of(draft, **params):
    document = {"config": draft.config, "options": draft.options}
    return trial_config(document, params, seed=1)


def test_groups_in_folders_are_found(folder):
    assert {"task", "task/head", "experiment", "preset"} <= hydra_groups([folder])


def test_a_group_in_a_folder(make):
    draft = make("model=mlp", "task/head=small,large", "space=none")
    assert [dim.name for dim in draft.space.dimensions] == ["task/head"]
    assert (draft.default, draft.config["task"]["head"]) == ({"task/head": "small"}, {"hidden": 8})
    large = config_of(draft, **{"task/head": "large"})
    assert large["task"]["head"] == {"hidden": 64}
    assert large["task"]["_target_"] == draft.config["task"]["_target_"]
    assert len(draft.representatives()) == 2


def test_a_group_in_a_folder_within_a_group_that_is_searched_too(make):
    draft = make("task=classification,auxiliary", "task/head=small,large", "space=none")
    config = config_of(draft, **{"task": "auxiliary", "task/head": "large"})
    assert config["task"]["head"] == {"hidden": 64}
    assert config["task"]["_target_"] == draft.options["task"]["auxiliary"]["_target_"]


def test_a_key_of_a_group_in_a_folder(make):
    draft = make("task/head=small,large", "task.head.hidden=choice(1,2)", "space=none")
    dims = {dim.name: dim for dim in draft.space.dimensions}
    assert dims["task.head.hidden"].when is None
    assert config_of(draft, **{"task/head": "large", "task.head.hidden": 2})["task"]["head"] == {
        "hidden": 2
    }


def test_a_group_put_elsewhere(make):
    draft = make("model=mlp", "+optimizer@task.second=adam,sgd", "space=none")
    config = config_of(draft, **{"optimizer@task.second": "sgd"})
    assert config["task"]["second"]["_target_"] == "torch.optim.SGD"
    assert config["optimizer"] == draft.config["optimizer"]


def test_options_that_write_into_another_section(make):
    draft = make("model=mlp", "+preset=loud,calm", "space=none")
    assert config_of(draft, preset="loud")["model"]["dropout"] == 0.5
    assert config_of(draft, preset="calm")["model"]["dropout"] == 0.1


def test_whole_recipes(make):
    draft = make("experiment=narrow,wide")
    assert draft.name == "narrow_or_wide"
    assert draft.study["n_trials"] == 4
    dims = {dim.name: dim for dim in draft.space.dimensions}
    assert list(dims) == ["optimizer.lr", "experiment", "model.depth"]
    assert dims["model.depth"].when == {"experiment": ["narrow"]}
    assert dims["optimizer.lr"].when is None
    wide = config_of(draft, experiment="wide", **{"optimizer.lr": 0.05})
    assert (wide["model"]["_target_"].split(".")[-1], wide["optimizer"]["lr"]) == ("LeNet5", 0.05)
    narrow = config_of(draft, experiment="narrow", **{"model.depth": 2})
    assert (narrow["model"]["width"], narrow["model"]["depth"]) == (8, 2)
    assert len(draft.representatives()) == 2
    assert draft.config["study"]["name"] == "narrow_or_wide"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment=narrow,longer"], r"^experiment: .*study\.n_trials, trainer\.max_epochs \(hint: .*=4 trainer\.max_epochs=2"),
        (["experiment=narrow,otherwise"], r"^optimizer\.lr: is searched differently .*optimizer\.lr='interval\(0\.01, 0\.1\)'"),
        (["experiment=narrow,wide", "model=mlp,lenet"], r"^model: cannot be searched beside experiment"),
        (["experiment=narrow,absent"], r"^experiment: there is no experiment named 'absent'"),
        (["+optimizer@second=adam,sgd"], r"^optimizer@second: .*\+optimizer@task\.second=adam"),
        (["task/tail=a,b"], r"^task/tail: expected a config key or group"),
        (["data.stream=true"], r"^data\.stream: .*where its class takes it: \+data\.stream=true"),
        (["data.stream=true,false"], r"^data\.stream: .*where its class takes it: \+data\.stream='choice\(true, false\)'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(make, words, said):
    with pytest.raises(ConfigError, match=said):
        make(*words)


def test_what_differs_may_be_said_for_all(make):
    draft = make("experiment=narrow,longer", "study.n_trials=4", "trainer.max_epochs=2",
                 "space=none", "study.name=both")  # fmt: skip
    assert (draft.name, draft.study["n_trials"]) == ("both", 4)


def test_values_have_the_type_of_the_default(make):
    draft = make("model=mlp", "space=none", "model.width=choice(1e2,2e2)", "model.depth=1e0",
                 "data.batch_size=interval(16,64)", "optimizer.lr=interval(1,2)",
                 "data.val_size=tag(float,interval(100,200))",
                 "study.enqueue=[{data.batch_size:32.0}]")  # fmt: skip
    dims = {dim.name: dim for dim in draft.space.dimensions}
    assert dims["model.width"].choices == (100, 200)
    assert all(type(choice) is int for choice in dims["model.width"].choices)
    assert dims["data.batch_size"].text == "range(16, 65)"
    assert (dims["optimizer.lr"].kind, dims["data.val_size"].kind) == ("float", "float")
    assert draft.config["model"]["depth"] == 1
    assert type(draft.config["model"]["depth"]) is int
    assert draft.enqueue == [{"data.batch_size": 32}]
    (said,) = [each for each in draft.notices if "int by default" in each]
    assert said.startswith("data.batch_size is an int by default (64), so that interval(16, 64)")
    assert "tag(float, interval(16, 64)) gives floats" in said


@pytest.mark.parametrize(
    "words", [["optimizer.lr=abc"], ["optimizer.lr=true"], ["optimizer.lr=abc,0.1"]]
)
def test_no_text_stands_for_a_number(make, words):
    with pytest.raises(ConfigError, match=r"^optimizer\.lr: expected a number, got"):
        make(*words)


def test_tied_values_follow_what_is_searched(make):
    """An interpolation is resolved in each trial, through the values that it was given."""
    from omegaconf import OmegaConf

    draft = make("model=mlp", "space=none", "model.width=choice(8,16)",
                 "+task.hidden=${model.width}", "+data.copies=${oc.select:model.absent,3}")  # fmt: skip
    config = OmegaConf.create(config_of(draft, **{"model.width": 16}))
    assert (config.task.hidden, config.data.copies) == (16, 3)


def test_a_pruner_compares_trials_that_report_at_equal_steps(make):
    words = ("model=mlp", "trainer.max_steps=300", "pruner=median")
    (said,) = [each for each in make(*words).notices if "different steps" in each]
    assert "trainer.val_check_interval=50 trainer.check_val_every_n_epoch=null" in said
    typed = ("trainer.val_check_interval=50", "trainer.check_val_every_n_epoch=null")
    for others in ((*words, *typed), (*words, "pruner=none"), (*words, "data.batch_size=64")):
        assert not [each for each in make(*others).notices if "different steps" in each]


def test_a_pruners_resource_is_the_length_in_steps(make):
    assert make("model=mlp", "pruner=hyperband").config["pruner"]["max_resource"] == 10
    draft = make("model=mlp", "pruner=hyperband", "trainer.max_steps=300")
    assert draft.config["pruner"]["max_resource"] == 300
    draft = make(
        "model=mlp",
        "pruner=patient",
        "pruner@pruner.wrapped_pruner=hyperband",
        "trainer.max_steps=300",
    )
    assert draft.config["pruner"]["wrapped_pruner"]["max_resource"] == 300
