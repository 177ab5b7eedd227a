"""``predict``: predictions for files with the model that a study kept."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.cli.arguments import parser, print_json, print_lines
from dlsearch.cli.kept_models import find_kept_model, split_files
from dlsearch.console.terminal import warn
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from dlsearch.inference.files import Reader
    from dlsearch.inference.model import Model
    from dlsearch.inference.predict import Failures, Prediction

DONE = 0
FAILED = 1


def predict(words: list[str]) -> int:
    """Predict for files with the winner of a study."""
    overrides, rest = split_files(words)
    arguments = parser(
        "predict", "Predict for files with the model that a study kept; its data set is not needed."
    )
    arguments.add_argument(
        "name", help="a study, STUDY/NUMBER for one trial's model, or a folder of dlsearch export"
    )
    arguments.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="pictures, .npy arrays, .csv rows, or folders",
    )
    arguments.add_argument(
        "--top",
        type=_positive_integer,
        default=3,
        help="classes to name (default 3)",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    arguments.add_argument(
        "--batch-size",
        type=_positive_integer,
        default=64,
        help="inputs at once (default 64)",
    )
    arguments.add_argument("--invert", action="store_true", help="take light for dark")
    arguments.add_argument(
        "--crops",
        type=_positive_integer,
        help="average over 5 or 6 windows of each image (default: as trained)",
    )
    arguments.add_argument(
        "--flip", action=BooleanOptionalAction, help="and over their mirror images, or not"
    )
    arguments.add_argument(
        "--scale", type=float, help="enlarge the image by this before windows are cut"
    )
    options = arguments.parse_args(rest)
    for word in options.files:  # before torch is waited for
        if not Path(word).expanduser().exists():
            raise ConfigError(word, "there is no such file")
    folder = Path(options.name).expanduser()
    exported = (folder / "model.json").is_file()
    kept = None if exported else find_kept_model(overrides, options.name)
    from dlsearch.inference import model as models

    model = models.load_export(folder) if kept is None else models.load(kept)
    asked = {
        key: getattr(options, key)
        for key in ("crops", "flip", "scale")
        if getattr(options, key) is not None
    }
    if asked:
        views: Any = {**model.views, **asked}
        model = models.looking(model, views)
    return _predict_files(model, options)


def _positive_integer(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError
    return int(text)


_positive_integer.__name__ = "positive integer"  # argparse's word for what it is


def _predict_files(model: Model, options: Namespace) -> int:
    from dlsearch.inference.files import Reader, find
    from dlsearch.inference.predict import Failures, predict

    if options.invert and model.input["kind"] != "image":
        raise ConfigError("--invert", "is for models of images")
    files, others = find(options.files, model.input["kind"])
    reader = Reader(model.input, invert=options.invert)
    failures = Failures()
    if others:
        reader.notices["other files in the folders left out"] = others
    found = predict(
        model,
        files,
        reader=reader,
        failures=failures,
        batch_size=options.batch_size,
        top=options.top,
    )
    rows: list[Prediction] = []
    for row in found:
        if options.json:
            rows.append(row)
        else:
            print_lines(_describe_prediction(row))
    if options.json and (rows or not failures.rows):
        print_json(_json_of(model, rows, reader, failures))
    _tell_failures(failures, len(files))
    if not options.json:
        for text, count in sorted(reader.notices.items()):
            warn(f"{text} ({count})", prefix="note: ")
    return FAILED if failures.rows else DONE


def _json_of(
    model: Model,
    rows: list[Prediction],
    reader: Reader,
    failures: Failures,
) -> dict[str, Any]:
    about: dict[str, Any] = {key: value for key, value in model.about.items() if key != "title"}
    if model.views:
        about["test_time"] = model.views
    return {
        "model": about,
        "predictions": rows,
        "notices": dict(reader.notices),
        "failed": [{"file": file, "error": why} for file, why in failures.rows],
    }


def _tell_failures(failures: Failures, n_files: int) -> None:
    """Name the files that could not be read.

    Raises:
        ConfigError: None of them could.
    """
    if failures.rows and len(failures.rows) == n_files:
        file, why = failures.rows[0]
        more = f" (and {n_files - 1} more like it)" if n_files > 1 else ""
        raise ConfigError(file, f"{why}{more}")
    for file, why in failures.rows:
        warn(f"{file}: {why}")


def _describe_prediction(row: Mapping[str, Any]) -> str:
    if "values" in row:
        return f"{row['file']}  " + "  ".join(
            f"{name} {value:.6g}" for name, value in row["values"].items()
        )
    key = "probability" if "probability" in row else "score"
    first, *others = [f"{each['class']} {each[key]:.4f}" for each in row["top"]]
    return f"{row['file']}  {first}" + (f"  ({', '.join(others)})" if others else "")
