"""Samplers, of which each ask makes a new one, pruners, and what goes together."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState
from sqlalchemy import event

from dlsearch.core.errors import ConfigError
from dlsearch.sampling.checks import validate_combination
from dlsearch.sampling.factory import build_pruner, build_sampler
from dlsearch.sampling.seeds import derive_seed, trial_seed
from dlsearch.space.space import Space

CONF = Path(__file__).resolve().parents[2] / "conf"
SAMPLERS = sorted(path.stem for path in (CONF / "sampler").glob("*.yaml"))
PRUNERS = sorted(path.stem for path in (CONF / "pruner").glob("*.yaml"))
MIXED = {
    "optimizer.lr": "tag(log, interval(1e-4, 1e-1))",
    "model.depth": "range(1, 5)",
    "model.norm": "choice(batch, none)",
    "model.momentum": {"interval": [0.01, 0.9], "when": {"model.norm": "batch"}},
}
FINITE = {
    **MIXED,
    "optimizer.lr": "choice(0.1, 0.01)",
    "model.momentum": {**MIXED["model.momentum"], "step": 0.4},
}


def sampler_config(name, **changes):
    node = OmegaConf.to_container(OmegaConf.load(CONF / "sampler" / f"{name}.yaml"))
    return {**node, **changes}


def pruner_config(name, max_epochs=9, **changes):
    cfg = OmegaConf.create(
        {
            "trainer": {"max_epochs": max_epochs},
            "pruner": OmegaConf.load(CONF / f"pruner/{name}.yaml"),
        }
    )
    node = OmegaConf.to_container(cfg, resolve=True)["pruner"]
    for entry in node.pop("defaults", []):
        for group, option in entry.items() if isinstance(entry, dict) else ():
            node[group.partition("@")[2]] = pruner_config(option, max_epochs)
    return {**node, **changes}


def space_of(group):
    return Space.from_sources(group, None, [])[0]


def storage_of(url):
    storage = optuna.storages.RDBStorage(url)

    @event.listens_for(storage.engine, "connect")
    def _fast(connection, _):  # a test's data need not survive a power cut
        connection.execute("PRAGMA synchronous=OFF")

    storage.engine.dispose()
    return storage


def run(url, node, space, *, n, seed=0, name="s", directions=("maximize",), score=None, first=None):
    """Ask and tell `n` trials, each with a sampler of its own on a study that is loaded again."""
    storage = storage_of(url)
    optuna.create_study(
        study_name=name, storage=storage, directions=list(directions), load_if_exists=True
    )
    asked = []
    for index in range(n):
        study = optuna.load_study(
            study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler(seed=0)
        )
        number = len(study.get_trials(deepcopy=False)) if first is None else first + index
        study.sampler = build_sampler(
            node, space=space, study_seed=seed, number=number, directions=directions
        )
        trial = study.ask()
        params = space.suggest(trial)
        asked.append(params)
        value = (
            score(params)
            if score
            else -abs(math.log10(params["optimizer.lr"]) + 2) + 0.1 * params["model.depth"]
        )
        study.tell(trial, [value] * len(directions))
    storage.engine.dispose()
    return asked


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_works_with_a_new_instance_for_each_ask(name, tmp_path, caplog):
    space = space_of(FINITE if name == "grid" else MIXED)
    validate_combination(sampler_config(name), pruner_config("none"), ["maximize"], space)
    optuna.logging.enable_propagation()
    try:
        asked = run(f"sqlite:///{tmp_path}/a.db", sampler_config(name), space, n=12)
    finally:
        optuna.logging.disable_propagation()
    assert not [record for record in caplog.records if "independent" in record.getMessage().lower()]
    for params in asked:
        space.validate(params, "trial")
        assert ("model.momentum" in params) == (params["model.norm"] == "batch")
    # none is proposed again
    assert len({json.dumps(params, sort_keys=True) for params in asked}) == 12
    # The same study elsewhere, by other workers: the same proposals.
    assert run(f"sqlite:///{tmp_path}/b.db", sampler_config(name), space, n=12) == asked
    if name != "gp":  # which would fit two more kernels to show the same
        assert (
            run(f"sqlite:///{tmp_path}/c.db", sampler_config(name), space, n=3, seed=1) != asked[:3]
        )


def test_a_resumed_study_goes_on_where_it_stopped(tmp_path):
    space = space_of(MIXED)
    url = f"sqlite:///{tmp_path}/study.db"
    whole = run(url, sampler_config("tpe"), space, n=16, name="whole")
    parts = [*run(url, sampler_config("tpe"), space, n=7, name="parts")]
    parts += run(url, sampler_config("tpe"), space, n=9, name="parts")
    assert parts == whole


@pytest.mark.storm
def test_cmaes_survives_the_first_trial_without_a_conditional_dimension(tmp_path):
    """Otherwise it is fitted to three dimensions, finds two in common later, and stays random."""
    when = {"interval": [0, 1], "when": {"k": "a"}}
    space = space_of({"x": "interval(-5, 5)", "y": "interval(-5, 5)", "c": when, "k": "a,b"})
    url = f"sqlite:///{tmp_path}/study.db"
    storage = storage_of(url)
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    for _ in range(16):
        study.enqueue_trial({"k": "a"})
    storage.engine.dispose()

    def distance(params):
        return math.hypot(params["x"] - 3, params["y"] + 2)

    asked = run(
        url, sampler_config("cmaes"), space, n=90, score=lambda p: -(distance(p) ** 2), first=0
    )
    assert {params["k"] for params in asked[:16]} == {"a"}
    assert {params["k"] for params in asked[16:]} == {"a", "b"}
    assert sum(map(distance, asked[-15:])) < 0.3 * sum(map(distance, asked[:15]))
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert max(t.system_attrs.get("cma:generation", 0) for t in trials) > 10


def test_nsga2_goes_through_generations(tmp_path):
    space = space_of(MIXED)
    run(f"sqlite:///{tmp_path}/study.db", sampler_config("nsga2", population_size=4), space, n=14,
        directions=("maximize", "minimize"))  # fmt: skip
    trials = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/study.db").trials
    assert max(t.system_attrs["NSGAIISampler:generation"] for t in trials) == 3


def test_qmc_covers_the_space_evenly_and_every_worker_draws_from_one_sequence(tmp_path):
    space = space_of({"x": "interval(0, 1)", "y": "interval(0, 1)", "k": "a,b"})
    asked = run(
        f"sqlite:///{tmp_path}/study.db", sampler_config("qmc"), space, n=16, score=lambda p: 0.0
    )
    # A Sobol' sequence of 16 points has one in each sixteenth of an axis, and two in each eighth...
    for name in ("x", "y"):
        assert sorted(int(params[name] * 16) for params in asked) == list(range(16))
    assert sum(params["k"] == "a" for params in asked) == 8


def test_the_grid_is_walked_once(tmp_path):
    space = space_of(FINITE)
    n = int(space.size())
    assert n == 2 * 4 * (3 + 1)
    url = f"sqlite:///{tmp_path}/study.db"
    asked = run(url, sampler_config("grid"), space, n=n, score=lambda p: 0.0)
    assert len({json.dumps(params, sort_keys=True) for params in asked}) == n
    assert {params.get("model.momentum") for params in asked} == {0.01, 0.41, 0.81, None}
    again = run(url, sampler_config("grid"), space, n=1, score=lambda p: 0.0)
    assert again[0] in asked  # exhausted, and nothing breaks


def test_the_grid_leaves_out_what_was_enqueued_and_completes_what_is_fixed_in_part(tmp_path):
    space = space_of({"a": "1,2", "b": "1,2,3"})
    study = optuna.create_study(storage=storage_of(f"sqlite:///{tmp_path}/study.db"))
    study.enqueue_trial({"a": 1, "b": 2})
    study.enqueue_trial({"a": 2})
    asked = []
    for number in range(6):
        study.sampler = build_sampler(
            sampler_config("grid"), space=space, study_seed=3, number=number
        )
        trial = study.ask()
        asked.append(space.suggest(trial))
        study.tell(trial, 0.0)
    assert asked[0] == {"a": 1, "b": 2}
    assert asked[1]["a"] == 2
    assert len({(params["a"], params["b"]) for params in asked}) == 6


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "grid"])
def test_parallel_asks_differ(name, tmp_path):
    space = space_of(FINITE)
    study = optuna.create_study(storage=storage_of(f"sqlite:///{tmp_path}/study.db"))
    asked = []
    for number in range(4):  # without telling
        study.sampler = build_sampler(
            sampler_config(name), space=space, study_seed=5, number=number
        )
        asked.append(json.dumps(space.suggest(study.ask()), sort_keys=True))
    assert len(set(asked)) >= (4 if name == "grid" else 2)


def test_a_seed_of_the_sampler_takes_the_place_of_the_studys(tmp_path):
    space = space_of(MIXED)

    def first(study_seed, **changes):
        url = f"sqlite:///{tmp_path}/{random.random()}.db"
        return run(url, sampler_config("random", **changes), space, n=2, seed=study_seed)

    assert first(0, seed=7) == first(1, seed=7) != first(0)


def test_samplers_inside_of_samplers_are_seeded(tmp_path):
    space = space_of(MIXED)
    node = sampler_config("gp", independent_sampler={"_target_": "optuna.samplers.TPESampler"})
    a, b = (run(f"sqlite:///{tmp_path}/{i}.db", node, space, n=4) for i in range(2))
    assert a == b


def test_what_lies_inside_of_a_sampler_is_its_own():
    node = sampler_config("gp", independent_sampler={"_target_": "optuna.samplers.TPESampler"})
    inside = [
        build_sampler(node, space=space_of(MIXED), study_seed=0, number=0)._independent_sampler
        for _ in range(2)
    ]
    assert inside[0] is not inside[1]


def test_seeds_are_functions_of_study_and_number():
    assert trial_seed(0, 1) == 1904480221 == derive_seed(0, 1, "trial")
    seeds = {
        derive_seed(s, n, p) for s in range(20) for n in range(50) for p in ("trial", "sampler")
    }
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**32 for seed in seeds)


# -- pruners ---------------------------------------------------------------------------------------
BOUNDS = {"threshold": {"lower": 0.2}}


def curves(node, *, max_epochs=9, n=12):
    """Run trials whose values rise to their quality; returns the epochs that each ran."""
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=build_pruner(node, max_epochs=max_epochs, direction="maximize"),
    )
    epochs = []
    order = random.Random(0).sample(range(n), n)
    for quality in order:
        trial = study.ask()
        ran, state = max_epochs, TrialState.COMPLETE
        for epoch in range(max_epochs):  # as a worker reports them
            trial.report(quality / n * (1 - 0.5 ** (epoch + 1)) + 0.001 * epoch, epoch)
            if trial.should_prune():
                ran, state = epoch + 1, TrialState.PRUNED
                break
        study.tell(trial, None if state is TrialState.PRUNED else quality / n, state=state)
        epochs.append((quality, ran))
    return epochs


@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_stops_bad_trials_and_no_best_one(name):
    ran = dict(
        curves(
            pruner_config(
                name, **BOUNDS.get(name, {}), **({"patience": 0} if name == "patient" else {})
            )
        )
    )
    assert ran[11] == 9
    stopped = [quality for quality, epochs in ran.items() if epochs < 9]
    if name == "none":
        assert not stopped
    elif name == "patient":
        assert not stopped  # every curve rises: none runs out of patience
    else:
        assert stopped
        assert max(stopped) < 11


def test_patience_runs_out_where_a_trial_gets_no_better():
    pruner = build_pruner(pruner_config("patient", patience=2), max_epochs=20)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for value in (0.9,) * 6:
        trial = study.ask()
        for epoch in range(10):
            trial.report(value + epoch / 100, epoch)
        study.tell(trial, value)
    flat = study.ask()
    asked = []
    for epoch in range(8):
        flat.report(0.5 - epoch / 100, epoch)
        asked.append(flat.should_prune())
    assert asked == [False] * 3 + [True] * 5


def test_hyperband_reaches_as_far_as_the_trainer():
    pruner = build_pruner(pruner_config("hyperband", max_epochs=27), max_epochs=27)
    assert pruner._max_resource == 27


@pytest.mark.parametrize(
    ("name", "changes", "rungs"),
    [
        ("sha", {}, {1, 3, 9}),
        ("sha", {"min_resource": 2}, {2, 6, 18}),
        ("hyperband", {}, {1, 4, 16}),
        ("hyperband", {"reduction_factor": 3}, {1, 3, 9}),
    ],
)
def test_rungs_are_epochs_that_were_trained(name, changes, rungs):
    ran = {
        epochs
        for _, epochs in curves(pruner_config(name, max_epochs=20, **changes), max_epochs=20, n=80)
    }
    assert ran == rungs | {20}


def test_the_halving_pruners_leave_the_trial_as_it_was():
    study = optuna.create_study(pruner=build_pruner(pruner_config("sha"), max_epochs=9))
    trial = study.ask()
    trial.report(0.5, 0)
    trial.should_prune()
    assert study.trials[0].intermediate_values == {0: 0.5}


def test_samplers_see_one_bracket_of_our_hyperband():
    study = optuna.create_study(
        pruner=build_pruner(pruner_config("hyperband", max_epochs=16), max_epochs=16)
    )
    for number in range(40):
        trial = study.ask()
        trial.report(number, 0)
        trial.should_prune()
        study.tell(trial, number)
    seen = [len(optuna.pruners._filter_study(study, trial).get_trials()) for trial in study.trials]
    assert 2 <= len(set(seen)) <= 3
    assert max(seen) < 40


HYPERBAND_OF_99 = {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 99}


@pytest.mark.parametrize(
    ("name", "changes", "direction", "key"),
    [
        ("threshold", {}, "maximize", "pruner.lower"),
        ("threshold", {"lower": 0.1}, "minimize", "pruner.upper"),
        ("hyperband", {"max_resource": 30}, "maximize", "pruner.max_resource"),
        ("hyperband", {"min_resource": 10}, "maximize", "pruner.min_resource"),
        ("sha", {"min_resource": 10}, "maximize", "pruner.min_resource"),
        ("median", {"n_warmup_steps": 10}, "maximize", "pruner.n_warmup_steps"),
        ("median", {"n_startup_trials": -1}, "maximize", "pruner"),
        ("median", {"n_startup": 1}, "maximize", "pruner.n_startup"),
        ("wilcoxon", {"p_threshold": 2.0}, "maximize", "pruner"),
        ("patient", {"wrapped_pruner": HYPERBAND_OF_99}, "maximize",
         "pruner.wrapped_pruner.max_resource"),
        ("none", {"_target_": "os.system"}, "maximize", "pruner._target_"),
        ("none", {"_target_": None}, "maximize", "pruner"),
    ],
)  # fmt: skip
def test_bad_pruners(name, changes, direction, key):
    with pytest.raises(ConfigError) as refused:
        build_pruner(pruner_config(name, **changes), max_epochs=9, direction=direction)
    assert refused.value.key == key
    assert "\n" not in str(refused.value)


def test_no_pruner():
    assert isinstance(build_pruner(None, max_epochs=3), optuna.pruners.NopPruner)


# -- combinations ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sampler", "pruner", "directions", "group", "key"),
    [
        ("tpe", "median", ["maximize", "minimize"], MIXED, "pruner"),
        ("cmaes", "none", ["maximize", "minimize"], MIXED, "sampler"),
        ("cmaes", "none", ["maximize"], {"a": "choice(1, 2)"}, "sampler"),
        ("grid", "none", ["maximize"], MIXED, "optimizer.lr"),
        ("grid", "none", ["maximize"], {"a": "range(1000)", "b": "range(1000)"}, "sampler"),
        ("tpe", "none", ["maximize"], {}, "space"),
        ("tpe", "threshold", ["maximize"], MIXED, "pruner.lower"),
    ],
)
def test_what_does_not_go_together(sampler, pruner, directions, group, key):
    with pytest.raises(ConfigError) as refused:
        validate_combination(
            sampler_config(sampler), pruner_config(pruner), directions, space_of(group)
        )
    assert refused.value.key == key


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("cmaes", "gp")])
def test_several_objectives(name, tmp_path):
    space, directions = space_of(FINITE), ("maximize", "minimize")
    validate_combination(sampler_config(name), pruner_config("none"), directions, space)
    assert (
        len(
            run(
                f"sqlite:///{tmp_path}/s.db",
                sampler_config(name),
                space,
                n=4,
                directions=directions,
            )
        )
        == 4
    )


@pytest.mark.parametrize(
    "target", ["optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler"]
)
def test_samplers_that_end_the_study_themselves_are_refused(target):
    with pytest.raises(ConfigError, match="sampler=grid"):
        validate_combination({"_target_": target}, None, ["maximize"], space_of(FINITE))


@pytest.mark.parametrize(
    "changes", [{"n_startup_trials": "many"}, {"n_startup_trial": 3}, {"_target_": "os.system"}]
)
def test_bad_samplers(changes):
    node = (
        sampler_config("qmc", qmc_type="lattice")
        if "n_startup_trials" in changes
        else sampler_config("tpe", **changes)
    )
    with pytest.raises(ConfigError) as refused:
        build_sampler(node, space=space_of(MIXED), study_seed=0, number=0)
    assert refused.value.key.startswith("sampler")
    assert "\n" not in str(refused.value)
