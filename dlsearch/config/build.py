"""The one place where a config becomes an object, behind an allow-list.

A target must be public, lie in one of the namespaces below, and be a class that derives from one of
the bases of its library, or a function of a short list; or lie in a package that the person at the
keyboard admits (:mod:`dlsearch.core.permission`), and be defined in it, so that
``mypackage.os.system`` and its like name nothing. Interpolations are resolved once, to plain data;
that is checked, and built as it is.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlsearch.config.moved import current_name
from dlsearch.config.resolved import check_expansion
from dlsearch.core import permission
from dlsearch.core.environment import watch
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree

#: Namespaces whose classes and functions a config may name. Each is a module prefix.
ALLOWED: tuple[str, ...] = (
    "dlsearch.systems",
    "dlsearch.training.callbacks",
    "dlsearch.training.compile",
    "dlsearch.inspection.gradients",
    "dlsearch.sampling.pruners",
    "dlsearch.sampling.factory",
    "torch.nn",
    "torch.optim",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.ops",
    "torchmetrics",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.plugins",
    "optuna.samplers",
    "optuna.pruners",
)
#: Within those, but out of reach: they generate code from the names in a net and run it, or load
#: what a path names.
DENIED: tuple[str, ...] = (
    "torch.nn.cpp",
    "torch.nn.parallel",
    "torchvision.models.feature_extraction",
    "torchmetrics.image.fid",
    "torchmetrics.multimodal",
    "torchmetrics.text.bert",
    "torchmetrics.text.infolm",
)
#: What a class of an allowed namespace must derive from, each where it is defined.
BASES = frozenset(
    {
        "dlsearch.systems.vision.data.augment.Augment",
        "dlsearch.systems.shared.schedules.Schedule",
        "dlsearch.systems.shared.views.Views",
        "optuna.pruners._base.BasePruner",
        "optuna.samplers._base.BaseSampler",
        "optuna.samplers.nsgaii._crossovers._base.BaseCrossover",
        "pytorch_lightning.callbacks.callback.Callback",
        "pytorch_lightning.core.datamodule.LightningDataModule",
        "pytorch_lightning.plugins.precision.precision.Precision",
        "torch.nn.modules.module.Module",
        "torch.optim.lr_scheduler.LRScheduler",
        "torch.optim.optimizer.Optimizer",
        "torchmetrics.metric.Metric",
    }
)
#: Classes that derive from none of these, and functions: they compute, and touch nothing else.
HARMLESS = frozenset(
    {
        "dlsearch.sampling.factory.grid",
        "dlsearch.sampling.factory.recorded",
        "torch.optim.swa_utils.get_ema_avg_fn",
        "torch.optim.swa_utils.get_ema_multi_avg_fn",
        "torch.optim.swa_utils.get_swa_avg_fn",
        "torch.optim.swa_utils.get_swa_multi_avg_fn",
        "torchvision.models.convnext.CNBlockConfig",
        "torchvision.models.efficientnet.FusedMBConvConfig",
        "torchvision.models.efficientnet.MBConvConfig",
        "torchvision.models.mobilenetv3.InvertedResidualConfig",
        "torchvision.ops.ciou_loss.complete_box_iou_loss",
        "torchvision.ops.diou_loss.distance_box_iou_loss",
        "torchvision.ops.focal_loss.sigmoid_focal_loss",
        "torchvision.ops.giou_loss.generalized_box_iou_loss",
        "torchvision.transforms.transforms.Compose",
        "torchvision.transforms.transforms.Lambda",
        "torchvision.transforms.transforms.PILToTensor",
        "torchvision.transforms.transforms.RandomChoice",
        "torchvision.transforms.transforms.RandomOrder",
        "torchvision.transforms.transforms.ToPILImage",
        "torchvision.transforms.transforms.ToTensor",
    }
)
#: Modules all of whose public functions compute, and touch nothing else.
_OF_NUMBERS = ("torch.nn.functional", "torch.nn.init")
#: The config groups of which something is built.
GROUPS = (
    "model",
    "task",
    "data",
    "optimizer",
    "scheduler",
    "callbacks",
    "logger",
    "sampler",
    "pruner",
)
#: Classes that write files, each for one place of a config alone, where it is seen to what they
#: write. They are built from plain arguments by name.
PLACED: Mapping[str, frozenset[str]] = {
    "logger": frozenset(
        {
            "pytorch_lightning.loggers.CSVLogger",
            "pytorch_lightning.loggers.TensorBoardLogger",
        }
    ),
    "trainer.profiler": frozenset(
        {
            "pytorch_lightning.profilers.AdvancedProfiler",
            "pytorch_lightning.profilers.PyTorchProfiler",
            "pytorch_lightning.profilers.SimpleProfiler",
        }
    ),
}
#: Arguments of Lightning's Trainer that a node with a ``_target_`` may describe.
BUILT_ARGUMENTS = ("profiler", "plugins", "strategy")
_SPECIAL = frozenset({"_target_", "_partial_", "_args_", "_recursive_", "_convert_"})


def _is_inside(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == p or path.startswith(f"{p}.") for p in prefixes)


def check_targets(node: Any, key: str) -> None:
    """Check every ``_target_`` below `node` by its name alone; imports nothing.

    Raises:
        ConfigError: A target is no string, is private, or lies neither in the allow-list nor in an
            admitted package.
    """
    if isinstance(node, (DictConfig, ListConfig)):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, Mapping):
        if "_target_" in node:
            check_name(node["_target_"], f"{key}._target_")
        for name, value in node.items():
            check_targets(value, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_targets(value, f"{key}[{index}]")


def check_groups(
    config: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Check all that is built of a config, composed or recorded, by its names alone.

    Args:
        config: With the groups of :data:`GROUPS`, some of them absent.
        options: The options of the groups that are searched: group → option → node.

    Raises:
        ConfigError: As :func:`check_targets`; its hint names the package to admit.
    """
    check_expansion(dict(_to_plain(config)))
    nodes = {group: config.get(group) for group in GROUPS}
    trainer = config.get("trainer") or {}
    for argument in BUILT_ARGUMENTS:
        nodes[f"trainer.{argument}"] = _without_placed(trainer.get(argument), f"trainer.{argument}")
    loggers = _to_plain(config.get("logger"))
    if isinstance(loggers, Mapping):
        nodes["logger"] = {
            name: _without_placed(node, "logger", f"logger.{name}")
            for name, node in loggers.items()
        }
    for group, found in (options or {}).items():
        for option, node in found.items():
            nodes[f"{group}={option}"] = node
    for key, node in nodes.items():
        plain = _to_plain(node)
        check_targets(plain, key)
        _check_unescaped(plain, key)


