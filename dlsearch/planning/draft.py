"""A study as it would be: everything composed and checked that needs neither torch nor a database.

``plan`` prints a draft; the driver opens a study from one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dlsearch.config.build import check_groups
from dlsearch.config.compose import explain, key_paths, resolve, seconds
from dlsearch.config.progress import training_length
from dlsearch.confirmation.racing import LIMIT
from dlsearch.core import masking
from dlsearch.core.bounded import parse_yaml, read_text
from dlsearch.core.errors import ConfigError, did_you_mean
from dlsearch.core.names import check_name, check_project
from dlsearch.planning import transfer_sources
from dlsearch.space.space import MISSING, Dimension, Space
from dlsearch.study.trial_config import lookup, trial_config

#: Config keys that may change between sessions of one study: budgets, places, and what only shows.
VOLATILE = (
    "paths",
    "tracking",
    "worker",
    "name",
    "test",
    "study.n_trials",
    "study.timeout",
    "study.trial_timeout",
    "study.target",
    "study.allow_drift",
    "study.storage",
    "study.workers",
    "study.finalize",
    "study.confirm",
    "study.keep",
    "study.max_attempts",
    "study.max_halvings",
    "study.enqueue",
    "study.name",
    "study.storage_patience",
    "study.storage_on_network_fs",
)
GROUPS = ("model", "task", "data", "optimizer", "scheduler", "callbacks", "trainer")

Compose = Callable[[Sequence[str]], DictConfig]


@dataclass
class Draft:
    """A study before it is opened.

    Args:
        name: Its name.
        config: The composed config, interpolations unresolved.
        options: For every searched config group: option → the group's config.
        space: What is searched.
        objectives: Metrics.
        directions: ``maximize`` or ``minimize``, for each.
        enqueue: Parameter sets to run first, as given.
        default: The default configuration's values; None where it does not run as trial 0.
        defaults: The base config's value of every dimension.
        choices: Hydra's choice in each group.
        overrides: As typed.
        notices: What a user should know.
        argv: The words of the command that opens the study; empty where none was typed.
    """

    name: str
    config: dict[str, Any]
    options: dict[str, dict[str, Any]]
    space: Space
    objectives: list[str]
    directions: list[str]
    enqueue: list[dict[str, Any]]
    default: dict[str, Any] | None
    choices: dict[str, Any]
    overrides: list[str]
    defaults: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    argv: Sequence[str] = ()

    @property
    def study(self) -> Mapping[str, Any]:
        """The ``study`` section."""
        return dict(self.config["study"])

    @property
    def timeout(self) -> float | None:
        """Wall time of the search, seconds."""
        return seconds(self.study["timeout"], "study.timeout")

    @property
    def trial_timeout(self) -> float | None:
        """Deadline of one attempt, seconds."""
        return seconds(self.study["trial_timeout"], "study.trial_timeout")

    @property
    def command(self) -> str:
        """What was typed."""
        import shlex

        return (
            shlex.join(["dlsearch", *self.argv])
            if self.argv
            else shlex.join(["dlsearch", "-m", *self.overrides])
        )

    def representatives(self) -> list[dict[str, Any]]:
        """The base config, and it with each other option of each searched group, or transfer.

        They are built to check them.
        """
        configs = [trial_config(self._document(), {}, seed=self.config["seed"])]
        for group, options in self.options.items():
            configs += [
                trial_config(self._document(), {group: option}, seed=self.config["seed"])
                for option, node in options.items()
                if node != self.config[group]
            ]
        seed = self.config["seed"]
        document = self._document()
        return configs + [
            trial_config(document, params, seed=seed)
            for params in transfer_sources.representatives(self)
        ]

    def _document(self) -> dict[str, Any]:
        return {"config": self.config, "options": self.options}

    def fixed(self) -> dict[str, Any]:
        """The config without what may change between sessions: its digest tells drift."""
        kept = json.loads(json.dumps(self.config))
        for key in VOLATILE:
            *parents, last = key.split(".")
            node = kept
            for part in parents:
                node = node.get(part) or {}
            node.pop(last, None)
        for part in ("sampler", "pruner", "space"):
            kept.pop(part, None)
        if not kept.get("transfer", {}).get(
            "sha256"
        ):  # nothing is transferred: as in studies that knew of no such thing
            kept.pop("transfer", None)
        return dict(kept)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def make_draft(
    compose: Compose,
    overrides: Sequence[str],
    *,
    params: Mapping[str, Any] | None,
    groups: set[str],
) -> Draft:
    """Compose and check.

    Args:
        compose: Composes overrides without sweeps; the result has Hydra's node.
        overrides: As typed after ``-m``.
        params: ``hydra.sweeper.params``.
        groups: Config groups that may be searched.

    Raises:
        ConfigError: Anything that can be known without building is wrong.
    """
    _, given = Space.from_sources(None, params, list(overrides), groups=groups)
    base = _compose(compose, given)

    def lookup(key: str) -> Any:
        if key in groups:
            return base.hydra.runtime.choices.get(key, MISSING)
        return OmegaConf.select(
            base,
            key,
            default=MISSING,
            throw_on_missing=False,
        )

    space, _ = Space.from_sources(
        _plain(base.space),
        params,
        list(overrides),
        groups=groups,
        extra=list(base.allow_targets),
        lookup=lookup,
    )
    options: dict[str, dict[str, Any]] = {}
    dims = list(space.dimensions)
    for dim in [d for d in dims if d.is_group]:
        options[dim.name] = _options(compose, given, dim)
    config = _container(base)
    masking.learn(config)
    check_project(config["tracking"]["project"])
    for name, nodes in options.items():
        choice = str(base.hydra.runtime.choices.get(name))
        config[name] = nodes.get(choice) or next(iter(nodes.values()))
    space = space.replace_dimensions([_condition(dim, config, options) for dim in dims])
    draft = Draft(
        name=_name(base),
        config=config,
        options=options,
        space=space,
        objectives=[],
        directions=[],
        enqueue=[],
        default=None,
        choices={str(k): v for k, v in base.hydra.runtime.choices.items()},
        overrides=list(overrides),
    )
    draft.objectives, draft.directions = _goals(draft)
    _check_values(draft)
    draft.enqueue = _enqueue(draft)
    _default(draft)
    size = draft.space.size()
    n_trials = draft.study["n_trials"]
    if size < n_trials:
        draft.notices.append(
            f"the space has {size:.0f} points: "
            f"of {n_trials} trials the rest takes over their results"
        )
    return draft


def _compose(compose: Compose, overrides: Sequence[str]) -> DictConfig:
    try:
        return compose(list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error) from error


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _container(cfg: DictConfig) -> dict[str, Any]:
    copy = cfg.copy()
    with open_dict(copy):
        copy.pop("hydra", None)
    try:
        plain = OmegaConf.to_container(copy, resolve=False, enum_to_str=True)
        plain = {**plain, "paths": resolve(copy, "paths")}  # type: ignore[dict-item]
        for part in ("study", "sampler", "pruner", "allow_targets", "tracking"):
            plain[part] = resolve(copy, part)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    return {str(key): value for key, value in plain.items()}


def _options(compose: Compose, given: Sequence[str], dim: Dimension) -> dict[str, Any]:
    """Compose each option of a searched group; it may write nowhere but in its own group."""
    found: dict[str, Any] = {}
    rest: dict[str, Any] | None = None
    for choice in dim.choices or ():
        cfg = _container(_compose(compose, [*given, f"{dim.name}={choice}"]))
        found[str(choice)] = cfg.pop(dim.name)
        if rest is not None and cfg != rest:
            raise ConfigError(
                dim.name,
                f"option {choice!r} writes outside its own group",
                "search such options one by one",
            )
        rest = cfg
    return found


def _condition(
    dim: Dimension, config: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> Dimension:
    """Check that the dimension's key exists.

    A key that only some options of a group have makes the dimension conditional on them.
    """
    if dim.is_group or dim.added:
        return dim
    group, _, rest = dim.name.partition(".")
    nodes = options.get(group)
    if nodes is not None and rest:
        having = [option for option, node in nodes.items() if _has(node or {}, rest)]
        if having and len(having) < len(nodes) and not dim.when:
            return dataclasses.replace(dim, when={group: having})
        if having:
            return dim
    if not _has(config, dim.name):
        hint = did_you_mean(dim.name, key_paths(config), "--cfg job")
        raise ConfigError(dim.name, "is searched, but there is no such key in the config", hint)
    return dim


def _has(node: Mapping[str, Any], key: str) -> bool:
    try:
        lookup(node, key)
    except KeyError:
        return False
    return True


def _name(cfg: DictConfig) -> str:
    choices = cfg.hydra.runtime.choices
    name = (
        cfg.study.name
        or choices.get("experiment")
        or f"{choices.get('model')}_{choices.get('data')}"
    )
    return check_name(str(name).replace("/", "_") if cfg.study.name is None else str(name))


def _goals(draft: Draft) -> tuple[list[str], list[str]]:
    """The metrics of the study, and the direction of each."""
    objective = draft.study["objective"]
    direction = draft.study["direction"]
    objectives = list(objective) if isinstance(objective, (list, tuple)) else [objective]
    has_several = isinstance(direction, (list, tuple))
    directions = list(direction) if has_several else [direction] * len(objectives)
    _check_objectives(objective, objectives)
    if len(directions) != len(objectives) or not set(directions) <= {"maximize", "minimize"}:
        raise ConfigError(
            "study.direction",
            f"expected maximize or minimize for each objective, got {direction!r}",
        )
    return objectives, directions


def _check_objectives(typed: Any, objectives: list[Any]) -> None:
    if not objectives or not all(isinstance(name, str) and name for name in objectives):
        raise ConfigError(
            "study.objective",
            f"expected a metric or a list of them, got {typed!r}",
            "val/accuracy",
        )
    if any(name.startswith("test") for name in objectives):
        raise ConfigError(
            "study.objective",
            "the test set is sealed during a search",
            "choose a validation metric",
        )


def _check_values(draft: Draft) -> None:
    """Check every value whose range is known before anything is built."""
    from dlsearch.sampling.checks import validate_combination

    check_groups(draft.config, draft.options)
    _check_has_target(draft.config, "task")
    if draft.config.get("data") is not None:  # else the task brings its own loaders
        _check_has_target(draft.config, "data")
    _check_confirmation(draft)
    _check_budgets(draft)
    transfer_sources.check_section(draft)
    _check_machine(draft.config)
    validate_combination(
        draft.config["sampler"], draft.config["pruner"], draft.directions, draft.space
    )


def _check_has_target(config: Mapping[str, Any], group: str) -> None:
    node = config.get(group)
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(
            group,
            "expected a config with a _target_",
            f"{group}=… chooses one; see dlsearch --help",
        )


def _check_confirmation(draft: Draft) -> None:
    confirm = draft.study["confirm"]
    for key in ("top", "seeds"):
        if not 1 <= confirm[key] <= LIMIT:
            raise ConfigError(
                f"study.confirm.{key}",
                f"expected 1 to {LIMIT}, got {confirm[key]}",
                "study.finalize=false leaves the confirmation out",
            )
    schedulers = [draft.config.get("scheduler"), *draft.options.get("scheduler", {}).values()]
    if confirm["refit"] and any("monitor" in (node or {}) for node in schedulers):
        raise ConfigError(
            "study.confirm.refit",
            "on train + validation there is no validation score for the scheduler to watch",
            "another scheduler, or study.confirm.refit=false",
        )


def _check_budgets(draft: Draft) -> None:
    study = draft.study
    for key, least in (("n_trials", 1), ("max_attempts", 1), ("max_halvings", 0)):
        if study[key] < least:
            raise ConfigError(
                f"study.{key}", f"expected at least {least}, got {study[key]}", f"study.{key}=20"
            )
    for key, value in study["keep"].items():
        least = 1 if key == "top_k" else 0
        if value is not None and not value >= least:
            raise ConfigError(
                f"study.keep.{key}",
                f"expected a positive number or null, got {value}",
                "null keeps all",
            )
    target = study["target"]
    if target is not None and not math.isfinite(target):
        raise ConfigError("study.target", f"expected a finite number, got {target}")
    _ = draft.timeout, draft.trial_timeout  # each raises where it is no time


def _check_machine(config: Mapping[str, Any]) -> None:
    training_length(config["trainer"])  # raises where it is below 1
    lease_s = config["worker"]["lease_s"]
    if lease_s < 2:
        raise ConfigError("worker.lease_s", f"expected at least 2 seconds, got {lease_s}")


def _enqueue(draft: Draft) -> list[dict[str, Any]]:
    """The parameter sets that are run first, checked against the space."""
    given = draft.study["enqueue"]
    if given is None:
        return []
    if isinstance(given, str):
        given = _read_enqueued(given)
    if not isinstance(given, list) or not all(isinstance(entry, dict) for entry in given):
        raise ConfigError(
            "study.enqueue", "expected a list of parameter sets", "[{optimizer.lr: 0.01}]"
        )
    for index, entry in enumerate(given):
        draft.space.validate(entry, f"study.enqueue[{index}]")
    n_trials = draft.study["n_trials"]
    if len(given) + bool(draft.study["default_first"]) > n_trials:
        raise ConfigError("study.enqueue", f"{len(given)} sets do not fit into n_trials={n_trials}")
    return [dict(entry) for entry in given]


def _read_enqueued(typed: str) -> Any:
    """What a JSON or YAML file holds.

    Raises:
        ConfigError: It cannot be read.
    """
    path = Path(typed)
    if not path.is_file():
        raise ConfigError("study.enqueue", f"expected a list or a JSON/YAML file, got {typed!r}")
    try:
        return OmegaConf.to_container(parse_yaml(read_text(path), str(path)))
    except ConfigError as error:
        raise ConfigError("study.enqueue", str(error)) from error
    except (OmegaConfBaseException, ValueError, OSError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError("study.enqueue", f"{path} cannot be read: {line}") from error


def _default(draft: Draft) -> None:
    """Note the default configuration as a parameter set, where it is wanted and in the space."""
    cfg = OmegaConf.create(draft.config)

    def value_of(key: str) -> Any:
        if key in draft.options:
            chosen = draft.config[key]
            return next(option for option, node in draft.options[key].items() if node == chosen)
        return resolve(cfg, key)

    values, outside = draft.space.default_params(value_of)
    draft.defaults = values
    if not draft.study["default_first"] or draft.space.function is not None:
        return
    if outside:
        shown = ", ".join(f"{name}={value_of(name)}" for name in outside)
        draft.notices.append(
            f"the default configuration is not run as trial 0: "
            f"{shown} lies outside the search space"
        )
        return
    draft.default = values
