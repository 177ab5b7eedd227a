"""The one place where a config becomes an object, behind an allow-list.

Hydra's ``instantiate`` calls whatever ``_target_`` names. Here a target must lie in one of the namespaces
below (or in one that the user's config adds in ``allow_targets``), and so must the module in which the object
that it resolves to was defined, so that ``torch.optim.os.system`` and its like name nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlsearch.config.errors import ConfigError

#: Namespaces whose classes and functions a config may name. Each is a module prefix.
ALLOWED: tuple[str, ...] = (
    "dlsearch.models",
    "dlsearch.tasks",
    "dlsearch.data",
    "dlsearch.optim",
    "dlsearch.train.callbacks",
    "dlsearch.train.compile",
    "dlsearch.train.gradients",
    "dlsearch.search.pruners",
    "dlsearch.search.samplers",
    "torch.nn",
    "torch.optim",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.ops",
    "torchmetrics",
    "pytorch_lightning.callbacks",
    "optuna.samplers",
    "optuna.pruners",
)
#: Within those, but out of reach: it generates code from the names in a net, and runs it.
DENIED: tuple[str, ...] = ("torchvision.models.feature_extraction",)


def _inside(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == p or path.startswith(f"{p}.") for p in prefixes)


def check_allow_targets(extra: Sequence[str]) -> None:
    """Refuse an ``allow_targets`` entry that would open more than one user package."""
    closed = {"builtins", "os", "sys", "subprocess", "shutil", "importlib", "runpy", "pickle", "ctypes", "socket"}
    closed |= {"torch", "hydra", "omegaconf", "mlflow", "optuna", "dlsearch", "numpy", "multiprocessing", "code"}
    for entry in extra:
        if not isinstance(entry, str) or not all(part.isidentifier() for part in entry.split(".")):
            raise ConfigError("allow_targets", f"expected module names, got {entry!r}", "allow_targets=[mypackage]")
        if entry.split(".")[0] in closed:
            raise ConfigError("allow_targets", f"{entry!r} is not a package of yours", "name your own package")


def check_targets(node: Any, key: str, extra: Sequence[str] = ()) -> None:
    """Check every ``_target_`` below `node` by its name alone; imports nothing.

    Raises:
        ConfigError: A target is no string or lies outside the allow-list.
    """
    check_allow_targets(extra)
    if isinstance(node, (DictConfig, ListConfig)):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, Mapping):
        if "_target_" in node:
            target = node["_target_"]
            if not isinstance(target, str) or not target:
                raise ConfigError(f"{key}._target_", f"expected a dotted path, got {target!r}")
            if not _inside(target, (*ALLOWED, *extra)) or _inside(target, DENIED) or "__" in target:
                raise ConfigError(
                    f"{key}._target_",
                    f"{target!r} is outside the allow-list",
                    f"allow_targets=[{target.split('.')[0]}] admits a package of yours",
                )
        for name, value in node.items():
            check_targets(value, f"{key}.{name}", extra)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_targets(value, f"{key}[{index}]", extra)


def locate(target: str, key: str, extra: Sequence[str] = ()) -> Any:
    """Import what an allowed `target` names, and check where it was defined.

    Raises:
        ConfigError: Nothing has that name, or it was defined outside the allow-list.
    """
    check_targets({"_target_": target}, key, extra)
    try:
        found = get_object(target)
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"{key}._target_", f"{target!r} cannot be imported: {reason}") from error
    module = getattr(found, "__module__", None) or ""
    if not callable(found) or not _inside(module, (*ALLOWED, *extra)) or _inside(module, DENIED):
        raise ConfigError(f"{key}._target_", f"{target!r} is not a class or function of an allowed namespace")
    return found


def check_arguments(node: Any, key: str, extra: Sequence[str] = ()) -> None:
    """Check that each target below `node` exists and takes the keys that stand beside it; calls nothing."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            found = locate(node["_target_"], key, extra)
            parameters = inspect.signature(found).parameters
            open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            special = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
            for name in node:
                if name not in special and name not in parameters and not open_ended:
                    raise ConfigError(
                        f"{key}.{name}", f"{node['_target_']} takes no {name!r}", f"it takes {', '.join(parameters)}"
                    )
        for name, value in node.items():
            check_arguments(value, f"{key}.{name}", extra)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_arguments(value, f"{key}[{index}]", extra)


def build(node: Any, key: str, *, extra: Sequence[str] = (), **kwargs: Any) -> Any:
    """Build the object that the config `node` describes, with everything below it.

    Args:
        node: A config with ``_target_`` (``None`` gives ``None``). ``_partial_: true`` gives a factory.
        key: Where the node stands in the config, for messages.
        extra: The user's ``allow_targets``.
        **kwargs: Arguments that live objects bring; they win over the config's.

    Raises:
        ConfigError: The config is incomplete, names something that is not allowed, or its target refuses it.
    """
    if node is None:
        return None
    try:
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or key
        raise ConfigError(where, str(error).splitlines()[0]) from error
    check_targets(plain, key, extra)
    check_arguments(plain, key, extra)
    try:
        return instantiate(plain, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigError(key, str(cause).splitlines()[0]) from error
