"""A study as it would be: everything composed and checked that needs neither torch nor a database.

``plan`` prints a draft; the driver opens a study from one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dlsearch.config.build import check_groups
from dlsearch.config.compose import explain, key_paths, resolve, seconds
from dlsearch.config.declared import adapt_value, is_int
from dlsearch.config.progress import ProgressUnit, training_length
from dlsearch.config.trainer_arguments import check_trainer
from dlsearch.confirmation.racing import LIMIT
from dlsearch.core import masking
from dlsearch.core.bounded import parse_yaml, read_text
from dlsearch.core.errors import ConfigError, did_you_mean
from dlsearch.core.names import check_name, check_project
from dlsearch.planning import transfer_sources
from dlsearch.planning.comparison import (
    check_comparison,
    check_enqueued,
    plan_arms,
    set_arm_defaults,
)
from dlsearch.planning.confirm_setting import settle_confirmation
from dlsearch.planning.directions import list_contradictions, settle_directions
from dlsearch.planning.options import Compose, OptionReader, Options
from dlsearch.sampling.arms import Arms
from dlsearch.space.adapting import adapt_dimension
from dlsearch.space.space import MISSING, Dimension, Space
from dlsearch.study.option_nodes import GLOBAL, is_global, owner_of
from dlsearch.study.trial_config import lookup, trial_config

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree, Params

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
    "study.max_identical_failures",
    "study.enqueue",
    "study.name",
    "study.storage_patience",
    "study.storage_on_network_fs",
    "study.rehearsal",
    "study.rehearsal_timeout",
    "study.seal",
)
GROUPS = ("model", "task", "data", "optimizer", "scheduler", "callbacks", "trainer")


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
        arms: What is compared; None where nothing is.
        arm_defaults: The default configuration of each arm; none where they are not run first.
        has_typed_direction: Whether ``study.direction`` is given; else the objectives' names say.
        chosen: The option of each searched group that the config has.
    """

    name: str
    config: ConfigTree
    options: Options
    space: Space
    objectives: list[str]
    directions: list[str]
    enqueue: list[Params]
    default: Params | None
    choices: dict[str, str | None]
    overrides: list[str]
    defaults: Params = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    argv: Sequence[str] = ()
    arms: Arms | None = None
    arm_defaults: list[Params] = field(default_factory=list)
    has_typed_direction: bool = True
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def total_trials(self) -> int:
        """How many trials the study has: of a comparison, those of all arms."""
        each: int = self.study["n_trials"]
        return each if self.arms is None else each * len(self.arms)

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
    def rehearsal_timeout(self) -> float:
        """How long the rehearsal may take, seconds."""
        return seconds(self.study["rehearsal_timeout"], "study.rehearsal_timeout") or math.inf

    @property
    def command(self) -> str:
        """What was typed."""
        import shlex

        words = self.argv or ["-m", *self.overrides]
        return shlex.join(["dlsearch", *words])

    def representatives(self) -> list[ConfigTree]:
        """The base config, and it with each other option of each searched group, or transfer.

        They are built to check them.
        """
        chosen: list[Params] = [{}]
        for group, options in self.options.items():
            base = options[self.chosen[group]]
            chosen += [{group: option} for option, node in options.items() if node != base]
        chosen += transfer_sources.representatives(self)
        document = {"config": self.config, "options": self.options}
        seed = self.config["seed"]
        return [trial_config(document, params, seed=seed) for params in chosen]

    def fixed(self) -> ConfigTree:
        """The config without what may change between sessions: its digest tells drift."""
        kept: ConfigTree = json.loads(json.dumps(self.config))
        for key in VOLATILE:
            *parents, last = key.split(".")
            node = kept
            for part in parents:
                node = node.get(part) or {}
            node.pop(last, None)
        for part in ("sampler", "pruner", "space"):
            kept.pop(part, None)
        if kept["study"].get("compare") is None:
            # Nothing is compared: as in studies that knew of no such thing.
            kept["study"].pop("compare", None)
        if not kept.get("transfer", {}).get("sha256"):
            # Nothing is transferred: as in studies that knew of no such thing.
            kept.pop("transfer", None)
        return kept


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
    space = _read_space(base, overrides, params=params, groups=groups)
    reader = OptionReader(
        compose=lambda words: _compose(compose, words),
        given=given,
        to_plain=_container,
        to_space=lambda cfg: _read_space(cfg, overrides, params=params, groups=groups),
    )
    found = reader.read(base, space)
    config = found.config
    masking.learn(config)
    check_project(config["tracking"]["project"])
    dimensions = []
    notices = []
    for dim in found.space.dimensions:
        known = _condition(dim, config, found.options)
        adapted, notice = adapt_dimension(known, _default_of(known, config, found.options))
        dimensions.append(adapted)
        if notice is not None:
            notices.append(notice)
    choices = base.hydra.runtime.choices
    draft = Draft(
        name=_name(base, config),
        config=config,
        options=found.options,
        space=found.space.replace_dimensions(dimensions),
        objectives=[],
        directions=[],
        enqueue=[],
        default=None,
        choices={str(group): choice for group, choice in choices.items()},
        overrides=list(overrides),
        chosen=found.chosen,
        notices=notices,
    )
    draft.objectives, draft.directions = _goals(draft)
    draft.arms = Arms.of_study(draft.space, draft.study)
    _check_values(draft)
    draft.enqueue = _enqueue(draft)
    _set_default(draft)
    _note_size(draft)
    _note_steps(draft)
    return draft


