"""``export``: the model that a study kept, as files that need no dlsearch."""

from __future__ import annotations

from pathlib import Path

from dlsearch.cli.arguments import parser, print_json, print_lines, split
from dlsearch.cli.kept_models import find_kept_model
from dlsearch.core.errors import ConfigError


def export(words: list[str]) -> int:
    """Write the winner of a study as files that need no dlsearch."""
    overrides, rest = split(words)
    arguments = parser(
        "export", "Write the model that a study kept as a torch.export program or as ONNX."
    )
    arguments.add_argument("name", help="a study, or STUDY/NUMBER for one trial's model")
    arguments.add_argument(
        "--format", default="torch", help="torch, onnx, or both with a comma (default torch)"
    )
    arguments.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write",
    )
    arguments.add_argument("--force", action="store_true", help="replace what is there")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    formats = list(dict.fromkeys(options.format.split(",")))
    strange = [f for f in formats if f not in ("torch", "onnx")]
    if strange:
        raise ConfigError("--format", f"expected torch or onnx, got {strange[0]!r}")
    out = options.out.expanduser()
    kept = find_kept_model(overrides, options.name)
    from dlsearch.inference import export as exports
    from dlsearch.inference import model as models

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
            f"{form}: {out / name}; "
            f"outputs within {found['largest_difference']:.1e} of the network's"
            f" (allowed {found['tolerance']:.1e}; batches of {sizes})"
        )
    print_lines(f"about it: {out / 'model.json'}", f"use it: dlsearch predict {out} FILE…")
    return 0
