"""``studies``, ``status``, ``trials`` and ``report``: what there is, and how it goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.search.outage import PATIENCE_S
from dlsearch.verbs.columns import print_table
from dlsearch.verbs.words import Place, parser, place, print_json, print_lines, split

if TYPE_CHECKING:
    from dlsearch.search.study import Study


def _open(where: Place, name: str) -> Study:
    from dlsearch.search import index, inhand
    from dlsearch.search import place as places
    from dlsearch.search.study import Study

    if not places.exists(where.storage_url):
        raise ConfigError("study.name", f"there is no study {name!r}: {places.mask(where.storage_url)} does not exist")
    storage = where.open()
    study = storage.surely(lambda: Study(storage, name))

    def mend() -> None:
        inhand.write_kept(study, where.store)
        with study.storage.begin() as connection:
            running = index.running(connection, study.optuna._study_id)
        if study.leases.overdue() or running - study.leases.live_numbers("trial"):
            study.reap()  # reads every trial

    storage.surely(mend)
    return study


def _run_id(where: Place, name: str, number: int, attempt: int) -> str | None:
    from dlsearch.tracking import layout
    from dlsearch.tracking.journal import run_id

    return run_id(where.store / layout.trial_folder(name, number) / f"journal.a{attempt}.jsonl")


def studies(words: list[str]) -> int:
    """List the studies of a storage."""
    overrides, rest = split(words)
    arguments = parser("studies", "List the studies of this store.")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    from dlsearch.search.place import exists
    from dlsearch.search.record import read_status
    from dlsearch.search.study import Study
    from dlsearch.search.study_rows import names

    where = place(overrides)
    found: list[dict[str, Any]] = []
    if exists(where.storage_url):
        storage = where.open()
        found = storage.surely(lambda: [read_status(Study(storage, name)) for name in names(storage)])
    if options.json:
        keys = ("name", "state", "direction", "objective", "n_trials", "counts", "best", "started", "seconds")
        print_json([{key: status[key] for key in keys} for status in found])
        return 0
    if not found:
        print_lines(f"no studies in {where.store}; start one: dlsearch -m experiment=quickstart")
        return 0
    rows = []
    for status in found:
        done = sum(status["counts"][state] for state in ("complete", "pruned", "failed"))
        best = f"{status['best']['value']:.4f}" if status["best"] else ""
        started = str(status["started"])[:16].replace("T", " ")
        rows.append([
            status["name"], status["state"], f"{done}/{status['n_trials']}", str(status["objective"]), best, started,
        ])  # fmt: skip
    headings = ("study", "state", "trials", "objective", "best", "started")
    print_table(headings, rows, left=("study", "state", "objective", "started"))
    return 0


def status(words: list[str]) -> int:
    """Show how a study goes."""
    overrides, rest = split(words)
    arguments = parser("status", "How a study goes; follows a running one in a terminal.")
    arguments.add_argument("name")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    arguments.add_argument("--follow", action="store_true", help="until it ends")
    options = arguments.parse_args(rest)
    from dlsearch.search.record import read_status

    where = place(overrides)
    study = _open(where, options.name)

    def look() -> dict[str, Any]:
        found = read_status(study)
        if found["best"] is not None:
            attempts = study.leases.rows(kind="trial", number=found["best"]["number"])
            if attempts:
                found["best"]["run_id"] = _run_id(where, options.name, attempts[-1].number, attempts[-1].attempt)
        return found

    def read() -> dict[str, Any]:
        return study.storage.surely(look)

    found = read()
    if options.json:
        print_json(found)
        return 0
    from rich.console import Console
    from rich.live import Live

    from dlsearch.search.watch import confirmed, table, who

    console = Console()
    if options.follow and console.is_terminal:
        with Live(table(found), console=console, auto_refresh=False) as live:
            while found["state"] == "running":
                time.sleep(1.0)
                found = read()
                live.update(table(found), refresh=True)
    else:
        console.print(table(found))
    if found["winner"] is not None and found["winner"]["confirmed"]:
        print_lines(f"winner: {confirmed(found)}")
    for test in found["test"]:
        scores = ", ".join(f"{key} {value:.4f}" for key, value in sorted(test["metrics"].items()))
        print_lines(f"test set, opened for {who(test['trial_number'])}: {scores}")
    return 0


def trials(words: list[str]) -> int:
    """List the trials of a study."""
    overrides, rest = split(words)
    arguments = parser("trials", "The trials of a study.")
    arguments.add_argument("name")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    options = arguments.parse_args(rest)
    from dlsearch.search.record import read_record

    where = place(overrides)
    study = _open(where, options.name)
    record = study.storage.surely(lambda: read_record(study))
    keys = ("number", "state", "reason", "params", "value", "seconds")
    rows = [
        {
            **{key: trial[key] for key in keys},
            "values": trial["values"],
            "error": trial["error"],
            "attempt": len(trial["attempts"]),
            "duplicate_of": trial["duplicate_of"],
            "run_id": _run_id(where, options.name, trial["number"], len(trial["attempts"]))
            if trial["attempts"]
            else None,
        }
        for trial in record["trials"]
    ]
    if options.json:
        print_json(rows)
        return 0
    from dlsearch.search.watch import short

    searched = [dim["name"] for dim in record["study"]["space"]]
    lines = [
        [
            str(row["number"]),
            f"{row['state']}({row['reason']})" if row["reason"] else row["state"],
            "" if row["value"] is None else f"{row['value']:.4f}",
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
            *[short(row["params"].get(name, "")) for name in searched],
        ]
        for row in rows
    ]
    print_table(("trial", "state", "value", "s", *searched), lines, left=("state",))
    return 0


def report(words: list[str]) -> int:
    """Rebuild a study's report from its storage alone."""
    overrides, rest = split(words)
    arguments = parser("report", "Rebuild the report of a study from its storage alone.")
    arguments.add_argument("name")
    arguments.add_argument("--out", type=Path, help="folder to write (default: in the store)")
    arguments.add_argument("--interactive", action="store_true", help="interactive.html as well (needs plotly)")
    options = arguments.parse_args(rest)
    where = place(overrides)
    _open(where, options.name)
    folder = write_report(
        options.name, where.storage_url, where.store, out=options.out, interactive=options.interactive,
        patience_s=where.patience_s,
    )  # fmt: skip
    print_lines(f"report: {folder / 'index.html'}")
    return 0


def write_report(
    name: str,
    storage_url: str,
    store: Path,
    *,
    out: Path | None = None,
    interactive: bool = False,
    patience_s: float = PATIENCE_S,
) -> Path:
    """Build the report of a study; returns its folder."""
    from dlsearch import report as reports
    from dlsearch.search.database import Storage
    from dlsearch.search.record import read_record
    from dlsearch.search.study import Study
    from dlsearch.tracking import layout

    storage = Storage(storage_url, patience_s=patience_s)
    try:
        record = storage.surely(lambda: read_record(Study(storage, name)))
    finally:
        storage.close()
    folder = out or store / layout.study_folder(name) / "report"
    return reports.build(record, folder, interactive=interactive).parent
