"""Samplers and pruners from their configs.

A sampler is made anew for every ask and seeded from the study's seed and the trial's number, so that proposals depend
neither on the worker nor on how often the study was resumed. What each knows of the past it reads from the storage:
TPE, GP and NSGA-II the finished trials; CMA-ES the optimizer that it pickled into them; QMC a counter. Nothing has to
live between asks: GP keeps its last kernel as a starting point for the next fit only, and doing without it is what
makes its proposals independent of the process.

Importing this imports no optuna.
"""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.config.build import build, locate
from dlsearch.config.errors import ConfigError
from dlsearch.search.seeds import derive

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from dlsearch.search.space import Space

#: Points of a grid that are held in memory.
MAX_GRID = 100_000
_CMAES, _QMC = "optuna.samplers.CmaEsSampler", "optuna.samplers.QMCSampler"
_GRID = "dlsearch.search.samplers.grid"
_TPE = "optuna.samplers.TPESampler"
_HYPERBAND = ("dlsearch.search.pruners.Hyperband", "optuna.pruners.HyperbandPruner")


def grid(space: Space, seed: int = 0) -> BaseSampler:
    """Every point of a finite space once; see :class:`dlsearch.search.proposals.GridSampler`.

    Args:
        space: The study's space.
        seed: Of the order.
    """
    from dlsearch.search.proposals import GridSampler

    return GridSampler(space, seed)


def recorded(last_epochs: Mapping[str, int]) -> BasePruner:
    """Prunes each trial where it was pruned before; see :mod:`dlsearch.search.replay`.

    Args:
        last_epochs: The last epoch of every pruned trial, by its number.
    """
    from dlsearch.search.proposals import RecordedPruner

    return RecordedPruner(last_epochs)


