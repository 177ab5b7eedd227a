"""Spaces: where they come from, which dimensions exist together, and what trials make of them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dlsearch.core import permission
from dlsearch.core.errors import ConfigError
from dlsearch.space.space import MISSING, Space

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = {"model", "data", "optimizer", "hydra/launcher"}


def space_of(group, params=None, argv=(), **kwargs):
    return Space.from_sources(group, params, list(argv), groups=GROUPS, **kwargs)


def names(space):
    return [dim.name for dim in space.dimensions]


# -- sources ---------------------------------------------------------------------------------------
def test_the_command_line_wins_over_params_and_these_over_the_group():
    space, fixed = space_of(
        {"a": "choice(1, 2)", "b": "choice(1, 2)", "c": "choice(1, 2)"},
        {"b": "choice(3, 4)", "c": "choice(3, 4)"},
        ["c=choice(5, 6)"],
    )
    assert {dim.name: list(dim.choices) for dim in space.dimensions} == {
        "a": [1, 2],
        "b": [3, 4],
        "c": [5, 6],
    }
    assert fixed == []


def test_a_fixed_override_takes_the_key_out_of_the_search():
    group = {
        "model": {"dropout": "interval(0, 0.5)"},
        "optimizer.lr": "interval(0, 1)",
        "seeds": "1,2",
    }
    space, fixed = space_of(
        group, {"optimizer.lr": 0.1}, ["model.dropout=0.3", "~seeds", "seed=3", "+new=x"]
    )
    assert names(space) == []
    assert fixed == ["optimizer.lr=0.1", "model.dropout=0.3", "~seeds", "seed=3", "+new=x"]


def test_the_command_line_replaces_what_params_fixed():
    space, fixed = space_of({}, {"a": 1, "b": None, "c": True}, ["a=2", "b=choice(1, 2)"])
    assert fixed == ["c=true", "a=2"]
    assert names(space) == ["b"]


def test_the_old_sweeper_block_moves_over():
    params = {
        "optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "model.depth": {"type": "int", "low": 1, "high": 5},
        "model": {"type": "categorical", "choices": ["lenet", "mlp"]},
        "data.batch_size": "32,64",
        "optimizer": {"beta": "tag(log, interval(0.8, 0.99))"},
        "trainer.max_epochs": 3,
        "+model.extra": "choice(a, b)",
    }
    space, fixed = space_of(None, OmegaConf.to_container(OmegaConf.create(params)), [])
    assert fixed == ["trainer.max_epochs=3"]
    assert {d.name: d.kind for d in space.dimensions} == {
        "optimizer.lr": "float",
        "model.depth": "int",
        "model": "categorical",
        "data.batch_size": "categorical",
        "optimizer.beta": "float",
        "model.extra": "categorical",
    }
    assert space["model"].is_group
    assert not space["data.batch_size"].is_group
    assert space["model.extra"].added


def test_nested_and_dotted_keys_are_one_and_null_takes_out():
    group = {
        "optimizer": {"lr": "interval(0, 1)", "betas": {"a": "choice(1, 2)"}},
        "model": {"dropout": None},
    }
    group["data"] = {}  # what `~space.data.batch_size` leaves
    assert names(space_of(group)[0]) == ["optimizer.lr", "optimizer.betas.a"]
    both = {"optimizer": {"lr": "interval(0, 1)"}, "optimizer.lr": "interval(0, 2)"}
    assert space_of(both)[0]["optimizer.lr"].high == 2


def test_the_space_prefix_is_understood_on_the_command_line():
    space, fixed = space_of({"a": "1,2"}, None, ["space.a=choice(3, 4)", "space.b=null"])
    assert list(space["a"].choices) == [3, 4]
    assert fixed == ["space.b=null"]


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        (["a=1,2", "a=3,4"], "a"),
        (["a=1,2", "a=3"], "a"),
        (["a=3", "a=1,2"], "a"),
        (["seed=1,2"], "seed"),
        (["study.n_trials=1,2"], "study.n_trials"),
        (["hydra/launcher=a,b"], "hydra/launcher"),
        (["hydra.job.name=a,b"], "hydra.job.name"),
        (["sampler=tpe,random"], "sampler"),
        (["pruner.min_resource=1,2"], "pruner.min_resource"),
        (["model=1,2"], "model"),
        (["model=range(1, 5)"], "model"),
        (["model=glob(*)"], "model"),
        (["a.b=1,2", "a=[1],[2]"], "a.b"),
        (["a=choice(1"], "a"),
        (["a"], "a"),
    ],
)
def test_overrides_that_cannot_be_searched(argv, key):
    with pytest.raises(ConfigError) as refused:
        space_of({}, None, argv)
    assert refused.value.key == key
    assert "\n" not in str(refused.value)


def test_a_glob_names_the_options_to_type():
    with pytest.raises(ConfigError, match=r"hint: list the options: model=a,b"):
        space_of({}, None, ["model=glob(*)"])


# -- conditions ------------------------------------------------------------------------------------
CONDITIONAL = {
    "model.dropout": {"interval": [0, 0.5], "when": {"model.norm": [True], "model": "mlp"}},
    "model.norm": {"choices": [True, False], "when": {"model": ["mlp", "lenet"]}},
    "model": "choice(mlp, lenet, alexnet)",
    "optimizer.lr": {"space": "tag(log, interval(1e-4, 1e-1))"},
}


def test_parents_come_before_their_children():
    space, _ = space_of(CONDITIONAL)
    assert names(space) == ["model", "model.norm", "model.dropout", "optimizer.lr"] or names(
        space
    ).index("model") < names(space).index("model.norm") < names(space).index("model.dropout")


def test_only_active_dimensions_are_suggested():
    space, _ = space_of(CONDITIONAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = set()
    for _ in range(60):
        trial = study.ask()
        params = space.suggest(trial)
        seen.add(frozenset(params))
        assert ("model.norm" in params) == (params["model"] != "alexnet")
        assert ("model.dropout" in params) == (
            params["model"] == "mlp" and params["model.norm"] is True
        )
        assert params == space.decode(trial.params)
    assert len(seen) == 3


def test_a_condition_over_a_fixed_key_holds_throughout_or_never():
    group = {"model.dropout": {"interval": [0, 0.5], "when": {"model": "mlp"}}, "a": "1,2"}
    inside, _ = space_of(group, None, ["model=mlp"])
    assert inside["model.dropout"].when is None
    assert names(space_of(group, None, ["model=lenet"])[0]) == ["a"]
    lookup = {"model": "lenet"}.get
    assert names(space_of(group, lookup=lambda key: lookup(key, MISSING))[0]) == ["a"]
    with pytest.raises(ConfigError, match=r"^model.dropout: its when names 'model'"):
        space_of(group)


def test_a_dimension_whose_parent_never_exists_never_exists():
    group = {**CONDITIONAL, "model": None}
    assert names(space_of(group, None, ["model=alexnet"])[0]) == ["optimizer.lr"]


def test_a_parent_narrowed_on_the_command_line_narrows_its_children():
    space, _ = space_of(CONDITIONAL, None, ["model=lenet,alexnet"])
    assert "model.dropout" not in space
    assert space["model.norm"].when == {"model": ["lenet"]}


def test_the_command_line_narrows_the_values_and_keeps_the_condition():
    space, _ = space_of(CONDITIONAL, None, ["model.dropout=interval(0, 0.1)"])
    assert space["model.dropout"].high == 0.1
    assert space["model.dropout"].when == {"model.norm": [True], "model": ["mlp"]}


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (
            {
                "a": {"choices": [1, 2], "when": {"b": 1}},
                "b": {"choices": [1, 2], "when": {"a": 1}},
            },
            "a → b → a",
        ),
        ({"a": {"choices": [1, 2], "when": {"a": 1}}}, "a → a"),
        ({"a": {"choices": [1, 2], "when": {"bb": 1}}, "bbb": "1,2"}, "did you mean bbb"),
        ({"a": {"choices": [1, 2], "when": {"b": "mpl"}}, "b": "mlp,lenet"}, "did you mean mlp"),
        ({"a": {"choices": [1, 2], "when": {"b": 0.5}}, "b": "interval(0, 1)"}, "continuum"),
    ],
)
def test_conditions_that_cannot_be(group, words):
    with pytest.raises(ConfigError, match=words) as refused:
        space_of(group)
    assert refused.value.key == "a"


def test_replaced_dimensions_are_checked_and_ordered():
    space, _ = space_of({"a": "1,2", "b": "1,2"})
    a, b = space.dimensions
    import dataclasses

    turned = space.replace_dimensions([dataclasses.replace(a, when={"b": [2]}), b])
    assert names(turned) == ["b", "a"]
    with pytest.raises(ConfigError, match="neither searched nor fixed"):
        space.replace_dimensions([dataclasses.replace(a, when={"c": [2]}), b])


# -- values ----------------------------------------------------------------------------------------
def test_lists_and_mappings_reach_the_config_as_such(tmp_path):
    space, _ = space_of(
        {
            "model.widths": "choice([256], [128, 64])",
            "model.block": {"choices": [{"k": 1}, None, 3]},
        }
    )
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(
        storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    asked = [space.suggest(study.ask()) for _ in range(8)]
    stored = optuna.load_study(study_name="s", storage=storage).trials
    assert [space.values_of(trial) for trial in stored] == asked
    assert {json.dumps(params["model.widths"]) for params in asked} == {"[256]", "[128, 64]"}
    assert all(isinstance(trial.params["model.widths"], str) for trial in stored)
    assert space.encode({"model.widths": [128, 64]}) == {"model.widths": "[128,64]"}


def test_json_round_trip_and_record_entry():
    space, _ = space_of({**CONDITIONAL, "w": "choice([1], [2])", "n": "range(1, 9, 2)"})
    entries = json.loads(json.dumps(space.to_json({"optimizer.lr": 0.001})))
    again = Space.from_json(entries)
    assert again.to_json() == space.to_json()
    assert again.digest() == space.digest()
    lr = next(entry for entry in entries if entry["name"] == "optimizer.lr")
    assert lr == {
        "name": "optimizer.lr",
        "kind": "float",
        "low": 0.0001,
        "high": 0.1,
        "log": True,
        "step": None,
        "choices": None,
        "when": None,
        "default": 0.001,
        "text": "tag(log, interval(0.0001, 0.1))",
        "is_group": False,
        "added": False,
    }


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"optimizer.lrr": 0.1}, "study.enqueue[3].optimizer.lrr"),
        ({"optimizer.lr": 1.0}, "study.enqueue[3].optimizer.lr"),
        ({"optimizer.lr": "big"}, "study.enqueue[3].optimizer.lr"),
        ({"optimizer.lr": None}, "study.enqueue[3].optimizer.lr"),
        ({"optimizer.lr": math.nan}, "study.enqueue[3].optimizer.lr"),
        ({"model": "vgg"}, "study.enqueue[3].model"),
        ({"model.norm": 1}, "study.enqueue[3].model.norm"),
        ({"model": "alexnet", "model.norm": True}, "study.enqueue[3].model.norm"),
    ],
)
def test_enqueued_sets_are_checked(params, key):
    space, _ = space_of(CONDITIONAL)
    with pytest.raises(ConfigError) as refused:
        space.validate(params, "study.enqueue[3]")
    assert refused.value.key == key
    space.validate(
        {"model": "mlp", "model.norm": True, "model.dropout": 0, "optimizer.lr": 0.01},
        "study.enqueue[0]",
    )
    space.validate({"model.dropout": 0.2}, "study.enqueue[0]")


def test_the_default_configuration_honours_conditions():
    space, _ = space_of(CONDITIONAL)
    base = {"model": "lenet", "model.norm": False, "optimizer.lr": 1.0}
    values, outside = space.default_params(base.__getitem__)  # model.dropout is not asked for
    assert values == base
    assert outside == ["optimizer.lr"]


# -- grids -----------------------------------------------------------------------------------------
def test_size_counts_each_point_once():
    space, _ = space_of(
        {
            "model": "choice(mlp, lenet, alexnet)",
            "model.norm": {"choices": [True, False], "when": {"model": ["mlp", "lenet"]}},
            "model.depth": {"range": [1, 4], "when": {"model.norm": True}},
            "b": "32,64",
        }
    )
    points = list(space.points())
    # mlp, lenet: norm with 3 depths, or none; alexnet alone; each with two batch sizes.
    assert space.size() == len(points) == ((3 + 1) * 2 + 1) * 2
    assert len({json.dumps(point, sort_keys=True) for point in points}) == len(points)
    assert space.grid()["model.depth"] == [1, 2, 3]
    assert Space().size() == 1


def test_a_continuum_has_no_grid():
    space, _ = space_of(CONDITIONAL)
    assert space.size() == math.inf
    with pytest.raises(ConfigError, match=r"^model.dropout: a grid needs finitely many values"):
        space.grid()


def test_the_table_says_what_would_be_searched():
    rows = {row["name"]: row for row in space_of(CONDITIONAL)[0].table()}
    assert rows["model"]["kind"] == "group"
    assert rows["model"]["values"] == "3"
    assert rows["model.dropout"]["when"] == "model.norm is True, model is mlp"
    assert rows["optimizer.lr"]["values"] == "∞"


# -- define by run ---------------------------------------------------------------------------------
@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "theirspace.py").write_text(
        "def space(trial, cfg):\n"
        "    depth = trial.suggest_int('model.depth', 1, 3)\n"
        "    for i in range(depth):\n"
        "        trial.suggest_int(f'model.width_{i}', 8, 16)\n"
        "    return {'model.widths': [cfg['width']] * depth}\n"
        "def wrong(trial, cfg):\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    permission.grant(["theirspace"])
    yield "theirspace"
    sys.modules.pop("theirspace", None)


def test_a_function_of_the_trial_suggests_more(package):
    space, _ = space_of({"_function_": f"{package}.space", "a": "1,2"})
    space = Space.from_json(json.loads(json.dumps(space.to_json())))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    values = space.suggest(trial, {"width": 8})
    depth = values["model.depth"]
    assert values["model.widths"] == [8] * depth
    assert set(values) == {
        "a",
        "model.depth",
        "model.widths",
        *(f"model.width_{i}" for i in range(depth)),
    }
    assert space.values_of(study.trials[0]) == values
    assert space.size() == math.inf
    space.validate({"model.depth": 2}, "study.enqueue[0]")


def test_a_function_must_be_allowed_and_return_a_mapping(package):
    permission.grant([])
    with pytest.raises(ConfigError, match=r"^space._function_._target_: .*allow_targets"):
        space_of({"_function_": f"{package}.space"})
    permission.grant([package])
    with pytest.raises(ConfigError, match="expected a dotted path"):
        space_of({"_function_": 3})
    space, _ = space_of({"_function_": f"{package}.wrong"})
    with pytest.raises(ConfigError, match="expected a mapping of config keys, got 3"):
        space.suggest(optuna.create_study().ask())


# -- the YAMLs -------------------------------------------------------------------------------------
@pytest.fixture
def composed(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [{space: default}, _self_]\n")
    (tmp_path / "conf" / "space").symlink_to(CONF / "space")

    def make(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path / "conf")):
            return OmegaConf.to_container(compose("config", list(overrides)).space)

    return make


def test_the_default_space(composed):
    space, _ = space_of(composed())
    assert {dim.name: dim.text for dim in space.dimensions} == {
        "optimizer.lr": "tag(log, interval(0.0001, 0.1))",
        "optimizer.weight_decay": "tag(log, interval(1e-06, 0.01))",
        "model.dropout": "interval(0, 0.5)",
        "data.batch_size": "choice(32, 64, 128, 256)",
    }


def test_a_space_can_be_overridden_by_key(composed):
    assert names(space_of(composed("space=none"))[0]) == []
    assert "model.dropout" not in space_of(composed("space.model.dropout=null"))[0]
    assert "model.dropout" not in space_of(composed("~space.model"))[0]
    assert list(
        space_of(composed("space.optimizer.lr='choice(1,2)'"))[0]["optimizer.lr"].choices
    ) == [1, 2]


def test_planning_a_space_imports_nothing_heavy():
    code = """
import sys
from dlsearch.sampling.checks import validate_combination
from dlsearch.space.space import Space

space, _ = Space.from_sources({"a": "interval(0, 1)"}, None, ["b=1,2"])
space.table()
space.digest()
validate_combination({"_target_": "optuna.samplers.TPESampler"}, None, ["maximize"], space)
heavy = ("torch", "optuna", "numpy", "sqlalchemy", "mlflow")
print([name for name in heavy if name in sys.modules])
"""
    root = str(CONF.parent)
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert shown.stdout.strip() == "[]"
