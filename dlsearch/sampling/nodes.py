"""The config node of a sampler or pruner: read as plain data, and made into an object.

Importing this module imports no optuna.
"""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.config.build import build, locate
from dlsearch.config.moved import with_current_names
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree

#: Targets that need something that other samplers and pruners do not.
CMAES = "optuna.samplers.CmaEsSampler"
QMC = "optuna.samplers.QMCSampler"
TPE = "optuna.samplers.TPESampler"
GRID = "dlsearch.sampling.factory.grid"
HYPERBAND = ("dlsearch.sampling.pruners.Hyperband", "optuna.pruners.HyperbandPruner")
#: Factories that are kept, by their config.
_FACTORIES_KEPT = 64


def read_node(
    node: Any,
    key: str,
) -> ConfigTree:
    """The config of a sampler or pruner as plain data, with the current names of moved targets.

    Args:
        node: The config.
        key: Its config key, for the message.

    Raises:
        ConfigError: It names no target.
    """
    plain = node
    if OmegaConf.is_config(node):
        plain = OmegaConf.to_container(node, resolve=True)
    if not isinstance(plain, Mapping) or not isinstance(plain.get("_target_"), str):
        raise ConfigError(
            key,
            f"expected a config with a _target_, got {plain!r}",
            f"{key}=… chooses one",
        )
    return {str(name): value for name, value in with_current_names(plain).items()}


def seed_nested(
    node: Any,
    key: str,
    seed: int,
) -> Any:
    """The value of a sampler's argument, with a seed in each sampler that lies inside.

    Args:
        node: The value: any YAML, or the config of another sampler.
        key: Its config key.
        seed: The seed for samplers that have none of their own.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    seeded = {}
    for name, value in node.items():
        seeded[name] = seed_nested(value, f"{key}.{name}", seed)
    if seeded.get("seed") is None and "seed" in parameters_of(seeded["_target_"], key):
        seeded["seed"] = seed
    return seeded


def parameters_of(
    target: str,
    key: str,
) -> Mapping[str, inspect.Parameter]:
    """The parameters that a target takes."""
    return inspect.signature(locate(target, key)).parameters


def make_object(
    node: Mapping[str, Any],
    key: str,
    arguments: Mapping[str, Any],
) -> Any:
    """The object that a config describes.

    Args:
        node: The config.
        key: Its config key.
        arguments: Arguments that do not pass through a config, as the space.

    Raises:
        ConfigError: The target is not allowed, or refuses its arguments.
    """
    text = json.dumps(node)
    with _ignore_experimental():
        if any(isinstance(value, (Mapping, list, tuple)) for value in node.values()):
            # What lies inside would be shared by all that one factory makes, with its random state.
            factory = _make_factory(text, key)
        else:
            factory = _keep_factory(text, key)
        try:
            return factory(**arguments)
        except (ImportError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(key, f"{node['_target_']}: {reason}") from error


@contextmanager
def _ignore_experimental() -> Iterator[None]:
    """Ignore that half of Optuna's samplers and pruners call themselves experimental.

    The user chose one by name.
    """
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _make_factory(
    node: str,
    key: str,
) -> Any:
    """A function that makes the object of a config, which is given as JSON."""
    config = json.loads(node)
    config["_partial_"] = True
    return build(config, key)


_keep_factory = functools.lru_cache(maxsize=_FACTORIES_KEPT)(_make_factory)