def build_sampler(
    cfg_node: Any,
    *,
    space: Space,
    study_seed: int,
    number: int,
    directions: Sequence[str] = ("maximize",),
    extra: Sequence[str] = (),
) -> BaseSampler:
    """A fresh sampler for the trial `number`.

    Args:
        cfg_node: The ``sampler`` config. Its ``seed``, where given, takes the place of the study's.
        space: What is searched.
        study_seed: The study's seed.
        number: The trial that will be asked for.
        directions: The study's directions.
        extra: The user's ``allow_targets``.

    Raises:
        ConfigError: The config is wrong, or does not fit the space or the directions.
    """
    node = _plain(cfg_node, "sampler")
    _check_sampler(node, directions, space)
    target = node["_target_"]
    seed = node.pop("seed", None)
    base = int(study_seed if seed is None else seed)
    own = derive(base, number, "sampler")
    # All points of a scrambled sequence, and of a grid's order, come from one seed.
    shared = target in (_QMC, _GRID)
    if target == _QMC and node.get("independent_sampler") is None:
        node["independent_sampler"] = {"_target_": "optuna.samplers.RandomSampler"}
    for key, value in node.items():
        node[key] = _seeded(value, f"sampler.{key}", own, extra)
    takes = inspect.signature(locate(target, "sampler", extra)).parameters
    given = {"seed": base % 2**32 if shared else own, "space": space}
    given = {key: value for key, value in given.items() if key in takes}
    sampler: BaseSampler = _make(node, "sampler", extra, given)
    if target == _TPE:
        from dlsearch.search.tpe import quicker

        sampler = quicker(sampler)
    if space.function is not None or target not in (_CMAES, _QMC):
        return sampler

    from dlsearch.search.proposals import KnownSpace

    together = {name: dist for name, dist in space.distributions().items() if not dist.single()}
    if target == _QMC:
        return KnownSpace(sampler, lambda inferred: together)
    always = {dim.name for dim in space.dimensions if not dim.when}

    def choose(inferred: dict[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        return {name: dist for name, dist in inferred.items() if name in always}

    return KnownSpace(sampler, choose)


def build_pruner(
    cfg_node: Any, *, max_epochs: int, direction: str = "maximize", extra: Sequence[str] = ()
) -> BasePruner:
    """The pruner.

    Args:
        cfg_node: The ``pruner`` config; None prunes nothing.
        max_epochs: Epochs of a whole trial, beyond which no resource of a pruner may reach.
        direction: The study's direction.
        extra: The user's ``allow_targets``.

    Raises:
        ConfigError: The config is wrong.
    """
    if cfg_node is None:
        from optuna.pruners import NopPruner

        return NopPruner()
    node = _plain(cfg_node, "pruner")
    _check_pruner(node, "pruner", max_epochs, direction)
    pruner: BasePruner = _make(node, "pruner", extra, {})
    return pruner


def validate_combination(sampler: Any, pruner: Any, directions: Sequence[str], space: Space) -> None:
    """Check that sampler, pruner, goal and space go together; imports neither of the two.

    Raises:
        ConfigError: They do not.
    """
    node = _plain(sampler, "sampler")
    if not len(space) and space.function is None:
        raise ConfigError("space", "nothing is searched", "optimizer.lr='tag(log, interval(1e-4, 1e-1))'")
    _check_sampler(node, directions, space)
    if pruner is not None:
        node = _plain(pruner, "pruner")
        if len(directions) > 1 and node["_target_"] != "optuna.pruners.NopPruner":
            raise ConfigError("pruner", "several objectives cannot be pruned", "pruner=none")
        _check_pruner(node, "pruner", None, directions[0])


def _plain(node: Any, key: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if not isinstance(plain, Mapping) or not isinstance(plain.get("_target_"), str):
        raise ConfigError(key, f"expected a config with a _target_, got {plain!r}", f"{key}=… chooses one")
    return {str(name): value for name, value in plain.items()}


def _seeded(node: Any, key: str, seed: int, extra: Sequence[str]) -> Any:
    """Seed the samplers inside of a sampler as well."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    node = {name: _seeded(value, f"{key}.{name}", seed, extra) for name, value in node.items()}
    if node.get("seed") is None and "seed" in inspect.signature(locate(node["_target_"], key, extra)).parameters:
        node["seed"] = seed
    return node


@contextmanager
def _quiet() -> Iterator[None]:
    from optuna.exceptions import ExperimentalWarning

    # Half of Optuna's samplers and pruners call themselves experimental; who chose one by name knows it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _make(node: Mapping[str, Any], key: str, extra: Sequence[str], given: Mapping[str, Any]) -> Any:
    # A factory first: objects such as the space do not pass through a config.
    with _quiet():
        flat = not any(isinstance(value, (Mapping, list, tuple)) for value in node.values())
        # What lies inside would be shared by all that one factory makes, with its random state.
        factory = (_factory if flat else _factory.__wrapped__)(json.dumps(node), key, tuple(extra))
        try:
            return factory(**given)
        except (ImportError, TypeError, ValueError) as error:
            raise ConfigError(key, f"{node['_target_']}: {str(error).splitlines()[0]}") from error


@functools.lru_cache(maxsize=64)
def _factory(node: str, key: str, extra: tuple[str, ...]) -> Any:
    return build({**json.loads(node), "_partial_": True}, key, extra=extra)


def _check_sampler(node: Mapping[str, Any], directions: Sequence[str], space: Space) -> None:
    target = node["_target_"]
    if target in ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler"):
        raise ConfigError("sampler._target_", f"{target} works inside Study.optimize alone", "sampler=grid")
    if target == _GRID:
        space.grid()
        size = space.size()
        if size > MAX_GRID:
            raise ConfigError("sampler", f"a grid holds {MAX_GRID:,} points, this one has {size:,.0f}", "sampler=qmc")
    if target == _CMAES:
        if len(directions) > 1:
            raise ConfigError("sampler", "CMA-ES has one objective", "sampler=nsga2, tpe or gp")
        numeric = [d for d in space.dimensions if d.kind != "categorical" and not d.when and d.count() != 1]
        if not numeric and space.function is None:
            raise ConfigError("sampler", "CMA-ES needs a number that is always searched", "sampler=tpe")


def _check_pruner(node: Mapping[str, Any], key: str, max_epochs: int | None, direction: str) -> None:
    target = node["_target_"]
    for name in ("max_resource", "min_resource", "n_warmup_steps", "patience"):
        value = node.get(name)
        if max_epochs is None or isinstance(value, bool) or not isinstance(value, int):
            continue
        if value > max_epochs:
            raise ConfigError(f"{key}.{name}", f"{value} lies beyond trainer.max_epochs={max_epochs}", f"{max_epochs}")
    if target == "optuna.pruners.ThresholdPruner":
        bound = "lower" if direction == "maximize" else "upper"
        if node.get(bound) is None:
            where = f"{key}.{bound}"
            raise ConfigError(where, f"expected a bound, for study.direction={direction}", f"{where}=0.2")
    if target in _HYPERBAND and isinstance(node.get("max_resource"), int):
        least = node.get("min_resource", 1)
        if least > node["max_resource"]:
            raise ConfigError(f"{key}.min_resource", f"{least} lies beyond max_resource={node['max_resource']}")
    if isinstance(node.get("wrapped_pruner"), Mapping):
        _check_pruner(node["wrapped_pruner"], f"{key}.wrapped_pruner", max_epochs, direction)