def _read_space(
    base: DictConfig,
    overrides: Sequence[str],
    *,
    params: Mapping[str, Any] | None,
    groups: set[str],
) -> Space:
    """What is searched, by the composed config, ``hydra.sweeper.params`` and the overrides."""

    def look_up(key: str) -> Any:
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
        lookup=look_up,
    )
    return space


def _note_size(draft: Draft) -> None:
    """Say so where the space has fewer points than the study has trials."""
    size = _smallest_size(draft)
    n_trials = draft.study["n_trials"]
    if size < n_trials:
        draft.notices.append(
            f"the space has {size:.0f} points: "
            f"of {n_trials} trials the rest takes over their results"
        )


def _smallest_size(draft: Draft) -> float:
    """How many points a search has to try; of a comparison, that of the arm with the fewest."""
    arms = draft.arms
    if arms is None:
        return draft.space.size()
    return min(arms.space_of(draft.space, place).size() for place in range(len(arms)))


def _note_steps(draft: Draft) -> None:
    """Say so where a pruner would compare trials that report at different steps."""
    trainer = draft.config["trainer"]
    names = [dim.name for dim in draft.space.dimensions if dim.name.endswith("batch_size")]
    prunes = not str(draft.config["pruner"].get("_target_")).endswith(".NopPruner")
    is_in_steps = training_length(trainer).unit is ProgressUnit.STEP
    if is_in_steps and names and prunes and trainer.get("check_val_every_n_epoch") is not None:
        draft.notices.append(
            f"trials report at the ends of their epochs, which {names[0]} puts at different steps,"
            " and a pruner compares equal steps: trainer.val_check_interval=50"
            " trainer.check_val_every_n_epoch=null has all of them report at the same ones"
        )


def _compose(
    compose: Compose,
    overrides: Sequence[str],
) -> DictConfig:
    try:
        return compose(list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error) from error


def _plain(node: Any) -> Any:
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node, resolve=True)
    return node


def _container(cfg: DictConfig) -> ConfigTree:
    """A composed config as plain data; what decides a study's course is resolved in it."""
    copy = cfg.copy()
    with open_dict(copy):
        copy.pop("hydra", None)
    try:
        plain = OmegaConf.to_container(copy, resolve=False, enum_to_str=True)
        assert isinstance(plain, dict)
        _count_resources_in_steps(copy)
        for part in ("paths", "study", "sampler", "pruner", "allow_targets", "tracking"):
            plain[part] = resolve(copy, part)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    settle_confirmation(plain["study"])
    return {str(key): value for key, value in plain.items()}


def _count_resources_in_steps(cfg: DictConfig) -> None:
    """Where a training has a length in steps, a pruner's resource is that, and not its epochs."""
    trainer: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    if trainer.get("max_steps") is None:
        return
    if training_length(trainer).unit is not ProgressUnit.STEP:
        return
    node = cfg.pruner
    while OmegaConf.is_dict(node):
        raw = OmegaConf.to_container(node, resolve=False)
        assert isinstance(raw, dict)
        if raw.get("max_resource") == "${trainer.max_epochs}":
            node.max_resource = "${trainer.max_steps}"
        node = node.get("wrapped_pruner")


