"""Whether sampler, pruner, goal and space go together; known before any of them is made.

Importing this module imports no optuna.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.sampling.nodes import CMAES, GRID, HYPERBAND, read_node
from dlsearch.space.dimension import DimensionKind

if TYPE_CHECKING:
    from dlsearch.space.space import Space

#: Points of a grid that are held in memory.
MAX_GRID_POINTS = 100_000
#: Optuna's samplers that do not answer outside of ``Study.optimize``.
_INSIDE_OPTIMIZE = ("optuna.samplers.GridSampler", "optuna.samplers.BruteForceSampler")
_THRESHOLD = "optuna.pruners.ThresholdPruner"
_NO_PRUNER = "optuna.pruners.NopPruner"
#: Arguments of pruners that count epochs.
_EPOCH_ARGUMENTS = ("max_resource", "min_resource", "n_warmup_steps", "patience")


def validate_combination(
    sampler: Any,
    pruner: Any,
    directions: Sequence[str],
    space: Space,
) -> None:
    """Check that sampler, pruner, goal and space go together; imports neither of the two.

    Args:
        sampler: The ``sampler`` config.
        pruner: The ``pruner`` config; None prunes nothing.
        directions: The study's directions.
        space: What is searched.

    Raises:
        ConfigError: They do not.
    """
    sampler_node = read_node(sampler, "sampler")
    if not len(space) and space.function is None:
        raise ConfigError(
            "space",
            "nothing is searched",
            "optimizer.lr='tag(log, interval(1e-4, 1e-1))'",
        )
    check_sampler(sampler_node, directions, space)
    if pruner is None:
        return
    pruner_node = read_node(pruner, "pruner")
    if len(directions) > 1 and pruner_node["_target_"] != _NO_PRUNER:
        raise ConfigError("pruner", "several objectives cannot be pruned", "pruner=none")
    check_pruner(pruner_node, "pruner", None, directions[0])


# -- samplers --------------------------------------------------------------------------------------
def check_sampler(
    node: Mapping[str, Any],
    directions: Sequence[str],
    space: Space,
) -> None:
    """Check that a sampler fits the directions and the space.

    Raises:
        ConfigError: It does not.
    """
    target = node["_target_"]
    if target in _INSIDE_OPTIMIZE:
        raise ConfigError(
            "sampler._target_",
            f"{target} works inside Study.optimize alone",
            "sampler=grid",
        )
    if target == GRID:
        _check_grid(space)
    if target == CMAES:
        _check_cmaes(directions, space)


def _check_grid(space: Space) -> None:
    space.grid()  # raises where a dimension has infinitely many values
    size = space.size()
    if size > MAX_GRID_POINTS:
        raise ConfigError(
            "sampler",
            f"a grid holds {MAX_GRID_POINTS:,} points, this one has {size:,.0f}",
            "sampler=qmc",
        )


def _check_cmaes(
    directions: Sequence[str],
    space: Space,
) -> None:
    if len(directions) > 1:
        raise ConfigError("sampler", "CMA-ES has one objective", "sampler=nsga2, tpe or gp")
    if space.function is not None:
        return
    for dim in space.dimensions:
        is_number = dim.kind != DimensionKind.CATEGORICAL
        if is_number and not dim.when and dim.count() != 1:
            return
    raise ConfigError(
        "sampler",
        "CMA-ES needs a number that is always searched",
        "sampler=tpe",
    )


# -- pruners ---------------------------------------------------------------------------------------
def check_pruner(
    node: Mapping[str, Any],
    key: str,
    max_epochs: int | None,
    direction: str,
    length_key: str = "trainer.max_epochs",
) -> None:
    """Check that a pruner, with the one that it wraps, fits the length and the direction.

    Args:
        node: The pruner's config.
        key: Its config key.
        max_epochs: Length of a whole trial, in epochs or steps; None where it is not known yet.
        direction: The study's direction.
        length_key: The config key that gives this length.

    Raises:
        ConfigError: It does not.
    """
    target = node["_target_"]
    if max_epochs is not None:
        _check_lengths(node, key, max_epochs, length_key)
    if target == _THRESHOLD:
        _check_threshold(node, key, direction)
    if target in HYPERBAND:
        _check_resources(node, key)
    wrapped = node.get("wrapped_pruner")
    if isinstance(wrapped, Mapping):
        check_pruner(wrapped, f"{key}.wrapped_pruner", max_epochs, direction, length_key)


def _check_lengths(
    node: Mapping[str, Any],
    key: str,
    max_epochs: int,
    length_key: str,
) -> None:
    """Check that a pruner counts no epochs or steps that no trial has."""
    for name in _EPOCH_ARGUMENTS:
        value = node.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if value > max_epochs:
            raise ConfigError(
                f"{key}.{name}",
                f"{value} lies beyond {length_key}={max_epochs}",
                f"{max_epochs}",
            )


def _check_threshold(
    node: Mapping[str, Any],
    key: str,
    direction: str,
) -> None:
    bound = "lower" if direction == "maximize" else "upper"
    if node.get(bound) is None:
        where = f"{key}.{bound}"
        raise ConfigError(
            where,
            f"expected a bound, for study.direction={direction}",
            f"{where}=0.2",
        )


def _check_resources(
    node: Mapping[str, Any],
    key: str,
) -> None:
    most = node.get("max_resource")
    if not isinstance(most, int):
        return
    least = node.get("min_resource", 1)
    if least > most:
        raise ConfigError(f"{key}.min_resource", f"{least} lies beyond max_resource={most}")
