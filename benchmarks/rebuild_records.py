"""Write the committed records again from their own observations, by the present program.

    python benchmarks/rebuild_records.py [NAME …]

What was observed (trials, replicas, times, the ledger) stays as it is in each ``report.json``; what
is computed from it, said of it and drawn of it is written again. The script refuses a record of
which an observation would change, and prints the facts that did.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlsearch.report import build
from dlsearch.report.restore import restore_record

RECORDS = Path(__file__).resolve().parents[1] / "experiments"
#: Written beside a report by ``make experiments``, and no part of it.
BESIDE = "config.yaml"
#: What was observed, and must stay as it is.
OBSERVED = ("study", "trials", "again")
#: Of a repetition's row, what is null or false may be left out.
_ABSENT = (None, False)


def observations_of(report: dict[str, Any]) -> dict[str, Any]:
    """What must be the same before and after."""
    found = {key: report[key] for key in OBSERVED}
    found["replay"] = [
        {key: value for key, value in row.items() if value not in _ABSENT}
        for row in report["replay"]
    ]
    test = report["test"]
    found["test"] = {key: test[key] for key in ("rows", "openings", "opened")}
    if test["main"] is not None:
        observed = ("confusion", "errors", "first_layer", "inside", "replicas", "refit")
        found["main"] = {key: test["main"][key] for key in observed}
    return found


def find_changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The paths at which two documents differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from find_changes(before.get(key), after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from find_changes(old, new, f"{path}[{place}]")
    elif before != after:
        yield path.removeprefix(".")


def rebuild(folder: Path) -> list[str]:
    """Write one record again; the facts that changed.

    Raises:
        SystemExit: An observation would change.
    """
    before = json.loads((folder / "report.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".rebuild.") as beside:
        fresh = Path(beside, "report")
        build(restore_record(before), fresh)
        after = json.loads((fresh / "report.json").read_text("utf-8"))
        changed = list(find_changes(observations_of(before), observations_of(after)))
        if changed:
            raise SystemExit(f"{folder.name}: observations would change: {', '.join(changed[:5])}")
        shutil.copy2(folder / BESIDE, fresh / BESIDE)
        former = Path(beside, "former")
        folder.rename(former)
        fresh.rename(folder)
    computed = [key for key in before.keys() | after.keys() if key != "replay"]
    return [
        path
        for key in sorted(computed)
        for path in find_changes(before.get(key), after.get(key), key)
    ]


def main() -> None:
    """Rebuild the records that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of studies in experiments/ (default: all)")
    names = parser.parse_args().names
    folders = [RECORDS / name for name in names] or sorted(
        path.parent for path in RECORDS.glob("*/report.json")
    )
    for folder in folders:
        changed = rebuild(folder)
        print(f"{folder.name}: {', '.join(changed) or 'nothing changed'}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