def _condition(
    dim: Dimension,
    config: Mapping[str, Any],
    options: Options,
) -> Dimension:
    """Check that the dimension's key exists.

    A key that only some options of a group have makes the dimension conditional on them.
    """
    if dim.is_group or dim.added:
        return dim
    for group, nodes in options.items():
        having = [option for option, node in nodes.items() if _option_has(group, node, dim.name)]
        if having:
            is_conditional = len(having) < len(nodes) and not dim.when
            return dataclasses.replace(dim, when={group: having}) if is_conditional else dim
    if not _has(config, dim.name):
        near = did_you_mean(dim.name, key_paths(config))
        hint = " ".join(filter(None, (near, _hint_to_add(dim, config)))) or "--cfg job"
        raise ConfigError(dim.name, "is searched, but there is no such key in the config", hint)
    return dim


def _hint_to_add(dim: Dimension, config: Mapping[str, Any]) -> str:
    """How to search a key that a class takes and its YAML leaves out."""
    section = config.get(dim.name.partition(".")[0])
    if not isinstance(section, Mapping) or "_target_" not in section:
        return ""
    return f"where its class takes it: +{dim.name}='{dim.text}'"


def _default_of(dim: Dimension, config: Mapping[str, Any], options: Options) -> Any:
    """The config's own value of a searched key, or that of an option that has it; else None."""
    if dim.is_group:
        return None
    found = []
    for group, nodes in options.items():
        for node in nodes.values():
            if not _option_has(group, node, dim.name):
                continue
            owner = owner_of(dim.name, [group])
            key = dim.name if owner is None else owner[1]
            found.append(lookup(node[GLOBAL] if is_global(node) else node, key))
    if not found:
        return lookup(config, dim.name) if _has(config, dim.name) else None
    # an int where all of them are: else what the first has that is none
    return next((value for value in found if not is_int(value)), found[0])


def _option_has(group: str, node: Any, key: str) -> bool:
    """Whether an option of a searched group sets a config key."""
    if is_global(node):
        return _has(node[GLOBAL], key)
    owner = owner_of(key, [group])
    return owner is not None and _has(node or {}, owner[1])


def _has(
    node: Mapping[str, Any],
    key: str,
) -> bool:
    try:
        lookup(node, key)
    except KeyError:
        return False
    return True


def _name(cfg: DictConfig, config: Mapping[str, Any]) -> str:
    """The study's name, or one made of the experiment, or of net and data."""
    name = config["study"]["name"]
    if name is not None:
        return check_name(str(name or _chosen_name(cfg)))
    return check_name(_chosen_name(cfg).replace("/", "_"))


def _chosen_name(cfg: DictConfig) -> str:
    choices = cfg.hydra.runtime.choices
    experiment = choices.get("experiment")
    if experiment:
        return str(experiment)
    model = choices.get("model")
    data = choices.get("data")
    return f"{model}_{data}"


def _goals(draft: Draft) -> tuple[list[str], list[str]]:
    """The metrics of the study, and the direction of each, which the config names from now on."""
    objective = draft.study["objective"]
    given = draft.study["direction"]
    objectives = [objective]
    if isinstance(objective, (list, tuple)):
        objectives = list(objective)
    _check_objectives(objective, objectives)
    directions = settle_directions(given, objectives)
    if given is None:
        is_one = len(set(directions)) == 1
        draft.config["study"]["direction"] = directions[0] if is_one else list(directions)
    draft.has_typed_direction = given is not None
    draft.notices += list_contradictions(directions, objectives)
    return objectives, directions


def keep_goals_of_study(draft: Draft, document: Mapping[str, Any]) -> None:
    """Keep what a study that exists has settled, where the command says nothing else.

    That is the names under which its objectives are logged, and the direction of each.

    Args:
        draft: The search; its goals are changed.
        document: Of the study.
    """
    recorded = document["config"]["study"]
    if recorded["objective"] != draft.study["objective"]:
        return
    draft.objectives = list(document["objectives"])
    if not draft.has_typed_direction:
        draft.directions = list(document["directions"])
        draft.config["study"]["direction"] = recorded["direction"]


