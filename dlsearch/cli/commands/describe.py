"""``describe``: the layers of a model."""

from __future__ import annotations

from dlsearch.cli.arguments import add_config_dirs, parser, print_json, print_lines, split
from dlsearch.cli.columns import print_table
from dlsearch.config.compose import compose_config, resolve


def describe(words: list[str]) -> int:
    """Print the layer table of a model."""
    overrides, rest = split(words)
    arguments = parser(
        "describe", "Layer table of a model: dlsearch describe model=lenet [data=mnist]."
    )
    add_config_dirs(arguments)
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    cfg = compose_config(overrides, config_dirs=options.config_dir)
    shape = resolve(cfg, "data.shape")
    import torch

    from dlsearch.config.build import build
    from dlsearch.inspection.describe import summary

    with torch.device("meta"):
        net = build(cfg.model, "model")
    found = summary(net, tuple(shape))
    if options.json:
        print_json(found)
        return 0
    rows = []
    for row in found["layers"]:
        shapes = [
            "×".join(map(str, shape or ())) for shape in (row["in"], row["out"], row["field"])
        ]
        counts = [f"{row['params']:,}", f"{row['macs']:,}"]
        rows.append([row["name"], row["type"], *shapes, *counts])
    left = ("layer", "type", "in", "out", "sees")
    print_table((*left, "parameters", "multiply-adds"), rows, left=left)
    print_lines(f"{found['n_params']:,} parameters, {found['macs']:,} multiply-adds")
    return 0
