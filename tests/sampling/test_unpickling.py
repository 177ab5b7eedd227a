"""The state of CMA-ES in a study's database: read without unpickling, whatever wrote it."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.sampling.factory import build_sampler
from dlsearch.sampling.unpickling import load_optimizer
from dlsearch.space.space import Space
from tests.kinds import first_of_each_kind

BOUNDS = np.array([[0.0, 1.0]] * 3)
COMMON: dict[str, Any] = {"mean": np.full(3, 0.5), "sigma": 0.2, "bounds": BOUNDS, "seed": 1}
OPTIMIZERS = {
    "cma": lambda: cmaes.CMA(**COMMON),
    "adapted": lambda: cmaes.CMA(**COMMON, lr_adapt=True),
    "without bounds": lambda: cmaes.CMA(mean=np.zeros(3), sigma=1.0, seed=1),
    "separable": lambda: cmaes.SepCMA(**COMMON),
    "margin": lambda: cmaes.CMAwM(**COMMON, steps=np.array([0, 0.1, 0.5])),
}


def tell(optimizer: Any) -> None:
    found = []
    for _ in range(optimizer.population_size):
        asked = optimizer.ask()
        point, told = asked if isinstance(asked, tuple) else (asked, asked)
        found.append((told, float(((point - 0.3) ** 2).sum())))
    optimizer.tell(found)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_is_read_goes_on_as_what_was_written(name: str, protocol: int) -> None:
    optimizer = OPTIMIZERS[name]()
    for _ in range(3):
        tell(optimizer)
    content = pickle.dumps(optimizer, protocol=protocol)
    found, expected = load_optimizer(content), pickle.loads(content)
    assert type(found) is type(expected)
    for each in (found, expected):
        each._rng.seed(7)
        for _ in range(3):
            tell(each)
    first, second = found.ask(), expected.ask()
    np.testing.assert_array_equal(first, second)
    assert found.generation == expected.generation == 6


class Call:
    """Pickled, it calls something when it is unpickled."""

    def __init__(self, what: Any, *arguments: Any) -> None:
        self.what, self.arguments = what, arguments

    def __reduce__(self) -> Any:
        return (self.what, self.arguments)


def changed(**state: Any) -> bytes:
    optimizer = cmaes.CMA(**COMMON)
    optimizer.__dict__.update(state)
    return pickle.dumps(optimizer)


def lying() -> bytes:
    """A type that numpy believes to hold no objects, over bytes that would be pointers."""
    plain = pickle.dumps(np.zeros(1, dtype=[("x", "O")]).astype([("x", "i8")]), protocol=2)
    return plain.replace(b"i8", b"O8")


EVIL = {
    "call": lambda path: pickle.dumps(Call(Path.touch, path)),
    "system": lambda path: pickle.dumps(Call(os.system, f"touch {path}")),
    "eval": lambda path: pickle.dumps(
        Call(eval, f"__import__('pathlib').Path({str(path)!r}).touch()")
    ),
    "getattr": lambda path: pickle.dumps(Call(getattr, path, "touch")),
    "of numpy": lambda path: pickle.dumps(Call(np.save, str(path), np.zeros(1))),
    "load of numpy": lambda path: pickle.dumps(Call(np.load, str(path), None, True)),
    "within the state": lambda path: changed(_sigma=Call(Path.touch, path)),
    "within a list": lambda path: changed(_sigma=[Call(Path.touch, path)]),
    "objects in an array": lambda path: changed(
        _mean=np.array([Call(Path.touch, path)] * 3, dtype=object)
    ),
    "nothing of the kind": lambda path: pickle.dumps({"a": 1}),
    "an array alone": lambda path: pickle.dumps(np.zeros(3)),
    "a method's name": lambda path: changed(ask=1.0),
    "a text": lambda path: changed(_mean="x"),
    "a mapping": lambda path: changed(_mean={}),
    "many tries": lambda path: changed(_n_max_resampling=10**12),
    "large": lambda path: changed(_n_dim=10**15),
    "records": lambda path: changed(_mean=np.zeros(3, dtype=[("x", "f8")])),
    "a type that lies": lambda path: lying(),
    "an optimizer of its own": lambda path: changed(_mean=cmaes.CMA(**COMMON)),
    "text": lambda path: b"cos\nsystem\n(S'touch " + str(path).encode() + b"'\ntR.",
    "instance": lambda path: b"(S'touch " + str(path).encode() + b"'\nios\nsystem\n.",
    "nested name": lambda path: b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__subclass__\x93.",
    "a class that is built": lambda path: b"\x80\x02ccmaes._cma\nCMA\n}b.",
    "cut short": lambda path: pickle.dumps(cmaes.CMA(**COMMON))[:-20],
    "nothing": lambda path: b"",
}


@pytest.mark.parametrize("name", EVIL)
def test_a_pickle_of_something_else_runs_nothing(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(
        ConfigError, match="the study's database holds a state of CMA-ES that is not loaded"
    ) as caught:
        load_optimizer(EVIL[name](trace))
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    assert not trace.with_suffix(".npy").exists()


SAMPLERS: dict[str, dict[str, Any]] = {
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler"},
    "separable": {"_target_": "optuna.samplers.CmaEsSampler", "use_separable_cma": True},
    "within another": {
        "_target_": "optuna.samplers.PartialFixedSampler",
        "fixed_params": {"z": 0.5},
        "base_sampler": {"_target_": "optuna.samplers.CmaEsSampler"},
    },
}


@pytest.mark.parametrize("name", first_of_each_kind(SAMPLERS, lambda name: "cmaes"))
def test_no_sampler_unpickles_what_a_database_holds(tmp_path: Path, name: str) -> None:
    source = {f"p.{each}": "interval(-5, 5)" for each in "xyz"}
    space, _ = Space.from_sources(None, source, [], groups=set())
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, study_name="s")
    trace = tmp_path / "ran"
    node = SAMPLERS[name]
    if name == "within another":
        node = {**node, "fixed_params": {"p.z": 0.5}}

    def ask(number: int) -> Any:
        study = optuna.load_study(
            storage=storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        study.sampler = build_sampler(
            node, space=space, study_seed=0, number=number, directions=("minimize",)
        )
        trial = study.ask()
        params = space.suggest(trial)
        study.tell(trial, math.hypot(*params.values()))
        return params

    for number in range(12):
        ask(number)
    attributes = [key for trial in study.trials for key in trial.system_attrs]
    assert any("optimizer:0" in key for key in attributes)  # it has kept a state, and read it
    key = next(key for key in attributes if "optimizer:0" in key)
    evil = pickle.dumps(Call(Path.touch, trace)).hex()
    last = optuna.create_study(storage=storage, study_name="t").ask()
    for each in space.distributions().items():
        last._suggest(*each)
    last.storage.set_trial_system_attr(last._trial_id, key, evil)
    last.study.tell(last, 1.0)
    study = optuna.load_study(
        storage=storage, study_name="t", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.sampler = build_sampler(
        node, space=space, study_seed=0, number=1, directions=("minimize",)
    )
    with pytest.raises(ConfigError, match="CMA-ES"):
        space.suggest(study.ask())
    assert not trace.exists()