def _check_objectives(
    typed: Any,
    objectives: list[Any],
) -> None:
    are_names = all(isinstance(name, str) and name for name in objectives)
    if not objectives or not are_names:
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
    check_comparison(draft)
    plan_arms(draft)
    transfer_sources.check_section(draft)
    _check_machine(draft.config)
    validate_combination(
        draft.config["sampler"],
        draft.config["pruner"],
        draft.directions,
        draft.space,
    )


def _check_has_target(
    config: Mapping[str, Any],
    group: str,
) -> None:
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
                "study.confirm=false leaves the confirmation out",
            )
    options = draft.options.get("scheduler", {})
    schedulers = [draft.config.get("scheduler"), *options.values()]
    watches_score = any("monitor" in (node or {}) for node in schedulers)
    if confirm["refit"] and watches_score:
        raise ConfigError(
            "study.confirm.refit",
            "on train + validation there is no validation score for the scheduler to watch",
            "another scheduler, or study.confirm.refit=false",
        )


#: What holds the seal on the test set: see docs/reproducibility.md.
SEALS = ("kernel", "audit")
#: The least that these keys of ``study`` may be.
_LEAST = {"n_trials": 1, "max_attempts": 1, "max_halvings": 0, "max_identical_failures": 0}


def _check_budgets(draft: Draft) -> None:
    study = draft.study
    for key, least in _LEAST.items():
        if study[key] < least:
            raise ConfigError(
                f"study.{key}",
                f"expected at least {least}, got {study[key]}",
                f"study.{key}=20",
            )
    for key, value in study["keep"].items():
        least = 1 if key == "top_k" else 0
        if value is not None and not value >= least:
            raise ConfigError(
                f"study.keep.{key}",
                f"expected a positive number or null, got {value}",
                "null keeps all",
            )
    if study["seal"] not in SEALS:
        expected = f"expected one of {', '.join(SEALS)}, got {study['seal']!r}"
        raise ConfigError("study.seal", expected, "study.seal=kernel")
    target = study["target"]
    if target is not None and not math.isfinite(target):
        raise ConfigError("study.target", f"expected a finite number, got {target}")
    _ = draft.timeout  # raises where it is no time
    _ = draft.trial_timeout
    _ = draft.rehearsal_timeout


def _check_machine(config: Mapping[str, Any]) -> None:
    check_trainer(config["trainer"])
    training_length(config["trainer"])  # raises where it is below 1
    lease_s = config["worker"]["lease_s"]
    if lease_s < 2:
        raise ConfigError("worker.lease_s", f"expected at least 2 seconds, got {lease_s}")


def _enqueue(draft: Draft) -> list[Params]:
    """The parameter sets that are run first, checked against the space."""
    given = draft.study["enqueue"]
    if given is None:
        return []
    if isinstance(given, str):
        given = _read_enqueued(given)
    is_list = isinstance(given, list)
    if not is_list or not all(isinstance(entry, dict) for entry in given):
        raise ConfigError(
            "study.enqueue",
            "expected a list of parameter sets",
            "[{optimizer.lr: 0.01}]",
        )
    defaults = {dim.name: dim.low for dim in draft.space.dimensions}
    given = [
        {name: adapt_value(name, value, defaults.get(name)) for name, value in entry.items()}
        for entry in given
    ]
    for index, entry in enumerate(given):
        draft.space.validate(entry, f"study.enqueue[{index}]")
        check_enqueued(draft, entry, f"study.enqueue[{index}]")
    n_trials = draft.study["n_trials"]
    n_first = len(given) + bool(draft.study["default_first"])
    if n_first > n_trials:
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


def _set_default(draft: Draft) -> None:
    """Note the default configuration as a parameter set, where it is wanted and in the space."""
    cfg = OmegaConf.create(draft.config)

    def value_of(key: str) -> Any:
        if key not in draft.options:
            return resolve(cfg, key)
        return draft.chosen[key]

    values, outside = draft.space.default_params(value_of)
    draft.defaults = values
    if not draft.study["default_first"] or draft.space.function is not None:
        return
    if draft.arms is not None:
        set_arm_defaults(draft)
        return
    if outside:
        shown = ", ".join(f"{name}={value_of(name)}" for name in outside)
        draft.notices.append(
            f"the default configuration is not run as trial 0: "
            f"{shown} lies outside the search space"
        )
        return
    draft.default = values
