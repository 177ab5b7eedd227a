"""``plan``: what a search would run. Nothing is written, nothing heavy is imported."""

from __future__ import annotations

import math
from typing import Any

from dlsearch.config.compose import compose_config
from dlsearch.config.errors import ConfigError
from dlsearch.verbs.words import parser, print_json, print_lines, split


def plan(words: list[str]) -> int:
    """Resolve a search and show it."""
    overrides, rest = split(words)
    arguments = parser("plan", "What `dlsearch -m …` would run: resolved space, sizes, cost. Writes nothing.")
    arguments.add_argument("-m", "--multirun", action="store_true", help="as typed; a plan is always of a search")
    arguments.add_argument("--config-dir", "-cd", action="append", default=[], help="a folder of your own YAMLs")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    found = describe(overrides, options.config_dir)
    if options.json:
        print_json(found)
        return 0
    print_lines(*_lines(found))
    return 0


def describe(overrides: list[str], config_dirs: list[str]) -> dict[str, Any]:
    """The plan as a JSON document."""
    from dlsearch.config.compose import hydra_groups
    from dlsearch.search.draft import make_draft
    from dlsearch.search.slots import slots_and_reason
    from dlsearch.search.space import Space

    mine = [o for o in overrides if not o.lstrip("+~").startswith(("hydra.launcher", "hydra/launcher"))]
    groups = hydra_groups(config_dirs)
    launcher = next((o.split("=", 1)[1] for o in reversed(overrides) if o.startswith("hydra/launcher=")), "local")
    wanted: Any = next(
        (o.split("=", 1)[1] for o in reversed(overrides) if o.startswith("hydra.launcher.workers=")), "auto"
    )
    if isinstance(wanted, str) and wanted.lstrip("-").isdigit():
        wanted = int(wanted)

    def compose(given: Any) -> Any:
        return compose_config(list(given), config_dirs=config_dirs, with_hydra=True)

    params = {}
    _, given = Space.from_sources(None, None, mine, groups=groups)
    base = compose(given)
    if "params" in base.hydra.sweeper and base.hydra.sweeper.params:
        params = dict(base.hydra.sweeper.params)
    draft = make_draft(compose, mine, params=params, groups=groups)
    worker = draft.config["worker"]
    places, reason = slots_and_reason(
        wanted,
        threads=worker["threads"],
        accelerator=draft.config["trainer"]["accelerator"],
        per_gpu=worker["slots_per_gpu"],
        key="hydra.launcher.workers",
    )
    config = draft.config
    epochs = config["trainer"]["max_epochs"]
    size = draft.space.size()
    confirm = draft.study["confirm"]
    wanted = draft.study["finalize"] and len(draft.directions) == 1
    confirmations = (confirm["top"] + 1) * confirm["seeds"] + confirm["refit"] if wanted else 0
    if not draft.directions:
        raise ConfigError("study.direction", "expected maximize or minimize")
    return {
        "name": draft.name,
        "objective": draft.objectives if len(draft.objectives) > 1 else draft.objectives[0],
        "direction": draft.directions if len(draft.directions) > 1 else draft.directions[0],
        "n_trials": draft.study["n_trials"],
        "timeout_s": draft.timeout,
        "trial_timeout_s": draft.trial_timeout,
        "max_epochs": epochs,
        "epochs_at_most": (draft.study["n_trials"] + confirmations) * epochs,
        "confirmations_at_most": confirmations,
        "sampler": config["sampler"],
        "pruner": config["pruner"],
        "launcher": launcher,
        "slots": [{"device": p.device, "threads": p.threads} for p in places],
        "choices": {k: v for k, v in draft.choices.items() if not k.startswith("hydra/") and v is not None},
        "space": draft.space.to_json(),
        "space_size": None if math.isinf(size) else int(size),
        "default": draft.default,
        "enqueued": draft.enqueue,
        "notices": [*draft.notices, *([reason] if reason else [])],
        "store": config["paths"]["store"],
    }


def _lines(found: dict[str, Any]) -> list[str]:
    chosen = "  ".join(f"{group}={option}" for group, option in found["choices"].items())
    lines = [
        f"study {found['name']}: {found['direction']} {found['objective']}",
        f"  {chosen}",
        f"  {found['n_trials']} trials of {found['max_epochs']} epochs, then {found['confirmations_at_most']} trainings"
        f" to confirm the best: {found['epochs_at_most']} epochs at most",
        f"  {len(found['slots'])} slots: "
        + ", ".join(f"{slot['device']} ({slot['threads']} threads)" for slot in found["slots"]),
        f"  store {found['store']}",
        "space" + (f" ({found['space_size']} points)" if found["space_size"] else ""),
    ]
    width = max((len(dim["name"]) for dim in found["space"]), default=0)
    for dim in found["space"]:
        default = (found["default"] or {}).get(dim["name"])
        when = "" if not dim["when"] else "  when " + ", ".join(f"{k} in {v}" for k, v in dim["when"].items())
        lines.append(
            f"  {dim['name']:<{width}}  {dim['text']}{when}" + ("" if default is None else f"  default {default}")
        )
    lines += [f"first: {len(found['enqueued'])} given sets"] if found["enqueued"] else []
    lines += [f"note: {notice}" for notice in found["notices"]]
    return [*lines, "nothing was written"]
