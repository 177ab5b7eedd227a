"""What a journal row costs the thread that trains: p50, p99 and maximum, flushing every epoch of 50 rows.

python benchmarks/journal_row.py [rows]
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from pathlib import Path

from dlsearch.tracking.journal import Journal

ROWS_AN_EPOCH = 50


def measure(count: int) -> dict[str, float]:
    """Milliseconds of `count` rows with six metrics, the flushes at each epoch's end among them."""
    took = []
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder, "journal.jsonl")) as journal:
        values = {"train/loss": 0.1234567, "train/accuracy": 0.9876, "lr/0": 1e-3, "epoch": 1.0, "a": 0.1, "b": 0.2}
        for step in range(count):
            started = time.perf_counter()
            journal.metrics(values, step)
            if step % ROWS_AN_EPOCH == ROWS_AN_EPOCH - 1:
                journal.flush()
            took.append(1e3 * (time.perf_counter() - started))
    took.sort()
    return {
        "n": count,
        "p50_ms": round(took[count // 2], 4),
        "p99_ms": round(took[int(0.99 * count)], 4),
        "max_ms": round(took[-1], 4),
    }


if __name__ == "__main__":
    found = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    print(
        json.dumps(
            {"machine": platform.processor() or platform.machine(), "python": platform.python_version(), **found}
        )
    )
