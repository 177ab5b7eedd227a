"""``lr-range``: which learning rates a net can be trained with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import add_config_dirs, parser, print_json, print_lines, split
from dlsearch.cli.pages import attach_page, page_folder
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlsearch.inspection.findings import RangeTestFindings


def lr_range(words: list[str]) -> int:
    """Train once with a growing learning rate, and say which rates the loss speaks for."""
    overrides, rest = split(words)
    arguments = parser(
        "lr-range",
        "Learning-rate range test (Smith, 2015): dlsearch lr-range experiment=lenet_mnist.",
    )
    add_config_dirs(arguments)
    arguments.add_argument(
        "--low",
        type=float,
        default=1e-6,
        help="first learning rate (default 1e-6)",
    )
    arguments.add_argument(
        "--high",
        type=float,
        default=1.0,
        help="last learning rate (default 1)",
    )
    arguments.add_argument(
        "--steps",
        type=int,
        default=200,
        help="training steps (default 200)",
    )
    arguments.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the page (default: the run's)",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    if not 0 < options.low < options.high:
        raise ConfigError(
            "--low", f"expected 0 < low < high, got {options.low:g} and {options.high:g}"
        )
    if options.steps < 20:
        raise ConfigError("--steps", f"expected 20 or more, got {options.steps}")
    from dlsearch.config.compose import compose_config
    from dlsearch.report.look_page import RATES, check_out, write_rates

    cfg = compose_config(overrides, config_dirs=options.config_dir)
    if options.out is not None:
        check_out(options.out.expanduser(), RATES)
    found, folder = _run_range_test(cfg, options)
    title = folder.name
    page = write_rates(found, title, page_folder(options.out, folder / "lr_range"))
    attach_page(overrides, folder / "journal.jsonl", page.parent)
    if options.json:
        print_json({"page": str(page), **found})
        return 0
    if found["suggestion"] is None:
        print_lines(
            "the loss never falls: nothing can be suggested (another range: --low, --high, --steps)"
        )
    else:
        low = found["begins"]
        high = found["least"]
        print_lines(
            f"the loss begins to fall at {low:g}, "
            f"falls most steeply at {found['suggestion']:g}, is least at {high:g}",
            f"use it:    optimizer.lr={found['suggestion']:g}",
            f"search it: optimizer.lr='tag(log, interval({low:g}, {high:g}))'",
        )
    print_lines(f"page: {os.path.relpath(page)}")
    return 0


def _run_range_test(cfg: DictConfig, options: Any) -> tuple[RangeTestFindings, Path]:
    from omegaconf import OmegaConf

    from dlsearch.app.prepare import check_store
    from dlsearch.app.single_run import new_folder
    from dlsearch.config.compose import resolve
    from dlsearch.core.masking import mask
    from dlsearch.execution.trial_main import check_built
    from dlsearch.inspection.lr_range import range_test
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import Journal

    data = check_built(cfg, ["train/loss"], ["minimize"])["data"]
    store = check_store(Path(resolve(cfg, "paths.store")))
    model = (
        str(cfg.model.get("_target_", "model")).rsplit(".", 1)[-1].lower() if cfg.model else "model"
    )
    folder = new_folder(store / "runs", f"{cfg.name or model}-lr-range")
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    OmegaConf.save(OmegaConf.create(mask(plain)), folder / "config.yaml")
    experiment = layout.experiment_name(cfg.tracking.project, str(data.get("name") or "data"))
    with Journal(folder / "journal.jsonl") as journal:
        journal.open("train", folder.name, experiment, None, {layout.KIND: "train"})
        journal.params(layout.flatten_params(plain, set()))
        journal.artifact(folder / "config.yaml", "")
        try:
            found = range_test(
                cfg,
                folder,
                journal,
                low=options.low,
                high=options.high,
                steps=options.steps,
            )
        except BaseException:
            journal.status(layout.FAILED)
            raise
        if found["suggestion"] is not None:
            keys = ("begins", "suggestion", "least")
            suggested: Any = {f"lr_range/{key}": dict(found)[key] for key in keys}
            journal.metrics(suggested, len(found["rates"]))
        journal.status(layout.FINISHED)
    return found, folder
