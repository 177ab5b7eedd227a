"""Drafts: what is known about a search before anything heavy is imported."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from dlsearch.config.compose import compose_config, hydra_groups
from dlsearch.core.errors import ConfigError
from dlsearch.core.names import check_name
from dlsearch.planning.comparison import first_trials
from dlsearch.planning.draft import make_draft
from dlsearch.planning.open_study import check_drift, document_of, drift
from dlsearch.sampling.arms import Arms
from dlsearch.storage.database import StudyRow
from dlsearch.study.trial_config import trial_config


def make(*overrides, params=None):
    def compose(given):
        return compose_config(list(given), with_hydra=True)

    return make_draft(compose, list(overrides), params=params, groups=hydra_groups())


def test_the_default_space_and_the_default_configuration():
    draft = make("model=lenet", "data=mnist")
    assert draft.name == "lenet_mnist"
    assert {dim.name for dim in draft.space.dimensions} == {
        "optimizer.lr", "optimizer.weight_decay", "model.dropout", "data.batch_size",
    }  # fmt: skip
    assert draft.default is not None
    draft.space.validate(draft.default, "default")
    assert make("study.default_first=false").default is None


def test_the_command_line_wins_over_params_and_these_over_the_space():
    draft = make(
        "optimizer.lr=interval(0.1,0.2)",
        "model.dropout=0.3",
        params={"data.batch_size": "choice(8, 16)"},
    )
    dims = {dim.name: dim for dim in draft.space.dimensions}
    assert (dims["optimizer.lr"].low, dims["optimizer.lr"].high) == (0.1, 0.2)
    assert dims["data.batch_size"].choices == (8, 16)
    assert "model.dropout" not in dims
    assert draft.config["model"]["dropout"] == 0.3


def test_a_default_outside_the_space_is_left_out_and_said():
    draft = make("optimizer.lr=interval(0.5,0.9)")
    assert draft.default is None
    assert "optimizer.lr" in draft.notices[0]


def test_groups_are_dimensions_and_keys_of_one_option_are_conditional():
    draft = make("model=mlp,lenet", "data=mnist", "model.widths=choice([32],[64])", "space=none")
    dims = {dim.name: dim for dim in draft.space.dimensions}
    assert dims["model"].is_group
    assert dims["model.widths"].when == {"model": ["mlp"]}
    assert [dim.name for dim in draft.space.dimensions] == ["model", "model.widths"]
    document = {"config": draft.config, "options": draft.options}
    mlp = trial_config(document, {"model": "mlp", "model.widths": [64]}, seed=7)
    assert mlp["model"]["_target_"].endswith("MLP")
    assert (mlp["model"]["widths"], mlp["seed"]) == ([64], 7)
    assert trial_config(document, {"model": "lenet"}, seed=1)["model"]["_target_"].endswith(
        "LeNet5"
    )
    assert draft.config["seed"] == 0  # the document is not written to
    assert len(draft.representatives()) == 2


def test_interpolations_see_the_searched_value():
    draft = make("model=lenet", "data=mnist")
    cfg = OmegaConf.create(
        trial_config(
            {"config": draft.config}, {"trainer.max_epochs": 3, "model.dropout": 0.5}, seed=0
        )
    )
    assert cfg.task.net.dropout == 0.5
    assert cfg.pruner is None or cfg.trainer.max_epochs == 3


def test_a_key_that_is_not_there_gets_its_nearest():
    with pytest.raises(ConfigError, match=r"model\.droput.*model\.dropout"):
        make("model.droput=interval(0,1)")


@pytest.mark.parametrize("name", ["..", "a/b", "", "-x", ".hidden", "a\0b", "ü", "x" * 101, "a b"])
def test_names_that_are_no_folder_are_refused(name):
    with pytest.raises(ConfigError, match=r"study\.name"):
        check_name(name)


def documents(*changes):
    found = {"provenance": {}, "sha": {}}
    return [document_of(make(*overrides), {}, found) for overrides in changes]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.dropout=0.4", "space"),
        ("trainer.max_epochs=3", "trainer.max_epochs"),
        ("seed=5", "seed"),
        ("data.split_seed=9", "data.split_seed"),
        ("sampler=random", "sampler"),
        ("pruner=median", "sampler"),
        ("optimizer=sgd", "optimizer._target_"),
        ("optimizer.lr=interval(0.001,0.002)", "space"),
    ],
)
def test_drift_is_named(override, named):
    old, new = documents([], [override])
    assert named in drift(old, new)


@pytest.mark.parametrize(
    "override",
    [
        "study.n_trials=99",
        "study.timeout=3h",
        "paths.store=/elsewhere",
        "tracking.enabled=false",
        "study.target=1",
    ],
)
def test_budgets_and_places_may_change(override):
    old, new = documents([], [override])
    assert drift(old, new) == []


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "-m", "experiment=lenet_mnist"], ["--cfg", "job"]]
)
def test_nothing_heavy_is_imported(words):
    heavy = (
        "torch",
        "pytorch_lightning",
        "mlflow",
        "optuna",
        "sqlalchemy",
        "numpy",
        "pandas",
        "matplotlib",
    )
    code = (
        "import sys\nfrom dlsearch.cli.main import main\n"
        f"sys.argv = ['dlsearch', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "sys.stderr.write(f'{code} {loaded}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "0 []", done.stderr


COMPARISON = ["model=mlp,lenet", "data=mnist", "study.compare=model", "study.n_trials=5"]


def test_a_comparison_gives_every_arm_the_budget():
    draft = make(*COMPARISON, "model.depth=choice(1,2)", "study.enqueue=[{optimizer.lr: 0.01}]")
    assert draft.arms == Arms("model", ("mlp", "lenet"))
    assert draft.total_trials == 10
    assert draft.study["confirm"]["top"] == 1
    assert draft.study["confirm"]["racing"] is False
    assert "compares model: mlp, lenet; trials of each: 5, in all: 10" in draft.notices
    first = first_trials(draft)
    assert [trial.params["model"] for trial in first] == ["mlp", "lenet"] * 2
    assert [trial.origin for trial in first] == ["default"] * 2 + ["enqueued"] * 2
    assert [trial.params.get("model.depth") for trial in first[:2]] == [2, None]
    assert [trial.params["optimizer.lr"] for trial in first[2:]] == [0.01, 0.01]


def test_an_arm_whose_default_lies_outside_keeps_all_from_beginning_with_theirs():
    draft = make(*COMPARISON, "model.widths=choice([32],[64])", "model.dropout=interval(0.1,0.2)")
    assert draft.arm_defaults == first_trials(draft) == []
    assert any("model.dropout" in notice for notice in draft.notices)


@pytest.mark.parametrize(
    ("overrides", "key", "what"),
    [
        (["study.compare=modell"], "study.compare", "model"),
        (["study.compare=optimizer.lr"], "study.compare", "no choice"),
        (["study.compare=optimizer"], "study.compare", "not searched"),
        (["optimizer.lr=choice(0.1)", "study.compare=optimizer.lr"], "study.compare", "one option"),
        (
            ["model.widths=choice([32],[64])", "study.compare=model.widths"],
            "study.compare",
            "only under some values of model",
        ),
        (["sampler=grid", "space=none"], "study.compare", "grid"),
        (["sampler=qmc"], "study.compare", "sampler=tpe"),
        (["sampler=nsga2"], "study.compare", "generations"),
        (["study.target=0.9"], "study.target", "all"),
        (
            ["study.objective=[val/accuracy,val/loss]", "study.direction=[maximize,minimize]"],
            "study.compare",
            "one objective",
        ),
        (["study.enqueue=[{model: mlp}]"], "study.enqueue[0].model", "every arm"),
        (["study.enqueue=[{optimizer.lr: 5}]"], "study.enqueue[0].optimizer.lr", "outside"),
    ],
)
def test_what_cannot_be_compared_is_refused(overrides, key, what):
    with pytest.raises(ConfigError, match=what) as caught:
        make(*COMPARISON, *overrides)
    assert caught.value.key == key


def test_a_comparison_stays_one_and_a_plain_study_too():
    """A trial's number says its arm, so that even allow_drift does not change what is compared."""
    row = StudyRow(name="s", document="")
    kinds = {
        "plain": make(*COMPARISON, "study.compare=null", "study.name=s"),
        "compared": make(*COMPARISON, "study.name=s"),
        "more": make("model=mlp,lenet,linear", *COMPARISON[1:], "study.name=s"),
    }
    known = {"provenance": {}, "sha": {"env": "e", "code": "c"}}
    documents = {name: document_of(draft, {}, known) for name, draft in kinds.items()}
    for old, new in itertools.permutations(documents, 2):
        row.document = json.dumps(documents[old].plain)
        with pytest.raises(ConfigError, match="cannot go on") as caught:
            check_drift(row, documents[new], allow=True)
        assert caught.value.key == "study.compare"
    for name, document in documents.items():
        row.document = json.dumps(document.plain)
        check_drift(row, document, allow=False)
        assert ("compare" in document.fixed["study"]) == (name != "plain")
