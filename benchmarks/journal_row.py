"""What a journal row costs the thread that trains, flushing every epoch of 50 rows.

python benchmarks/journal_row.py [--rows 100000] [--out FILE]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import machine

from dlsearch.tracking.journal import Journal

ROWS_AN_EPOCH = 50


def measure(count: int) -> list[float]:
    """Microseconds of each of `count` rows with six metrics, the flushes at each epoch's end among them, sorted."""
    took = []
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "journal.jsonl")) as journal:
        values = {
            "train/loss": 0.1234567,
            "train/accuracy": 0.9876,
            "lr/0": 1e-3,
            "epoch": 1.0,
            "a": 0.1,
            "b": 0.2,
        }
        for step in range(count):
            started = time.perf_counter()
            journal.metrics(values, step)
            if step % ROWS_AN_EPOCH == ROWS_AN_EPOCH - 1:
                journal.flush()
            took.append(1e6 * (time.perf_counter() - started))
    return sorted(took)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    given = parser.parse_args()
    took = measure(given.rows)
    names = ["mean", "p50", "p99", "most"]
    of_all = [sum(took) / len(took), took[len(took) // 2], took[int(0.99 * len(took))], took[-1]]
    rows = [["a row of six metrics", *(f"{value:.1f}" for value in of_all)]]
    table = machine.table(["what", *(f"{name}, µs" for name in names)], rows)
    machine.publish(
        f"{table}\n\n{machine.caption(f'{given.rows:,} rows', ('dlsearch',))}", given.out
    )


if __name__ == "__main__":
    main()
