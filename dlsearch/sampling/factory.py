"""Samplers and pruners from their configs.

Every ask gets a new sampler, seeded from the study's seed and the trial's number, so that proposals
depend neither on the worker nor on how often the study was resumed. What a sampler knows of the
past it reads from the storage: TPE, GP and NSGA-II the finished trials; CMA-ES the optimizer that
it pickled into them, which :mod:`dlsearch.sampling.unpickling` reads; QMC a counter. Nothing has to
live between asks: GP keeps its last kernel as a starting point for the next fit only, and doing
without it is what makes its proposals independent of the process.

Importing this module imports no optuna.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlsearch.config.moved import current_name
from dlsearch.core.errors import ConfigError
from dlsearch.core.versions import is_compared
from dlsearch.sampling.checks import check_pruner, check_sampler
from dlsearch.sampling.cma_es import forbid_unpickling
from dlsearch.sampling.nodes import (
    CMAES,
    GRID,
    QMC,
    TPE,
    make_object,
    parameters_of,
    read_node,
    seed_nested,
)
from dlsearch.sampling.seeds import derive_seed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from dlsearch.core.types import ConfigTree
    from dlsearch.sampling.arm_study import ArmStudy
    from dlsearch.space.space import Space

__all__ = [
    "build_pruner",
    "build_sampler",
    "goes_by_others",
    "grid",
    "recorded",
]

#: Seeds of Optuna's QMC sampler lie below this.
_SEED_LIMIT = 2**32


# -- targets of configs ----------------------------------------------------------------------------
def grid(
    space: Space,
    seed: int = 0,
) -> BaseSampler:
    """Every point of a finite space once; see :class:`dlsearch.sampling.known_space.GridSampler`.

    Args:
        space: The study's space.
        seed: Of the order.
    """
    from dlsearch.sampling.known_space import GridSampler

    return GridSampler(space, seed)


def recorded(last_epochs: Mapping[str, int]) -> BasePruner:
    """Prunes each trial where it was pruned before; see :mod:`dlsearch.verification.reproduce`.

    Args:
        last_epochs: The last epoch of every pruned trial, by its number.
    """
    from dlsearch.sampling.known_space import RecordedPruner

    return RecordedPruner(last_epochs)


# -- samplers --------------------------------------------------------------------------------------
def build_sampler(
    cfg_node: Any,
    *,
    space: Space,
    study_seed: int,
    number: int,
    directions: Sequence[str] = ("maximize",),
    arm: ArmStudy | None = None,
) -> BaseSampler:
    """A new sampler for the trial `number`.

    Args:
        cfg_node: The ``sampler`` config. Its ``seed``, where given, takes the place of the study's.
        space: What is searched.
        study_seed: The study's seed.
        number: The trial that will be asked for.
        directions: The study's directions.
        arm: The trial's, in a comparison: the sampler sees that alone, and is seeded by the number
            within it.

    Raises:
        ConfigError: The config is wrong, or does not fit the space or the directions.
    """
    if arm is not None:
        from dlsearch.sampling.arm_study import ArmSampler

        inner = build_sampler(
            cfg_node,
            space=arm.arms.space_of(space, arm.place),
            study_seed=study_seed,
            number=arm.arms.number_within(number),
            directions=directions,
        )
        return ArmSampler(inner, arm, space)
    node = read_node(cfg_node, "sampler")
    check_sampler(node, directions, space)
    forbid_unpickling(node)
    target = node["_target_"]
    given_seed = node.pop("seed", None)
    base_seed = int(study_seed if given_seed is None else given_seed)
    sampler = _make_sampler(node, space, base_seed, number)
    if target == TPE and is_compared("optuna"):
        from dlsearch.sampling.fast_tpe.sampler import quicker

        sampler = quicker(sampler)
    if target in (CMAES, QMC) and space.function is None:
        return _fix_search_space(sampler, target, space)
    return sampler


def _make_sampler(
    node: ConfigTree,
    space: Space,
    base_seed: int,
    number: int,
) -> BaseSampler:
    """Make the sampler of a config, seeded for the trial `number`."""
    from optuna.samplers import BaseSampler

    target = node["_target_"]
    own_seed = derive_seed(base_seed, number, "sampler")
    if target == QMC and node.get("independent_sampler") is None:
        node["independent_sampler"] = {"_target_": "optuna.samplers.RandomSampler"}
    for name, value in node.items():
        node[name] = seed_nested(value, f"sampler.{name}", own_seed)

    seed = own_seed
    if target in (QMC, GRID):
        # All points of a scrambled sequence, and of a grid's order, come from one seed.
        seed = base_seed % _SEED_LIMIT
    taken = parameters_of(target, "sampler")
    arguments: dict[str, int | Space] = {}
    if "seed" in taken:
        arguments["seed"] = seed
    if "space" in taken:
        arguments["space"] = space

    sampler = make_object(node, "sampler", arguments)
    if not isinstance(sampler, BaseSampler):
        raise ConfigError("sampler._target_", f"{target!r} makes no sampler", "sampler=tpe")
    return sampler


def _fix_search_space(
    sampler: BaseSampler,
    target: str,
    space: Space,
) -> BaseSampler:
    """Fix the dimensions that CMA-ES or QMC samples together, whatever trials have finished."""
    from dlsearch.sampling.known_space import KnownSpace

    if target == QMC:
        distributions = space.distributions()
        together = {
            name: distribution
            for name, distribution in distributions.items()
            if not distribution.single()
        }
        return KnownSpace(sampler, lambda inferred: together)

    always_searched = {dim.name for dim in space.dimensions if not dim.when}

    def choose_always_searched(
        inferred: dict[str, BaseDistribution],
    ) -> dict[str, BaseDistribution]:
        return {
            name: distribution for name, distribution in inferred.items() if name in always_searched
        }

    return KnownSpace(sampler, choose_always_searched)


def goes_by_others(node: Any) -> bool:
    """Whether a proposal must see all other proposals, for a grid's or a sequence's next point.

    Such samplers take no time, and are asked under the study's lock, one after the other.
    """
    if not isinstance(node, Mapping):
        return False
    target = current_name(str(node.get("_target_")))
    if target in (GRID, QMC):
        return True
    return any(goes_by_others(value) for value in node.values())


# -- pruners ---------------------------------------------------------------------------------------
def build_pruner(
    cfg_node: Any,
    *,
    max_epochs: int,
    direction: str = "maximize",
    length_key: str = "trainer.max_epochs",
) -> BasePruner:
    """The pruner.

    Args:
        cfg_node: The ``pruner`` config; None prunes nothing.
        max_epochs: Length of a whole trial, beyond which no resource of a pruner may reach: epochs,
            or steps where its progress is counted in these.
        direction: The study's direction.
        length_key: The config key that gives this length.

    Raises:
        ConfigError: The config is wrong.
    """
    from optuna.pruners import BasePruner, NopPruner

    if cfg_node is None:
        return NopPruner()
    node = read_node(cfg_node, "pruner")
    check_pruner(node, "pruner", max_epochs, direction, length_key)
    pruner = make_object(node, "pruner", {})
    if not isinstance(pruner, BasePruner):
        raise ConfigError(
            "pruner._target_",
            f"{node['_target_']!r} makes no pruner",
            "pruner=median",
        )
    return pruner
