"""``look`` and ``lr-range``: figures of what is inside a net, and of the learning rates that it can be trained with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.verbs.use import _kept, _words
from dlsearch.verbs.words import parser, place, print_json, print_lines, split

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlsearch.search.kept import Kept


def look(words: list[str]) -> int:
    """Draw what is inside a trained net, or inside one as it is initialised."""
    overrides, rest = _words(words)
    arguments = parser("look", "First-layer weights, feature maps, what features look for, gradients by depth, losses.")
    arguments.add_argument(
        "name", nargs="?", help="a study, STUDY/NUMBER, or a run's folder; without it model=… as it is initialised"
    )
    arguments.add_argument("files", nargs="*", metavar="FILE", help="pictures to look at instead of validation data")
    arguments.add_argument("--config-dir", "-cd", action="append", default=[], help="a folder of your own YAMLs")
    arguments.add_argument("--out", type=Path, metavar="DIR", help="folder of the page (default: beside the model)")
    arguments.add_argument("--json", action="store_true", help="one JSON document: the findings, with where they are")
    options = arguments.parse_args(rest)
    for word in options.files:  # before torch is waited for
        if not Path(word).expanduser().exists():
            raise ConfigError(word, "there is no such file")
    found, title, out, journal = (
        _untrained(overrides, options) if options.name is None else _trained(overrides, options)
    )
    from dlsearch.report.look_page import write_look

    page = write_look(found, title, out)
    if journal is not None:
        _attach(overrides, journal, out)
    if options.json:
        print_json({"title": title, "page": str(page), **found})
        return 0
    print_lines(*_said(found), f"page: {os.path.relpath(page)}")
    return 0


def _untrained(overrides: list[str], options: Any) -> tuple[dict[str, Any], str, Path, Path | None]:
    from dlsearch.config.compose import compose_config
    from dlsearch.report.look_page import LOOK, check_out

    cfg = compose_config(overrides, config_dirs=[str(Path(d)) for d in options.config_dir])
    name = "_".join(str(cfg[group].get("_target_", group)).rsplit(".", 1)[-1].lower() for group in ("model", "data"))
    out = _out(options.out, place(overrides, options.config_dir).store / "look" / name)
    check_out(out, LOOK)
    from dlsearch.train.fit import build_data, build_task, seed_everything
    from dlsearch.train.inside import see

    seed_everything(cfg.seed)
    build_data(cfg)
    found = _seen(see(cfg, build_task(cfg)))
    if found["gradients"]:
        found["gradients"]["kept"] = None  # the same net twice
    return found, f"{name.replace('_', ' on ')}, as initialised", out, None


def _trained(overrides: list[str], options: Any) -> tuple[dict[str, Any], str, Path, Path | None]:
    kept, folder = _model(overrides, options.name)
    from omegaconf import OmegaConf

    from dlsearch.report.look_page import LOOK, check_out

    out = _out(options.out, folder / "look")
    check_out(out, LOOK)
    cfg: Any = OmegaConf.load(kept.config)
    for word in overrides:  # the data may lie elsewhere now
        if word.startswith("paths."):
            OmegaConf.update(cfg, *word.split("=", 1), force_add=False)
    import torch

    from dlsearch.train.curves import curves, journals
    from dlsearch.train.fit import build_task
    from dlsearch.train.inside import see

    task = build_task(cfg)
    given = _given(kept, options.files) if options.files else None
    saved = torch.load(kept.checkpoint, map_location="cpu", weights_only=True)
    task.load_state_dict(saved["state_dict"])
    found = _seen(see(cfg, task, given))
    found["curves"] = curves(folder)
    _logged(found, folder)
    return found, kept.title, out, next(reversed(journals(folder)), None)


def _model(overrides: list[str], word: str) -> tuple[Kept, Path]:
    """The model that `word` names, and the folder of its training."""
    from dlsearch.search.kept import Kept

    folder = Path(word).expanduser()
    if not (folder / "config.yaml").is_file():
        kept = _kept(overrides, word)
        return kept, kept.checkpoint.parent.parent
    checkpoint = folder / "ckpt" / "best.ckpt"
    if not checkpoint.is_file():
        raise ConfigError(word, f"expected a run's folder with a model: {checkpoint} does not exist")
    return Kept(folder.resolve().name, "train", None, folder / "config.yaml", checkpoint, {}), folder


def _given(kept: Kept, words: list[str]) -> tuple[Any, dict[str, Any]]:
    """Inputs from files, read as ``predict`` reads them."""
    import numpy as np
    import torch

    from dlsearch.use.files import NotReadable, Reader, find
    from dlsearch.use.model import load

    spec = load(kept).input
    files, _ = find(words, spec["kind"])
    reader = Reader(spec)
    try:
        inputs = [array for path in files for _, array in reader.read(path)]
    except NotReadable as error:
        raise ConfigError("FILE", str(error)) from error
    return torch.from_numpy(np.stack(inputs)), spec


def _seen(found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        raise ConfigError(
            "data",
            "expected a task with a net and validation batches (x, y)",
            "docs/looking-inside.md says what is needed",
        )
    return found


def _logged(found: dict[str, Any], folder: Path) -> None:
    """Gradients that the training logged itself take the place of those that were measured now."""
    from dlsearch.train.curves import logged
    from dlsearch.train.gradients import PREFIX

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


def _out(given: Path | None, default: Path) -> Path:
    return given.expanduser() if given is not None else default


def _attach(overrides: list[str], journal: Path, out: Path) -> None:
    """Put the page into the run that the model was trained in."""
    from dlsearch.search.run_journals import attach

    attach(journal, out)
    _ship(overrides)


def _ship(overrides: list[str]) -> None:
    from dlsearch.config.compose import compose_config

    if not compose_config(overrides).tracking.enabled:
        return
    from dlsearch.tracking import shipper

    where = place(overrides)
    if not shipper.start(where.store, where.tracking_uri).stop(60.0):
        print_lines("tracking: not everything has reached MLflow yet; dlsearch sync ships the rest")


def _said(found: dict[str, Any]) -> list[str]:
    lines = []
    if found.get("n"):
        lines.append(f"looked at {found['n']} examples of {found['source']}")
    rows = found.get("gradients")
    if rows:
        width = max(map(len, rows["layers"]))
        names = rows.get("names") or ["as initialised", "as kept"]
        columns = [(name, rows[key]) for key, name in zip(("initial", "kept"), names, strict=True) if rows[key]]
        lines.append(f"{'gradient norm':<{width}}  " + "  ".join(f"{name:>14}" for name, _ in columns))
        for i, layer in enumerate(rows["layers"]):
            numbers = "  ".join(f"{'–' if v[i] is None else format(v[i], '.3g'):>14}" for _, v in columns)
            lines.append(f"{layer:<{width}}  {numbers}")
    return lines


def lr_range(words: list[str]) -> int:
    """Train once with a growing learning rate, and say which rates the loss speaks for."""
    overrides, rest = split(words)
    arguments = parser("lr-range", "Learning-rate range test (Smith, 2015): dlsearch lr-range experiment=lenet_mnist.")
    arguments.add_argument("--config-dir", "-cd", action="append", default=[], help="a folder of your own YAMLs")
    arguments.add_argument("--low", type=float, default=1e-6, help="first learning rate (default 1e-6)")
    arguments.add_argument("--high", type=float, default=1.0, help="last learning rate (default 1)")
    arguments.add_argument("--steps", type=int, default=200, help="training steps (default 200)")
    arguments.add_argument("--out", type=Path, metavar="DIR", help="folder of the page (default: the run's)")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    if not 0 < options.low < options.high:
        raise ConfigError("--low", f"expected 0 < low < high, got {options.low:g} and {options.high:g}")
    if options.steps < 20:
        raise ConfigError("--steps", f"expected 20 or more, got {options.steps}")
    from dlsearch.config.compose import compose_config
    from dlsearch.report.look_page import RATES, check_out, write_rates

    cfg = compose_config(overrides, config_dirs=[str(Path(d)) for d in options.config_dir])
    if options.out is not None:
        check_out(options.out.expanduser(), RATES)
    found, folder = _ranged(cfg, options)
    title = folder.name
    page = write_rates(found, title, _out(options.out, folder / "lr_range"))
    from dlsearch.search.run_journals import attach

    attach(folder / "journal.jsonl", page.parent)
    _ship(overrides)
    if options.json:
        print_json({"page": str(page), **found})
        return 0
    if found["suggestion"] is None:
        print_lines("the loss never falls: nothing can be suggested (another range: --low, --high, --steps)")
    else:
        low, high = found["begins"], found["least"]
        print_lines(
            f"the loss begins to fall at {low:g}, falls most steeply at {found['suggestion']:g}, is least at {high:g}",
            f"use it:    optimizer.lr={found['suggestion']:g}",
            f"search it: optimizer.lr='tag(log, interval({low:g}, {high:g}))'",
        )
    print_lines(f"page: {os.path.relpath(page)}")
    return 0


def _ranged(cfg: DictConfig, options: Any) -> tuple[dict[str, Any], Path]:
    from omegaconf import OmegaConf

    from dlsearch.config.compose import resolve
    from dlsearch.search.driver import check_store
    from dlsearch.search.single import new_folder
    from dlsearch.search.trial_process import check_built
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import Journal
    from dlsearch.tracking.masking import mask
    from dlsearch.train.rates import range_test

    data = check_built(cfg, ["train/loss"], ["minimize"])["data"]
    store = check_store(Path(resolve(cfg, "paths.store")))
    model = str(cfg.model.get("_target_", "model")).rsplit(".", 1)[-1].lower() if cfg.model else "model"
    folder = new_folder(store / "runs", f"{cfg.name or model}-lr-range")
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    OmegaConf.save(OmegaConf.create(mask(plain)), folder / "config.yaml")
    experiment = layout.experiment_name(cfg.tracking.project, str(data.get("name") or "data"))
    with Journal(folder / "journal.jsonl") as journal:
        journal.open("train", folder.name, experiment, None, {layout.KIND: "train"})
        journal.params(layout.flatten_params(plain, set()))
        journal.artifact(folder / "config.yaml", "")
        try:
            found = range_test(cfg, folder, journal, low=options.low, high=options.high, steps=options.steps)
        except BaseException:
            journal.status(layout.FAILED)
            raise
        if found["suggestion"] is not None:
            keys = ("begins", "suggestion", "least")
            journal.metrics({f"lr_range/{key}": found[key] for key in keys}, len(found["rates"]))
        journal.status(layout.FINISHED)
    return found, folder
