"""``plan``: what a search would run. Nothing is written, nothing heavy is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import (
    add_config_dirs,
    parser,
    print_json,
    print_lines,
    split,
    values_given,
)
from dlsearch.config.compose import compose_config
from dlsearch.config.progress import TrainingLength, training_length
from dlsearch.core.errors import ConfigError
from dlsearch.core.json_model import MERGED, JsonModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from omegaconf import DictConfig

    from dlsearch.core.types import ConfigTree, JsonObject, Params
    from dlsearch.planning.draft import Draft

_LAUNCHER = "hydra/launcher="
_SLOTS = "hydra.launcher.workers="


@dataclass(frozen=True)
class SlotPlan(JsonModel):
    """Where a trial may run.

    Args:
        device: The core or the GPU.
        threads: CPU threads of a trial there.
    """

    device: str
    threads: int


@dataclass(frozen=True)
class LengthPlan(JsonModel):
    """How long the trainings last; the keys of its JSON name the unit.

    Args:
        longest: A training at most.
        trainings: How many there are at most, those that confirm the best included.
    """

    longest: TrainingLength
    trainings: int

    @property
    def total(self) -> int:
        """All trainings together at most."""
        return self.trainings * self.longest.amount

    @property
    def units(self) -> str:
        """The unit of progress: ``epochs`` or ``steps``."""
        return f"{self.longest.unit}s"

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        return {
            f"max_{self.units}": self.longest.amount,
            f"{self.units}_at_most": self.total,
        }


@dataclass(frozen=True)
class SearchPlan(JsonModel):
    """What a search would run: the document of ``plan --json``.

    Args:
        name: The study.
        objective: The metric that decides; all of them where there are several.
        direction: ``maximize`` or ``minimize``, likewise.
        n_trials: The budget of trials.
        timeout_s: The budget of time.
        trial_timeout_s: How long a trial may take.
        lengths: How long the trainings last.
        confirmations_at_most: How many trainings confirm the best.
        sampler: The sampler's config.
        pruner: The pruner's config.
        launcher: What starts the workers.
        slots: Where trials would run on this machine.
        choices: The option that is chosen in each config group.
        space: A row for each dimension.
        space_size: How many points it has; None where that is no number.
        default: The default configuration, where it is run first.
        enqueued: Sets of parameters that are run first.
        notices: What the user should know.
        store: Where it would be written.
    """

    name: str
    objective: str | list[str]
    direction: str | list[str]
    n_trials: int
    timeout_s: float | None
    trial_timeout_s: float | None
    lengths: LengthPlan = field(metadata=MERGED)
    confirmations_at_most: int
    sampler: ConfigTree
    pruner: ConfigTree | None
    launcher: str
    slots: list[SlotPlan]
    choices: Mapping[str, str]
    space: list[JsonObject]
    space_size: int | None
    default: Params | None
    enqueued: list[Params]
    notices: list[str]
    store: str


def plan(words: list[str]) -> int:
    """Resolve a search and show it."""
    overrides, rest = split(words)
    arguments = parser(
        "plan", "What `dlsearch -m …` would run: resolved space, sizes, cost. Writes nothing."
    )
    arguments.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="as typed; a plan is always of a search",
    )
    add_config_dirs(arguments)
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    found = describe(overrides, options.config_dir)
    if options.json:
        print_json(found.to_json())
        return 0
    print_lines(*_plan_lines(found))
    return 0


def describe(overrides: list[str], config_dirs: list[str]) -> SearchPlan:
    """What a search of these overrides would run."""
    from dlsearch.execution.resources.slots import slots_and_reason

    draft = _draft_of(overrides, config_dirs)
    config = draft.config
    worker = config["worker"]
    slots, reason = slots_and_reason(
        _typed_slots(overrides),
        threads=worker["threads"],
        accelerator=config["trainer"]["accelerator"],
        per_gpu=worker["slots_per_gpu"],
        key="hydra.launcher.workers",
    )
    if not draft.directions:
        raise ConfigError("study.direction", "expected maximize or minimize")
    confirmations = _count_confirmations(draft)
    n_trials = draft.total_trials
    size = draft.space.size()
    notices = list(draft.notices)
    if reason:
        notices.append(reason)
    return SearchPlan(
        name=draft.name,
        objective=_one_or_all(draft.objectives),
        direction=_one_or_all(draft.directions),
        n_trials=n_trials,
        timeout_s=draft.timeout,
        trial_timeout_s=draft.trial_timeout,
        lengths=LengthPlan(training_length(config["trainer"]), n_trials + confirmations),
        confirmations_at_most=confirmations,
        sampler=config["sampler"],
        pruner=config["pruner"],
        launcher=_last_given(overrides, _LAUNCHER, "local"),
        slots=[SlotPlan(slot.device, slot.threads) for slot in slots],
        choices=_choices_of(draft),
        space=draft.space.to_json(),
        space_size=None if math.isinf(size) else int(size),
        default=draft.default,
        enqueued=draft.enqueue,
        notices=notices,
        store=config["paths"]["store"],
    )


def _choices_of(draft: Draft) -> dict[str, str]:
    """The option that is chosen in each config group of ours."""
    return {
        group: choice
        for group, choice in draft.choices.items()
        if choice is not None and not group.startswith("hydra/")
    }


def _draft_of(overrides: list[str], config_dirs: list[str]) -> Draft:
    """The draft of the search, whatever its launcher."""
    from omegaconf import OmegaConf

    from dlsearch.config.compose import hydra_groups
    from dlsearch.planning.draft import make_draft
    from dlsearch.space.space import Space

    launching = ("hydra.launcher", "hydra/launcher")
    mine = [word for word in overrides if not word.lstrip("+~").startswith(launching)]
    groups = hydra_groups(config_dirs)

    def compose(given: Iterable[str]) -> DictConfig:
        return compose_config(list(given), config_dirs=config_dirs, with_hydra=True)

    _, given = Space.from_sources(None, None, overrides, groups=groups)
    sweeper = compose(given).hydra.sweeper
    params: Any = {}
    if "params" in sweeper and sweeper.params:
        params = OmegaConf.to_container(sweeper.params)
    return make_draft(compose, mine, params=params, groups=groups)


def _last_given(overrides: list[str], beginning: str, otherwise: str) -> str:
    """The value of the last override that begins so."""
    given = values_given(overrides, beginning)
    return given[-1] if given else otherwise


def _typed_slots(overrides: list[str]) -> Any:
    slots = _last_given(overrides, _SLOTS, "auto")
    return int(slots) if slots.lstrip("-").isdigit() else slots


def _count_confirmations(draft: Draft) -> int:
    """How many trainings confirm the best, at most."""
    if not draft.study["finalize"] or len(draft.directions) != 1:
        return 0
    from dlsearch.confirmation.round_document import ConfirmSettings

    settings = ConfirmSettings.from_study(draft.study)
    return settings.count_most_trainings(None if draft.arms is None else len(draft.arms))


def _one_or_all(names: list[str]) -> str | list[str]:
    return names if len(names) > 1 else names[0]


def _plan_lines(found: SearchPlan) -> list[str]:
    chosen = "  ".join(f"{group}={option}" for group, option in found.choices.items())
    lengths = found.lengths
    slots = [f"{slot.device} ({slot.threads} threads)" for slot in found.slots]
    points = f" ({found.space_size} points)" if found.space_size else ""
    lines = [
        f"study {found.name}: {found.direction} {found.objective}",
        f"  {chosen}",
        f"  {_count_trainings(found)} of {lengths.longest.amount} {lengths.units}: "
        f"{lengths.total} {lengths.units} at most",
        f"  {len(slots)} slots: {', '.join(slots)}",
        f"  store {found.store}",
        f"space{points}",
        *_space_lines(found.space, found.default or {}),
    ]
    if found.enqueued:
        lines.append(f"first: {len(found.enqueued)} given sets")
    lines += [f"note: {notice}" for notice in found.notices]
    return [*lines, "nothing was written"]


def _count_trainings(found: SearchPlan) -> str:
    """``6 trials + up to 20 confirmation runs``."""
    from dlsearch.app.phrases import format_count, format_trainings

    trials = format_count(found.n_trials, "trial")
    return format_trainings(trials, found.confirmations_at_most)


def _space_lines(space: Sequence[JsonObject], defaults: Params) -> list[str]:
    """A line for each dimension."""
    width = max((len(dimension["name"]) for dimension in space), default=0)
    lines = []
    for dimension in space:
        name = dimension["name"]
        line = f"  {name:<{width}}  {dimension['text']}"
        if dimension["when"]:
            conditions = [f"{key} in {values}" for key, values in dimension["when"].items()]
            line += f"  when {', '.join(conditions)}"
        if defaults.get(name) is not None:
            line += f"  default {defaults[name]}"
        lines.append(line)
    return lines