def is_placed(node: Any, place: str) -> bool:
    """Whether a node describes a class of :data:`PLACED`, at its place."""
    return isinstance(node, Mapping) and node.get("_target_") in PLACED.get(place, ())


def build_placed(node: Mapping[str, Any], place: str, key: str) -> Any:
    """Build a class of :data:`PLACED`; the caller has seen to where it writes.

    Args:
        node: Plain and resolved.
        place: A key of :data:`PLACED`.
        key: Where the node stands in the config.

    Raises:
        ConfigError: It has other than plain arguments by name, or its class refuses them.
    """
    check_resolved(node, key)
    arguments = _arguments_of_placed(node, key)
    assert is_placed(node, place)
    try:
        return _import_target(node["_target_"])(**arguments)
    except Exception as error:
        raise ConfigError(key, _first_line(error)) from error


def _without_placed(node: Any, place: str, key: str = "") -> Any:
    """What is left to check by its name of a node that may describe a class of :data:`PLACED`."""
    plain = _to_plain(node)
    return _arguments_of_placed(plain, key or place) if is_placed(plain, place) else plain


def _arguments_of_placed(node: Mapping[str, Any], key: str) -> ConfigTree:
    """The arguments of a class of :data:`PLACED`: plain ones, by name."""
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    for name, value in arguments.items():
        if name in _SPECIAL or isinstance(value, Mapping):
            raise ConfigError(f"{key}.{name}", "expected plain arguments by name", "leave it out")
    return arguments


def _to_plain(node: Any) -> Any:
    """A config as plain data, its interpolations unresolved.

    What is no config comes back as it is.
    """
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node, resolve=False)
    return node


def check_name(target: Any, key: str) -> None:
    """Check one target by its name alone.

    Raises:
        ConfigError: As :func:`check_targets`.
    """
    if not isinstance(target, str) or not target:
        raise ConfigError(key, f"expected a dotted path, got {target!r}")
    target = current_name(target)
    is_private = any(part.startswith("_") for part in target.split("."))
    if is_private and _is_inside(target, ALLOWED):
        raise ConfigError(
            key,
            f"{target!r} is private",
            "name what its package makes public",
        )
    if not is_admitted(target):
        hint = permission.hint(target.split(".")[0])
        raise ConfigError(key, f"{target!r} is outside the allow-list", hint)


