"""``look``: figures of what is inside a net."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import add_config_dirs, parser, place, print_json, print_lines
from dlsearch.cli.kept_models import find_kept_model, split_files
from dlsearch.cli.pages import attach_page, page_folder
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside, plain

if TYPE_CHECKING:
    from argparse import Namespace

    from dlsearch.inspection.findings import GradientNorms, InsideFindings
    from dlsearch.study.kept_model import Kept


@dataclass(frozen=True)
class _View:
    """What was seen of a net, and where it belongs.

    Args:
        found: The findings.
        title: Of the page.
        out: The page's folder.
        journal: Of the run that trained the net; None of one that is as initialised.
    """

    found: InsideFindings
    title: str
    out: Path
    journal: Path | None


def look(words: list[str]) -> int:
    """Draw what is inside a trained net, or inside one as it is initialised."""
    overrides, rest = split_files(words)
    arguments = parser(
        "look",
        "First-layer weights, feature maps, what features look for, gradients by depth, losses.",
    )
    arguments.add_argument(
        "name",
        nargs="?",
        help="a study, STUDY/NUMBER, or a run's folder; without it model=… as it is initialised",
    )
    arguments.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="pictures to look at instead of validation data",
    )
    add_config_dirs(arguments)
    arguments.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the page (default: beside the model)",
    )
    arguments.add_argument(
        "--json", action="store_true", help="one JSON document: the findings, with where they are"
    )
    options = arguments.parse_args(rest)
    for word in options.files:  # before torch is waited for
        if not Path(word).expanduser().exists():
            raise ConfigError(word, "there is no such file")
    if options.name is None:
        view = _look_at_untrained(overrides, options)
    else:
        view = _look_at_trained(overrides, options)
    from dlsearch.report.look_page import write_look

    page = write_look(view.found, view.title, view.out)
    if view.journal is not None:
        attach_page(overrides, view.journal, view.out)
    if options.json:
        print_json({"title": view.title, "page": str(page), **view.found})
        return 0
    print_lines(*_describe_findings(view.found), f"page: {os.path.relpath(page)}")
    return 0


def _look_at_untrained(overrides: list[str], options: Namespace) -> _View:
    from dlsearch.config.compose import compose_config
    from dlsearch.report.look_page import LOOK, check_out

    cfg = compose_config(overrides, config_dirs=options.config_dir)
    classes = []
    for group in ("model", "data"):
        target = str(cfg[group].get("_target_", group))
        classes.append(target.rpartition(".")[2].lower())
    store = place(overrides, options.config_dir).store
    out = page_folder(options.out, store / "look" / "_".join(classes))
    check_out(out, LOOK)
    from dlsearch.inspection.inside import see
    from dlsearch.training.building import build_data, build_task, seed_everything

    seed_everything(cfg.seed)
    build_data(cfg)
    found = _require_findings(see(cfg, build_task(cfg)))
    if found["gradients"]:
        found["gradients"]["kept"] = None  # the same net twice
    title = "_".join(classes).replace("_", " on ")
    return _View(found, f"{title}, as initialised", out, None)


def _look_at_trained(overrides: list[str], options: Namespace) -> _View:
    kept, folder = _find_model(overrides, options.name)
    from omegaconf import OmegaConf

    from dlsearch.core.bounded import load_yaml
    from dlsearch.report.look_page import LOOK, check_out

    out = page_folder(options.out, inside(folder, "look"))
    check_out(out, LOOK)
    cfg: Any = load_yaml(kept.config)
    for word in overrides:  # the data may lie elsewhere now
        if word.startswith("paths."):
            OmegaConf.update(cfg, *word.split("=", 1), force_add=False)
    from dlsearch.inspection.curves import curves, journals
    from dlsearch.inspection.inside import see
    from dlsearch.training.building import build_task
    from dlsearch.training.state import checkpoints
    from dlsearch.training.state.loading import WeightsMismatchError, load_made

    task = build_task(cfg)
    given = _read_files(kept, options.files) if options.files else None
    try:
        load_made(task, checkpoints.weights(kept.checkpoint))
    except WeightsMismatchError as error:
        hint = "the code has changed since; use the commit that trained it"
        raise ConfigError(
            "model", f"the checkpoint does not fit the network: {error}", hint
        ) from error
    found = _require_findings(see(cfg, task, given))
    found["curves"] = curves(folder)
    _take_logged_gradients(found, folder)
    journal = next(reversed(journals(folder)), None)
    return _View(found, kept.title, out, journal)


def _find_model(overrides: list[str], word: str) -> tuple[Kept, Path]:
    """The model that `word` names, and the folder of its training."""
    from dlsearch.study.kept_model import Kept
    from dlsearch.tracking import layout

    folder = Path(word).expanduser()
    if not (folder / "config.yaml").is_file():
        kept = find_kept_model(overrides, word)
        return kept, kept.checkpoint.parent.parent
    plain(folder, "ckpt")
    config = inside(folder, "config.yaml")
    checkpoint = inside(folder, f"ckpt/{layout.CHECKPOINT}")
    checkpoint = inside(folder, layout.weights_beside(checkpoint))
    if not checkpoint.is_file():
        raise ConfigError(
            word, f"expected a run's folder with a model: {checkpoint} does not exist"
        )
    return Kept(folder.resolve().name, "train", None, config, checkpoint, {}), folder


def _read_files(kept: Kept, words: list[str]) -> tuple[Any, dict[str, Any]]:
    """Inputs from files, read as ``predict`` reads them."""
    import numpy as np
    import torch

    from dlsearch.inference.files import Reader, find
    from dlsearch.inference.model import load
    from dlsearch.inference.reading import NotReadable

    spec = load(kept).input
    files, _ = find(words, spec["kind"])
    reader = Reader(spec)
    try:
        inputs = [array for path in files for _, array in reader.read(path)]
    except NotReadable as error:
        raise ConfigError("FILE", str(error)) from error
    return torch.from_numpy(np.stack(inputs)), dict(spec)


def _require_findings(found: InsideFindings) -> InsideFindings:
    if not found:
        raise ConfigError(
            "data",
            "expected a task with a net and validation batches (x, y)",
            "docs/looking-inside.md says what is needed",
        )
    return found


def _take_logged_gradients(found: InsideFindings, folder: Path) -> None:
    """Gradients that the training logged itself take the place of those that were measured now."""
    from dlsearch.inspection.curves import logged
    from dlsearch.inspection.gradients import PREFIX

    norms = {name: dict(points) for name, points in logged(folder, PREFIX).items()}
    if not norms:
        return
    steps = sorted(set.union(*(set(points) for points in norms.values())))
    found["gradients"] = {
        "layers": list(norms),
        "initial": [points.get(steps[0]) for points in norms.values()],
        "kept": [points.get(steps[-1]) for points in norms.values()] if len(steps) > 1 else None,
        "names": [f"at step {steps[0]:,}", f"at step {steps[-1]:,}"],
        "steps": steps,
        "norms": {name: [points.get(step) for step in steps] for name, points in norms.items()},
    }


def _describe_findings(found: InsideFindings) -> list[str]:
    lines = []
    if found.get("n"):
        lines.append(f"looked at {found['n']} examples of {found['source']}")
    gradients = found.get("gradients")
    if gradients:
        lines += _describe_gradients(gradients)
    return lines


def _describe_gradients(gradients: GradientNorms) -> list[str]:
    """A row for each layer, a column for each moment whose norms are known."""
    first, last = gradients.get("names") or ["as initialised", "as kept"]
    columns = {}
    if gradients["initial"]:
        columns[first] = gradients["initial"]
    if gradients["kept"]:
        columns[last] = gradients["kept"]
    width = max(map(len, gradients["layers"]))
    headings = "  ".join(f"{name:>14}" for name in columns)
    lines = [f"{'gradient norm':<{width}}  {headings}"]
    for index, layer in enumerate(gradients["layers"]):
        cells = [_format_norm(norms[index]) for norms in columns.values()]
        numbers = "  ".join(f"{cell:>14}" for cell in cells)
        lines.append(f"{layer:<{width}}  {numbers}")
    return lines


def _format_norm(norm: float | None) -> str:
    return "–" if norm is None else f"{norm:.3g}"
