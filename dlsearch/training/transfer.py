"""Transfer learning: a net begins with the weights of another.

Parts of it may train later, slower, or never.

Which tensors are loaded, which start at random and which are left out is decided by names and
shapes alone, so that it is checked, on the meta device, before anything is written. A tensor that
is neither loaded nor meant to start at random is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypedDict

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dlsearch.config.compose import resolve
from dlsearch.config.progress import epochs_of
from dlsearch.config.transfer import LAST, LOADED, Rule, Settings, settings
from dlsearch.core.errors import ConfigError
from dlsearch.training.state import weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NEW = Rule("new", (), 1.0, 0, "transfer.head")
#: Characters of a list in a message.
_MAX_SHOWN = 160
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Plan:
    """What becomes of each tensor (parameter or buffer) of a net.

    Args:
        loaded: Names of those that come from the source.
        new: Names of those that start at random.
        left_out: Names that the source has and the net does not take.
        rules: How each tensor of the net trains, by its name.
    """

    loaded: list[str]
    new: list[str]
    left_out: list[str]
    rules: dict[str, Rule]

    def frozen(self, epoch: int) -> set[str]:
        """Names of the tensors that do not train in an epoch."""
        names: set[str] = set()
        for name, rule in self.rules.items():
            if rule.begins is None or rule.begins > epoch:
                names.add(name)
        return names


class TransferNote(TypedDict):
    """What a transfer was found to do, before anything was trained.

    Args:
        sha256: Digest of the source.
        loaded: Names of the tensors that come from the source.
        new: Names of those that start at random.
        left_out: Names that the source has and the net does not take.
        frozen: Names of the tensors that do not train in the first epoch.
    """

    sha256: str
    loaded: list[str]
    new: list[str]
    left_out: list[str]
    frozen: list[str]


class ParameterGroup(TypedDict):
    """Parameters that share a learning rate, as an optimizer takes them.

    Args:
        params: The parameters.
        name: Of the group, in what is logged.
        lr_factor: Times the optimizer's rate.
    """

    params: list[nn.Parameter]
    name: str
    lr_factor: float


def read_settings(cfg: DictConfig) -> Settings | None:
    """The ``transfer`` section of a config; None where nothing is transferred.

    Raises:
        ConfigError: A value is none that can be meant.
    """
    if OmegaConf.select(cfg, "transfer.weights") is None:
        return None
    return settings(resolve(cfg, "transfer"), epochs_of(cfg.trainer))


def net_of(task: pl.LightningModule) -> nn.Module:
    """What is loaded into: the task's net, or a module that has none itself."""
    net = getattr(task, "net", None)
    return net if isinstance(net, nn.Module) else task


def plan(wanted: Settings, net: nn.Module, source: Mapping[str, Tensor]) -> Plan:
    """Decide, by names and shapes.

    Args:
        wanted: What the config says.
        net: The net, on any device.
        source: Tensors by their names in the net.

    Raises:
        ConfigError: A pattern matches nothing; a tensor that is not to start at random is not in
            the source, or has another shape there; nothing would train; or what starts at random
            never would.
    """
    shapes = _shapes_of(net)
    names = list(shapes)
    head = _names_of_head(wanted.head, net, names)
    loaded: list[str] = []
    new: list[str] = []
    for name, shape in shapes.items():
        is_counter = name.endswith("num_batches_tracked")
        if name in head or (is_counter and name not in source):
            new.append(name)
        else:
            _check_source(wanted, source, name, shape)
            loaded.append(name)
    if not loaded:
        _refuse_source(wanted, "has no tensor for this net but those that begin anew")
    decided = Plan(
        loaded,
        new,
        left_out=[name for name in source if name not in loaded],
        rules=_assign_rules(wanted, names, loaded),
    )
    _check_training(decided, net)
    return decided


def _shapes_of(net: nn.Module) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for name, value in net.state_dict().items():
        if isinstance(value, Tensor):
            shapes[name] = list(value.shape)
    return shapes