def is_admitted(target: str) -> bool:
    """Whether a config may name `target`, by its name alone."""
    target = current_name(target)
    is_path = all(part.isidentifier() for part in target.split("."))
    if "__" in target or not is_path or _is_inside(target, DENIED):
        return False
    return _is_inside(target, (*ALLOWED, *permission.granted()))


def locate(target: str, key: str) -> Any:
    """Import what an allowed `target` names, and check what it is and where it was defined.

    Raises:
        ConfigError: Nothing has that name, or a config may not name it.
    """
    key = f"{key}._target_"
    target = current_name(target)
    check_name(target, key)
    try:
        found = _import_target(target)
    except Exception as error:
        raise ConfigError(key, f"{target!r} cannot be imported: {_first_line(error)}") from error
    module = getattr(found, "__module__", None)
    module = module if isinstance(module, str) else ""
    if not callable(found):
        raise ConfigError(key, f"{target!r} is no class or function")
    if _is_inside(module, permission.granted()):
        return found
    if not _is_inside(module, ALLOWED) or _is_inside(module, DENIED):
        raise ConfigError(key, f"{target!r} is not a class or function of an allowed namespace")
    if not _is_known(found, module):
        raise ConfigError(
            key,
            f"{target!r} is of no kind that a config builds",
            "a class of its library, such as a Module",
        )
    return found


def _import_target(target: str) -> Any:
    """What a dotted path names: an attribute of what stands before the last dot, or a module in it.

    Raises:
        Exception: There is none, or its module cannot be imported.
    """
    first, *rest = target.split(".")
    path = first
    found = importlib.import_module(first)
    for name in rest:
        path = f"{path}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError:
            if not inspect.ismodule(found):
                raise
            found = importlib.import_module(path)
    return found


def _is_known(found: Any, module: str) -> bool:
    """Whether what a library defines in `module` is a class of a known base, or harmless."""
    if f"{module}.{getattr(found, '__qualname__', '')}" in HARMLESS:
        return True
    if inspect.isclass(found):
        if issubclass(found, enum.Enum):  # a member by its value: InterpolationMode("bilinear")
            return _is_inside(module, ("torchvision.transforms",))
        return any(f"{base.__module__}.{base.__qualname__}" in BASES for base in found.__mro__)
    if not inspect.isfunction(found) or found.__name__.startswith("_"):
        return False
    if found.__qualname__ != found.__name__:
        return False
    return module in _OF_NUMBERS or _is_model_builder(found)


def _is_model_builder(found: Any) -> bool:
    """Whether torchvision lists the function as one that makes a model.

    Its weights have addresses of their own.
    """
    if not inspect.isfunction(found) or not str(found.__module__).startswith("torchvision.models."):
        return False
    from torchvision.models import get_model_builder, list_models

    return found.__name__ in list_models() and get_model_builder(found.__name__) is found


