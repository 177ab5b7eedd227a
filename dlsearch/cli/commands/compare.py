"""``compare``: studies of the same objective, side by side."""

from __future__ import annotations

from pathlib import Path

from dlsearch.cli.arguments import parser, print_json, print_lines, split
from dlsearch.cli.reading import read_record_of
from dlsearch.core.errors import ConfigError


def compare(words: list[str]) -> int:
    """Two or more studies side by side."""
    overrides, rest = split(words)
    arguments = parser("compare", "Two or more studies of the same objective, side by side.")
    arguments.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="studies",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    arguments.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write a page with figures there",
    )
    arguments.add_argument(
        "--different-data", action="store_true", help="compare although the data differ; no tests"
    )
    options = arguments.parse_args(rest)
    names: list[str] = options.names
    twice = [name for name in names if names.count(name) > 1]
    if len(names) < 2 or twice:
        what = f"{twice[0]!r} twice" if twice else "one study"
        raise ConfigError(
            "NAME", f"expected two or more studies, got {what}", "dlsearch studies lists them"
        )
    from dlsearch.report.compare import compare as comparing

    records = []
    for name in names:
        record, _ = read_record_of(overrides, name)
        records.append(record.to_json())
    facts = comparing.compare(records, different_data=options.different_data)
    page = None
    if options.out is not None:
        from dlsearch.report.compare.page import write

        page = write(facts, options.out.expanduser())
    if options.json:
        print_json(facts)
        return 0
    from dlsearch.report.compare.text import show

    show(facts)
    if page is not None:
        print_lines(f"page: {page}")
    return 0
