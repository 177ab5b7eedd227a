"""``plan``: what a search would run. Nothing is written, nothing heavy is imported."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import parser, print_json, print_lines, split
from dlsearch.config.compose import compose_config
from dlsearch.config.progress import training_length
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.planning.draft import Draft

_LAUNCHER = "hydra/launcher="
_SLOTS = "hydra.launcher.workers="


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
    arguments.add_argument(
        "--config-dir",
        "-cd",
        action="append",
        default=[],
        help="a folder of your own YAMLs",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    found = describe(overrides, options.config_dir)
    if options.json:
        print_json(found)
        return 0
    print_lines(*_plan_lines(found))
    return 0


def describe(overrides: list[str], config_dirs: list[str]) -> dict[str, Any]:
    """The plan as a JSON document."""
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
    length = training_length(config["trainer"])
    n_trials = draft.study["n_trials"]
    confirmations = _count_confirmations(draft)
    size = draft.space.size()
    choices = {
        group: choice
        for group, choice in draft.choices.items()
        if not group.startswith("hydra/") and choice is not None
    }
    return {
        "name": draft.name,
        "objective": _one_or_all(draft.objectives),
        "direction": _one_or_all(draft.directions),
        "n_trials": n_trials,
        "timeout_s": draft.timeout,
        "trial_timeout_s": draft.trial_timeout,
        f"max_{length.unit}s": length.amount,
        f"{length.unit}s_at_most": (n_trials + confirmations) * length.amount,
        "confirmations_at_most": confirmations,
        "sampler": config["sampler"],
        "pruner": config["pruner"],
        "launcher": _last_given(overrides, _LAUNCHER, "local"),
        "slots": [{"device": slot.device, "threads": slot.threads} for slot in slots],
        "choices": choices,
        "space": draft.space.to_json(),
        "space_size": None if math.isinf(size) else int(size),
        "default": draft.default,
        "enqueued": draft.enqueue,
        "notices": [*draft.notices, *([reason] if reason else [])],
        "store": config["paths"]["store"],
    }


def _draft_of(overrides: list[str], config_dirs: list[str]) -> Draft:
    """The draft of the search, whatever its launcher."""
    from dlsearch.config.compose import hydra_groups
    from dlsearch.planning.draft import make_draft
    from dlsearch.space.space import Space

    launching = ("hydra.launcher", "hydra/launcher")
    mine = [word for word in overrides if not word.lstrip("+~").startswith(launching)]
    groups = hydra_groups(config_dirs)

    def compose(given: Any) -> Any:
        return compose_config(list(given), config_dirs=config_dirs, with_hydra=True)

    _, given = Space.from_sources(None, None, mine, groups=groups)
    sweeper = compose(given).hydra.sweeper
    params = dict(sweeper.params) if "params" in sweeper and sweeper.params else {}
    return make_draft(compose, mine, params=params, groups=groups)


def _last_given(overrides: list[str], beginning: str, otherwise: str) -> str:
    """The value of the last override that begins so."""
    given = [word.split("=", 1)[1] for word in overrides if word.startswith(beginning)]
    return given[-1] if given else otherwise


def _typed_slots(overrides: list[str]) -> Any:
    slots = _last_given(overrides, _SLOTS, "auto")
    return int(slots) if slots.lstrip("-").isdigit() else slots


def _count_confirmations(draft: Draft) -> int:
    """How many trainings confirm the best, at most."""
    if not draft.study["finalize"] or len(draft.directions) != 1:
        return 0
    confirm = draft.study["confirm"]
    return int((confirm["top"] + 1) * confirm["seeds"] + confirm["refit"])


def _one_or_all(names: list[str]) -> str | list[str]:
    return names if len(names) > 1 else names[0]


def _plan_lines(found: dict[str, Any]) -> list[str]:
    chosen = "  ".join(f"{group}={option}" for group, option in found["choices"].items())
    units = "epochs" if "max_epochs" in found else "steps"
    longest = found[f"max_{units}"]
    in_all = found[f"{units}_at_most"]
    slots = ", ".join(f"{slot['device']} ({slot['threads']} threads)" for slot in found["slots"])
    lines = [
        f"study {found['name']}: {found['direction']} {found['objective']}",
        f"  {chosen}",
        f"  {found['n_trials']} trials of {longest} {units}, "
        f"then {found['confirmations_at_most']} trainings to confirm the best: "
        f"{in_all} {units} at most",
        f"  {len(found['slots'])} slots: {slots}",
        f"  store {found['store']}",
        "space" + (f" ({found['space_size']} points)" if found["space_size"] else ""),
        *_space_lines(found),
    ]
    if found["enqueued"]:
        lines.append(f"first: {len(found['enqueued'])} given sets")
    lines += [f"note: {notice}" for notice in found["notices"]]
    return [*lines, "nothing was written"]


def _space_lines(found: dict[str, Any]) -> list[str]:
    """A line for each dimension."""
    defaults = found["default"] or {}
    width = max((len(dim["name"]) for dim in found["space"]), default=0)
    lines = []
    for dim in found["space"]:
        line = f"  {dim['name']:<{width}}  {dim['text']}"
        if dim["when"]:
            line += "  when " + ", ".join(
                f"{key} in {values}" for key, values in dim["when"].items()
            )
        default = defaults.get(dim["name"])
        if default is not None:
            line += f"  default {default}"
        lines.append(line)
    return lines