def _check_source(
    wanted: Settings,
    source: Mapping[str, Tensor],
    name: str,
    shape: list[int],
) -> None:
    """Refuse a source that has no tensor of this name and shape."""
    if name not in source:
        _refuse_source(wanted, f"has no {name}, which this net has")
    found = list(source[name].shape)
    if found != shape:
        _refuse_source(wanted, f"has {name} as {found}, this net as {shape}")


def _refuse_source(wanted: Settings, why: str) -> NoReturn:
    hint = "transfer.head names what begins anew; is it the same net?"
    raise ConfigError("transfer.weights", f"{wanted.weights} {why}", hint)


def _names_of_head(
    patterns: tuple[str, ...],
    net: nn.Module,
    names: list[str],
) -> set[str]:
    if patterns != (LAST,):
        return _match_names(patterns, names, "transfer.head")
    parameters = [name for name, _ in net.named_parameters()]
    last_layer = _layer_of(parameters[-1]) if parameters else ""
    return {name for name in names if _layer_of(name) == last_layer}


def _layer_of(name: str) -> str:
    """The name of the module that a tensor belongs to."""
    return name.rpartition(".")[0]


def _match_names(patterns: Iterable[str], names: Sequence[str], key: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            raise ConfigError(
                key,
                f"{pattern!r} matches no tensor of the net",
                f"it has {_list_layers(names)}",
            )
        found |= matching
    return found


def _list_layers(names: Sequence[str]) -> str:
    """The layers of a net, as far as a message holds them."""
    layers = dict.fromkeys(_layer_of(name) or name for name in names)
    text = ", ".join(layers)
    return text if len(text) < _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _assign_rules(
    wanted: Settings,
    names: list[str],
    loaded: list[str],
) -> dict[str, Rule]:
    rules = dict.fromkeys(names, _NEW)
    rules |= dict.fromkeys(loaded, wanted.loaded)
    frozen = wanted.frozen
    if frozen.match == (LOADED,):
        frozen_names = set(loaded)
    else:
        frozen_names = _match_names(frozen.match, names, frozen.key)
    rules |= dict.fromkeys(frozen_names, frozen)
    for group in reversed(wanted.groups):  # the first that matches has the last word
        matching = _match_names(group.match, names, group.key)
        rules |= dict.fromkeys(matching, group)
    return rules


def _check_training(decided: Plan, net: nn.Module) -> None:
    parameters = [name for name, _ in net.named_parameters()]
    for name in parameters:
        rule = decided.rules[name]
        if name in decided.new and rule.begins is None:
            raise ConfigError(
                rule.key,
                f"freezes {name}, which begins anew and would stay random",
                "transfer.head=null",
            )
    if not any(decided.rules[name].begins == 0 for name in parameters):
        raise ConfigError(
            "transfer.freeze",
            "leaves nothing that trains in the first epoch",
            "transfer.head=last",
        )


# -- before a study is opened ----------------------------------------------------------------------
def check(cfg: DictConfig, task: pl.LightningModule, path: Path) -> TransferNote:
    """Plan a transfer without carrying it out; set which of the task's parameters train.

    Args:
        cfg: The config, whose ``transfer.weights`` lie at `path`.
        task: On any device.
        path: The source.

    Raises:
        ConfigError: See :func:`plan`.
    """
    wanted = read_settings(cfg)
    assert wanted is not None
    state = weights.read(path)
    source = weights.of_net(state, wanted.prefix)
    decided = plan(wanted, net_of(task), source)
    _apply_rules(decided, task)
    return {
        "sha256": weights.digest(state),
        "loaded": decided.loaded,
        "new": decided.new,
        "left_out": decided.left_out,
        "frozen": sorted(decided.frozen(0)),
    }


# -- in a training ---------------------------------------------------------------------------------
def begin(cfg: DictConfig, task: pl.LightningModule) -> list[pl.Callback]:
    """Carry out the config's transfer, if it has one.

    Args:
        cfg: Its ``transfer.sha256`` says which weights; they lie in ``paths.weights``.
        task: Its weights, and which of them train, change in place.

    Returns:
        The callbacks that the training needs for it.

    Raises:
        ConfigError: The weights are not here, or not those that were recorded.
    """
    wanted = read_settings(cfg)
    if wanted is None:
        return []
    path = stored(cfg, wanted)
    state = weights.read(path)
    if weights.digest(state) != wanted.sha256:
        raise ConfigError(
            "transfer.weights",
            f"{path} does not hold the weights that were recorded",
            "remove it",
        )
    source = weights.of_net(state, wanted.prefix)
    net = net_of(task)
    decided = plan(wanted, net, source)
    loaded = {name: source[name] for name in decided.loaded}
    net.load_state_dict(loaded, strict=False)
    _apply_rules(decided, task)
    return [Freezing(decided, net, adapt=wanted.adapt)]


def stored(cfg: DictConfig, wanted: Settings) -> Path:
    """Where the weights lie that a config's transfer begins with.

    Raises:
        ConfigError: It is not known which they are.
    """
    if wanted.sha256 is None:
        raise ConfigError(
            "transfer.sha256",
            f"holds no digest of {wanted.weights}",
            "it is filled in by dlsearch",
        )
    folder = Path(resolve(cfg, "paths.weights"))
    return folder / f"{wanted.sha256}.ckpt"


def present(cfg: DictConfig) -> str | None:
    """Digest of the weights that lie where a config's transfer looks for them.

    None where there are none.
    """
    wanted = read_settings(cfg)
    if wanted is None:
        return None
    path = stored(cfg, wanted)
    if not path.is_file():
        return None
    return weights.digest(weights.read(path))


def _apply_rules(decided: Plan, task: pl.LightningModule) -> None:
    """Which parameters never train, and which learning rates the others have."""
    groups = _group_parameters(decided, task)
    if hasattr(task, "param_groups"):
        # mypy takes what a module has for submodules
        task.param_groups = groups  # type: ignore[assignment]
    elif any(group["lr_factor"] != 1.0 for group in groups):
        raise ConfigError(
            "transfer.lr",
            "this task takes no learning rates by groups",
            f"give {type(task).__name__} an attribute param_groups, and hand it to the optimiser",
        )


def _group_parameters(decided: Plan, task: pl.LightningModule) -> list[ParameterGroup]:
    """The parameters that train, by their rules; the others are frozen for good."""
    groups: dict[str, ParameterGroup] = {}
    of_net: set[int] = set()
    for name, parameter in net_of(task).named_parameters():
        of_net.add(id(parameter))
        rule = decided.rules[name]
        if rule.begins is None:
            parameter.requires_grad_(False)
            continue
        if rule.name not in groups:
            groups[rule.name] = {"params": [], "name": rule.name, "lr_factor": rule.lr}
        groups[rule.name]["params"].append(parameter)
    others = [p for p in task.parameters() if id(p) not in of_net and p.requires_grad]
    if others:
        groups["task"] = {"params": others, "name": "task", "lr_factor": 1.0}
    return list(groups.values())


class Freezing(pl.Callback):
    """Keeps tensors as they are until their epoch comes.

    Which these are is a function of the epoch alone.

    A normalisation whose running statistics are frozen is in evaluation mode: it uses them and does
    not change them. With `adapt` it is not. Dropout stays active everywhere.

    Args:
        decided: The plan.
        net: The net.
        adapt: See above.
    """

    def __init__(
        self,
        decided: Plan,
        net: nn.Module,
        *,
        adapt: bool,
    ) -> None:
        """Nothing changes before the first epoch."""
        self.decided = decided
        self.net = net
        self.adapt = adapt

    def on_train_epoch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
    ) -> None:
        """Freeze and free."""
        frozen = self.decided.frozen(trainer.current_epoch)
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name not in frozen)
        if self.adapt:
            return
        for name, module in self.net.named_modules():
            if isinstance(module, _BATCH_NORMS) and module.track_running_stats:
                statistics = f"{name}.running_mean".removeprefix(".")
                module.train(statistics not in frozen)
