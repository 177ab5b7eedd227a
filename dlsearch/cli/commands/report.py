"""``report``: the report of a study, from its storage alone."""

from __future__ import annotations

from pathlib import Path

from dlsearch.cli.arguments import parser, place, print_lines, split
from dlsearch.cli.reading import look_at_study


def report(words: list[str]) -> int:
    """Rebuild a study's report from its storage alone."""
    overrides, rest = split(words)
    arguments = parser("report", "Rebuild the report of a study from its storage alone.")
    arguments.add_argument("name")
    arguments.add_argument("--out", type=Path, help="folder to write (default: in the store)")
    arguments.add_argument(
        "--interactive", action="store_true", help="interactive.html as well (needs plotly)"
    )
    options = arguments.parse_args(rest)
    from dlsearch.app.reporting import write_report

    where = place(overrides)
    look_at_study(where, options.name).storage.close()
    folder = write_report(
        options.name,
        where.storage_url,
        where.store,
        out=options.out,
        interactive=options.interactive,
        patience_s=where.patience_s,
        read_only=True,
    )
    print_lines(f"report: {folder / 'index.html'}")
    return 0
