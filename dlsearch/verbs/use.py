"""``predict``, ``export`` and ``compare``: what a finished study is good for."""

from __future__ import annotations

import sys
from argparse import BooleanOptionalAction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.verbs.words import parser, place, print_json, print_lines, split

if TYPE_CHECKING:
    from argparse import Namespace

    from dlsearch.search.kept import Kept
    from dlsearch.use.model import Model

FAILED = 1


def _record(overrides: list[str], name: str) -> tuple[dict[str, Any], Path]:
    """The record of a study, and the store that it lies in."""
    from dlsearch.search import place as places
    from dlsearch.search.record import read_record
    from dlsearch.search.study import Study

    where = place(overrides)
    if not places.exists(where.storage_url):
        raise ConfigError("study.name", f"there is no study {name!r}: {places.mask(where.storage_url)} does not exist")
    storage = where.open()
    try:
        return storage.surely(lambda: read_record(Study(storage, name))), where.store
    finally:
        storage.close()


def _kept(overrides: list[str], word: str) -> Kept:
    from dlsearch.search.kept import kept_model

    name, slash, number = word.partition("/")
    if slash and not number.isdigit():
        raise ConfigError("NAME", f"expected a study or STUDY/NUMBER, got {word!r}", "dlsearch studies lists them")
    record, store = _record(overrides, name)
    return kept_model(record, store, int(number) if slash else None)


def _words(words: list[str]) -> tuple[list[str], list[str]]:
    """Overrides and the rest; a file whose name holds ``=`` is a file."""
    overrides, rest = split(words)
    files = [w for w in overrides if Path(w).exists()]
    return [w for w in overrides if w not in files], [*rest, *files]


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError
    return int(text)


_whole.__name__ = "positive integer"  # argparse's word for what it is


def predict(words: list[str]) -> int:
    """Predict for files with the winner of a study."""
    overrides, rest = _words(words)
    arguments = parser("predict", "Predict for files with the model that a study kept; its data set is not needed.")
    arguments.add_argument("name", help="a study, STUDY/NUMBER for one trial's model, or a folder of dlsearch export")
    arguments.add_argument("files", nargs="+", metavar="FILE", help="pictures, .npy arrays, .csv rows, or folders")
    arguments.add_argument("--top", type=_whole, default=3, help="classes to name (default 3)")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    arguments.add_argument("--batch-size", type=_whole, default=64, help="inputs at once (default 64)")
    arguments.add_argument("--invert", action="store_true", help="take light for dark")
    arguments.add_argument(
        "--crops", type=_whole, help="average over 5 or 6 windows of each image (default: as trained)"
    )
    arguments.add_argument("--flip", action=BooleanOptionalAction, help="and over their mirror images, or not")
    arguments.add_argument("--scale", type=float, help="enlarge the image by this before windows are cut")
    options = arguments.parse_args(rest)
    for word in options.files:  # before torch is waited for
        if not Path(word).expanduser().exists():
            raise ConfigError(word, "there is no such file")
    folder = Path(options.name).expanduser()
    exported = (folder / "model.json").is_file()
    kept = None if exported else _kept(overrides, options.name)
    from dlsearch.use import model as models

    model = models.load_export(folder) if kept is None else models.load(kept)
    asked = {key: getattr(options, key) for key in ("crops", "flip", "scale") if getattr(options, key) is not None}
    return _predict(models.looking(model, {**model.views, **asked}) if asked else model, options)


