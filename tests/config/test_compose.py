"""Composing: every YAML of ours composes, and every complaint is one line."""

from __future__ import annotations

import inspect

import pytest
from omegaconf import OmegaConf

from dlsearch.config.build import check_targets, locate
from dlsearch.config.compose import compose_config, config_dir, hydra_groups, resolve, seconds
from dlsearch.core.errors import ConfigError
from dlsearch.space.grammar import is_form

YAMLS = sorted(
    (path.parent.relative_to(config_dir()).as_posix(), path.stem)
    for path in config_dir().rglob("*.yaml")
    if path.parent != config_dir() and not path.is_relative_to(config_dir() / "hydra")
)


@pytest.mark.parametrize(("group", "option"), YAMLS)
def test_every_yaml_composes_and_names_allowed_targets(group, option):
    cfg = compose_config([f"{group}={option}"])
    for each in (
        "model",
        "task",
        "data",
        "optimizer",
        "scheduler",
        "callbacks",
        "sampler",
        "pruner",
    ):
        check_targets(cfg[each], each)


@pytest.mark.parametrize(
    ("group", "option"),
    [y for y in YAMLS if y[0] in ("sampler", "pruner", "optimizer", "callbacks")],
)
def test_every_key_is_an_argument_of_its_target(group, option):
    def visit(node):
        if isinstance(node, dict):
            if "_target_" in node:
                names = inspect.signature(locate(node["_target_"], group)).parameters
                assert {key for key in node if not key.startswith("_")} <= set(names)
            for value in node.values():
                visit(value)

    visit(resolve(compose_config([f"{group}={option}"]), group))


def test_experiments_are_searchable_as_they_are():
    for path in (config_dir() / "experiment").glob("*.yaml"):
        cfg = compose_config([f"experiment={path.stem}"])
        assert cfg.study.name == path.stem
        for key in _leaves(OmegaConf.to_container(cfg.space)):
            assert OmegaConf.select(cfg, key, default="absent") != "absent", key


def _leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and not is_form(value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_groups_are_known():
    assert {
        "model",
        "data",
        "task",
        "optimizer",
        "scheduler",
        "sampler",
        "pruner",
        "experiment",
    } <= hydra_groups()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", 90),
        ("2h", 7200),
        ("1h30m", 5400),
        ("45", 45),
        ("0.5m", 30),
        ("1d", 86400),
        (None, None),
    ],
)
def test_durations(text, value):
    assert seconds(text, "study.timeout") == value


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-3s", "0", "1h and a bit", "s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match=r"study\.timeout"):
        seconds(text, "study.timeout")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("study.n_trials=x", "study.n_trials"),
        ("optimizer.lrr=1", "optimizer.lrr"),
        ("nothing.at.all=1", "nothing.at.all"),
        ("model=none_such", "model"),
        ("trainer.max_epochs=[1]", "trainer.max_epochs"),
        ("=3", ""),
    ],
)
def test_a_complaint_is_one_line_that_names_the_key(override, key):
    with pytest.raises(ConfigError) as error:
        compose_config([override])
    assert "\n" not in str(error.value)
    assert key in str(error.value)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        (
            "optimizer.lrr=1",
            "did you mean optimizer.lr? or, where its class takes it: +optimizer.lrr=1",
        ),
        ("optimzer=sgd", "did you mean optimizer?"),
        ("lr=0.1", "did you mean optimizer.lr or transfer.lr?"),
        ("space.optimizer.weight_decy=null", "did you mean space.optimizer.weight_decay?"),
        ("experiment=quickstrat", "did you mean quickstart?"),
        ("model=lente", "did you mean lenet?"),
        ("nothing.at.all=1", "see dlsearch --cfg job"),
    ],
)
def test_a_misspelt_name_is_met_with_the_nearest(override, hint):
    with pytest.raises(ConfigError) as error:
        compose_config([override])
    assert error.value.hint == hint