def check_arguments(node: Any, key: str) -> None:
    """Check that each target below `node` exists and takes the keys that stand beside it.

    Calls nothing.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_names_of_arguments(node, key)
        for name, value in node.items():
            check_arguments(value, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_arguments(value, f"{key}[{index}]")


def _check_names_of_arguments(node: Mapping[str, Any], key: str) -> None:
    found = locate(node["_target_"], key)
    parameters = inspect.signature(found).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in node:
        if name not in _SPECIAL and name not in parameters:
            raise ConfigError(
                f"{key}.{name}",
                f"{node['_target_']} takes no {name!r}",
                f"it takes {', '.join(parameters)}",
            )


def _check_unescaped(node: Any, key: str) -> None:
    """Refuse what :func:`check_resolved` would find in `node` once it is resolved."""
    if isinstance(node, str) and "\\${" in node:
        said = f"{node!r} holds an interpolation that is escaped"
        raise ConfigError(key, said, "write it unescaped")
    if isinstance(node, Mapping):
        for name, value in node.items():
            _check_unescaped(value, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_unescaped(value, f"{key}[{index}]")


def check_resolved(node: Any, key: str) -> None:
    """Check that no interpolation is left below `node`.

    Nobody would have checked what it resolves to.

    Raises:
        ConfigError: There is one: it was escaped, or came out of another one.
    """
    if isinstance(node, str) and "${" in node:
        raise ConfigError(
            key,
            f"{node!r} still holds an interpolation once all are resolved",
            "write it unescaped",
        )
    if isinstance(node, Mapping):
        for name, value in node.items():
            check_resolved(name, key)
            check_resolved(value, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_resolved(value, f"{key}[{index}]")


def build(node: Any, key: str, **kwargs: Any) -> Any:
    """Build the object that the config `node` describes, with everything below it.

    Args:
        node: A config with ``_target_`` (``None`` gives ``None``). ``_partial_: true`` gives a
            factory, ``_args_`` are positional arguments, ``_recursive_: false`` passes what is
            below on as plain data.
        key: Where the node stands in the config, for messages.
        **kwargs: Arguments that live objects bring; they win over the config's.

    Raises:
        ConfigError: The config is incomplete, names something that is not allowed, or its target
            refuses it.
    """
    if node is None:
        return None
    watch()  # what is read from the environment is masked wherever it is written
    plain = node
    try:
        if OmegaConf.is_config(node):
            plain = OmegaConf.to_container(
                node,
                resolve=True,
                throw_on_missing=True,
            )
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or key
        raise ConfigError(where, _first_line(error)) from error
    check_resolved(plain, key)
    check_targets(plain, key)
    check_arguments(plain, key)
    return _Builder(key).build_below(plain, key, kwargs)


class _Builder:
    """Builds what a checked config describes.

    Args:
        key: Where the whole config stands, which an error of a target names.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def build_below(self, node: Any, at: str, live: Mapping[str, Any]) -> Any:
        """`node` with every description of an object in it, or below it, replaced by the object.

        Args:
            node: Plain data that has been checked.
            at: Where it stands.
            live: Arguments of the outermost target that are passed on as they are.
        """
        if isinstance(node, (list, tuple)):
            return self._build_list(node, at)
        if not isinstance(node, Mapping):
            return node
        if "_target_" not in node:
            return self._build_mapping(node, at)
        return self._build_object(node, at, live)

    def _build_list(self, values: Iterable[Any], at: str) -> list[Any]:
        built: list[Any] = []
        for index, value in enumerate(values):
            built.append(self.build_below(value, f"{at}[{index}]", {}))
        return built

    def _build_mapping(self, values: Mapping[Any, Any], at: str) -> dict[Any, Any]:
        built: dict[Any, Any] = {}
        for name, value in values.items():
            built[name] = self.build_below(value, f"{at}.{name}", {})
        return built

    def _build_object(
        self,
        node: Mapping[Any, Any],
        at: str,
        live: Mapping[str, Any],
    ) -> Any:
        """The object that a node with a ``_target_`` describes, or a factory of it."""
        found = locate(node["_target_"], at)
        is_partial = _read_switch(node, "_partial_", at, False)
        is_recursive = _read_switch(node, "_recursive_", at, True)
        positional = _read_positional(node, at)
        named = _read_named(node, at, live)
        if _is_model_builder(found):
            named |= _without_weights(found, named, at)
        if is_recursive:
            positional = self._build_list(positional, f"{at}._args_")
            named = self._build_mapping(named, at)
        make = functools.partial(found, *positional, **named, **live)
        if is_partial:
            return make
        try:
            return make()
        except Exception as error:
            raise ConfigError(self._key, _first_line(error)) from error


def _read_positional(node: Mapping[Any, Any], at: str) -> Sequence[Any]:
    positional = node.get("_args_", [])
    if not isinstance(positional, (list, tuple)):
        raise ConfigError(f"{at}._args_", f"expected a list, got {positional!r}")
    return positional


def _read_named(
    node: Mapping[Any, Any],
    at: str,
    live: Mapping[str, Any],
) -> ConfigTree:
    """The arguments that a node names, less those that live objects bring."""
    named: ConfigTree = {}
    for name, value in node.items():
        if name in _SPECIAL or name in live:
            continue
        if not isinstance(name, str):
            raise ConfigError(at, f"expected names of arguments, got {name!r}")
        named[name] = value
    return named


def _without_weights(
    found: Any,
    given: Mapping[str, Any],
    at: str,
) -> dict[str, None]:
    """Torchvision's builders fetch weights by default, and unpickle them.

    Studies have a way of their own to weights.

    Raises:
        ConfigError: The config asks for some.
    """
    names = [name for name in inspect.signature(found).parameters if name.startswith("weights")]
    for name in ("pretrained", "pretrained_backbone", *names):
        if given.get(name):
            raise ConfigError(
                f"{at}.{name}",
                "weights are not fetched here",
                "transfer.weights=torchvision:…",
            )
    return dict.fromkeys(names)


def _read_switch(
    node: Mapping[Any, Any],
    name: str,
    at: str,
    default: bool,
) -> bool:
    value = node.get(name, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{at}.{name}", f"expected true or false, got {value!r}")
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
