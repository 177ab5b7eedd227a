"""Transfer learning: a net begins with the weights of another, and parts of it train later, slower, or never.

Which tensors are loaded, which start at random and which are left out is decided by names and
shapes alone, so that it is checked, on the meta device, before anything is written. A tensor that
is neither loaded nor meant to start at random is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dlsearch.config.compose import resolve
from dlsearch.config.transfer import LAST, LOADED, Rule, Settings, settings
from dlsearch.core.errors import ConfigError
from dlsearch.training import weights

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEW = Rule("new", (), 1.0, 0, "transfer.head")
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
        return {
            name for name, rule in self.rules.items() if rule.begins is None or rule.begins > epoch
        }


def read_settings(cfg: DictConfig) -> Settings | None:
    """The ``transfer`` section of a config; None where nothing is transferred.

    Raises:
        ConfigError: A value is none that can be meant.
    """
    if OmegaConf.select(cfg, "transfer.weights") is None:
        return None
    return settings(resolve(cfg, "transfer"), cfg.trainer.max_epochs)


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
    state = {
        name: tuple(value.shape)
        for name, value in net.state_dict().items()
        if isinstance(value, Tensor)
    }
    head = _names_of_head(wanted.head, net, list(state))
    loaded = []
    new = []
    for name, shape in state.items():
        if name in head or (name not in source and name.endswith("num_batches_tracked")):
            new.append(name)
        elif name not in source:
            _refuse_source(wanted, f"has no {name}, which this net has")
        elif tuple(source[name].shape) != shape:
            _refuse_source(
                wanted, f"has {name} as {list(source[name].shape)}, this net as {list(shape)}"
            )
        else:
            loaded.append(name)
    if not loaded:
        _refuse_source(wanted, "has no tensor for this net but those that begin anew")
    decided = Plan(
        loaded,
        new,
        [name for name in source if name not in loaded],
        _assign_rules(wanted, list(state), loaded),
    )
    _check_training(decided, net)
    return decided


def _refuse_source(wanted: Settings, why: str) -> None:
    hint = "transfer.head names what begins anew; is it the same net?"
    raise ConfigError("transfer.weights", f"{wanted.weights} {why}", hint)


def _names_of_head(patterns: tuple[str, ...], net: nn.Module, names: list[str]) -> set[str]:
    if patterns != (LAST,):
        return _match_names(patterns, names, "transfer.head")
    own = [name for name, _ in net.named_parameters()]
    layer = own[-1].rpartition(".")[0] if own else ""
    return {name for name in names if name.rpartition(".")[0] == layer}


def _match_names(patterns: Iterable[str], names: Sequence[str], key: str) -> set[str]:
    found = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            some = ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
            shown = some if len(some) < 160 else f"{some[:160]}…"
            raise ConfigError(key, f"{pattern!r} matches no tensor of the net", f"it has {shown}")
        found |= hits
    return found


def _assign_rules(wanted: Settings, names: list[str], loaded: list[str]) -> dict[str, Rule]:
    rules = {name: wanted.loaded if name in set(loaded) else _NEW for name in names}
    frozen = wanted.frozen.match
    chosen = set(loaded) if frozen == (LOADED,) else _match_names(frozen, names, wanted.frozen.key)
    rules |= dict.fromkeys(chosen, wanted.frozen)
    for group in reversed(wanted.groups):  # the first that matches has the last word
        rules |= dict.fromkeys(_match_names(group.match, names, group.key), group)
    return {name: rules[name] for name in names}


def _check_training(decided: Plan, net: nn.Module) -> None:
    parameters = [name for name, _ in net.named_parameters()]
    never = next(
        (n for n in parameters if n in decided.new and decided.rules[n].begins is None), None
    )
    if never is not None:
        key = decided.rules[never].key
        raise ConfigError(
            key, f"freezes {never}, which begins anew and would stay random", "transfer.head=null"
        )
    if not any(decided.rules[name].begins == 0 for name in parameters):
        raise ConfigError(
            "transfer.freeze", "leaves nothing that trains in the first epoch", "transfer.head=last"
        )


# -- before a study is opened ----------------------------------------------------------------------
def check(cfg: DictConfig, task: pl.LightningModule, path: Path) -> dict[str, Any]:
    """Plan a transfer without carrying it out; set which of the task's parameters train.

    Args:
        cfg: The config, whose ``transfer.weights`` lie at `path`.
        task: On any device.
        path: The source.

    Returns:
        ``sha256`` of the source, and the names of the tensors: ``loaded``, ``new``, ``left_out``,
        and which are ``frozen`` in the first epoch.

    Raises:
        ConfigError: See :func:`plan`.
    """
    wanted = read_settings(cfg)
    assert wanted is not None
    state = weights.read(path)
    decided = plan(wanted, net_of(task), weights.of_net(state, wanted.prefix))
    _apply_rules(decided, task)
    names = {"loaded": decided.loaded, "new": decided.new, "left_out": decided.left_out}
    return {"sha256": weights.digest(state), **names, "frozen": sorted(decided.frozen(0))}


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
            "transfer.weights", f"{path} does not hold the weights that were recorded", "remove it"
        )
    source = weights.of_net(state, wanted.prefix)
    net = net_of(task)
    decided = plan(wanted, net, source)
    net.load_state_dict({name: source[name] for name in decided.loaded}, strict=False)
    _apply_rules(decided, task)
    return [Freezing(decided, net, adapt=wanted.adapt)]


def stored(cfg: DictConfig, wanted: Settings) -> Path:
    """Where the weights lie that a config's transfer begins with.

    Raises:
        ConfigError: It is not known which they are.
    """
    if wanted.sha256 is None:
        raise ConfigError(
            "transfer.sha256", f"holds no digest of {wanted.weights}", "it is filled in by dlsearch"
        )
    return Path(resolve(cfg, "paths.weights")) / f"{wanted.sha256}.ckpt"


def present(cfg: DictConfig) -> str | None:
    """Digest of the weights that lie where a config's transfer looks for them.

    None where there are none.
    """
    wanted = read_settings(cfg)
    path = None if wanted is None else stored(cfg, wanted)
    return weights.digest(weights.read(path)) if path is not None and path.is_file() else None


def _apply_rules(decided: Plan, task: pl.LightningModule) -> None:
    """Which parameters never train, and which learning rates the others have."""
    named = dict(net_of(task).named_parameters())
    rates: dict[str, dict[str, Any]] = {}
    for name, parameter in named.items():
        rule = decided.rules[name]
        if rule.begins is None:
            parameter.requires_grad_(False)
        else:
            group = rates.setdefault(
                rule.name, {"params": [], "name": rule.name, "lr_factor": rule.lr}
            )
            group["params"].append(parameter)
    ours = {id(parameter) for parameter in named.values()}
    others = [p for p in task.parameters() if id(p) not in ours and p.requires_grad]
    if others:
        rates["task"] = {"params": others, "name": "task", "lr_factor": 1.0}
    if hasattr(task, "param_groups"):
        task.param_groups = list(rates.values())  # type: ignore[assignment]  # no submodule, for all that mypy knows
    elif any(group["lr_factor"] != 1.0 for group in rates.values()):
        hint = f"give {type(task).__name__} an attribute param_groups, and hand it to the optimiser"
        raise ConfigError("transfer.lr", "this task takes no learning rates by groups", hint)


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

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze and free."""
        frozen = self.decided.frozen(trainer.current_epoch)
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name not in frozen)
        if self.adapt:
            return
        for name, module in self.net.named_modules():
            if isinstance(module, _BATCH_NORMS) and module.track_running_stats:
                module.train(f"{name}.running_mean".removeprefix(".") not in frozen)