def _predict(model: Model, options: Namespace) -> int:
    from dlsearch.use.files import Reader, find
    from dlsearch.use.predict import Failures, predict

    if options.invert and model.input["kind"] != "image":
        raise ConfigError("--invert", "is for models of images")
    files, others = find(options.files, model.input["kind"])
    reader, failures = Reader(model.input, invert=options.invert), Failures()
    if others:
        reader.notices["other files in the folders left out"] = others
    found = predict(model, files, reader=reader, failures=failures, batch_size=options.batch_size, top=options.top)
    rows: list[dict[str, Any]] = []
    for row in found:
        if options.json:
            rows.append(row)
        else:
            print_lines(_line(row))
    if options.json and (rows or not failures.rows):
        about = {key: value for key, value in model.about.items() if key != "title"}
        failed = [{"file": file, "error": why} for file, why in failures.rows]
        about |= {"test_time": model.views} if model.views else {}
        print_json({"model": about, "predictions": rows, "notices": dict(reader.notices), "failed": failed})
    if failures.rows and len(failures.rows) == len(files):
        file, why = failures.rows[0]
        more = f" (and {len(files) - 1} more like it)" if len(files) > 1 else ""
        raise ConfigError(file, f"{why}{more}")
    for file, why in failures.rows:
        sys.stderr.write(f"dlsearch: {file}: {why}\n")
    if not options.json:
        for text, count in sorted(reader.notices.items()):
            sys.stderr.write(f"note: {text} ({count})\n")
    return FAILED if failures.rows else 0


def _line(row: dict[str, Any]) -> str:
    if "values" in row:
        return f"{row['file']}  " + "  ".join(f"{name} {value:.6g}" for name, value in row["values"].items())
    key = "probability" if "probability" in row else "score"
    first, *others = [f"{each['class']} {each[key]:.4f}" for each in row["top"]]
    return f"{row['file']}  {first}" + (f"  ({', '.join(others)})" if others else "")


def export(words: list[str]) -> int:
    """Write the winner of a study as files that need no dlsearch."""
    overrides, rest = split(words)
    arguments = parser("export", "Write the model that a study kept as a torch.export program or as ONNX.")
    arguments.add_argument("name", help="a study, or STUDY/NUMBER for one trial's model")
    arguments.add_argument("--format", default="torch", help="torch, onnx, or both with a comma (default torch)")
    arguments.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    arguments.add_argument("--force", action="store_true", help="replace what is there")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    formats = list(dict.fromkeys(options.format.split(",")))
    strange = [f for f in formats if f not in ("torch", "onnx")]
    if strange:
        raise ConfigError("--format", f"expected torch or onnx, got {strange[0]!r}")
    out = options.out.expanduser()
    kept = _kept(overrides, options.name)
    from dlsearch.use import export as exports
    from dlsearch.use import model as models

    exports.check_formats(formats)
    exports.check_out(out, formats, force=options.force)
    spec = exports.export(models.load(kept), kept, out, formats=formats)
    if options.json:
        print_json(spec)
        return 0
    print_lines(f"model: {kept.title}")
    for form, found in spec["agreement"].items():
        name = "model.pt2" if form == "torch" else "model.onnx"
        sizes = ", ".join(map(str, found["batches"]))
        print_lines(
            f"{form}: {out / name}; outputs within {found['largest_difference']:.1e} of the network's"
            f" (allowed {found['tolerance']:.1e}; batches of {sizes})"
        )
    print_lines(f"about it: {out / 'model.json'}", f"use it: dlsearch predict {out} FILE…")
    return 0


def compare(words: list[str]) -> int:
    """Two or more studies side by side."""
    overrides, rest = split(words)
    arguments = parser("compare", "Two or more studies of the same objective, side by side.")
    arguments.add_argument("names", nargs="+", metavar="NAME", help="studies")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    arguments.add_argument("--out", type=Path, metavar="DIR", help="write a page with figures there")
    arguments.add_argument("--different-data", action="store_true", help="compare although the data differ; no tests")
    options = arguments.parse_args(rest)
    names: list[str] = options.names
    twice = next((n for n in names if names.count(n) > 1), None)
    if len(names) < 2 or twice is not None:
        what = "one study" if twice is None else f"{twice!r} twice"
        raise ConfigError("NAME", f"expected two or more studies, got {what}", "dlsearch studies lists them")
    from dlsearch.report import compare as comparing

    records = [_record(overrides, name)[0] for name in names]
    facts = comparing.compare(records, different_data=options.different_data)
    page = None
    if options.out is not None:
        from dlsearch.report.compare_page import write

        page = write(facts, options.out.expanduser())
    if options.json:
        print_json(facts)
        return 0
    from dlsearch.report.compare_text import show

    show(facts)
    if page is not None:
        print_lines(f"page: {page}")
    return 0
