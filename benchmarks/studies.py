"""Studies that benchmarks run as a user would, as commands; and what their trials' journals say."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DLSEARCH = Path(sys.executable).with_name("dlsearch")
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Trial:
    """One attempt, by its journal.

    Args:
        started: When it was claimed, seconds since the epoch.
        ended: When its result was there.
        state: ``complete``, ``failed``, …
        reason: Of a failure.
        peak_mib: What it held on its GPU; None on the CPU.
    """

    started: float
    ended: float
    state: str
    reason: str | None
    peak_mib: float | None


@dataclass(frozen=True)
class Study:
    """One study.

    Args:
        whole: Seconds from process start to exit.
        trials: All attempts.
        said: What the command wrote.
    """

    whole: float
    trials: list[Trial]
    said: str

    @property
    def span(self) -> float:
        """Seconds from the first trial's start to the last one's end."""
        return max(t.ended for t in self.trials) - min(t.started for t in self.trials)

    @property
    def per_hour(self) -> float:
        """Complete trials an hour, start-up left out."""
        return 3600 * sum(t.state == "complete" for t in self.trials) / self.span

    @property
    def seconds(self) -> float:
        """Of a trial; the median."""
        return statistics.median(t.ended - t.started for t in self.trials if t.state == "complete")


def run(
    words: Sequence[str],
    *,
    data: str,
    watch: Callable[[int], AbstractContextManager[Any]] = lambda _: nullcontext(),
) -> Study:
    """Run ``dlsearch -m`` from an empty store.

    Args:
        words: After ``-m``.
        data: Folder of the data sets.
        watch: Entered with the command's process id while it runs.

    Raises:
        SystemExit: It failed, or no trial was completed.
    """
    left_out = ("DLSEARCH_STORE", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")
    environment = {k: v for k, v in os.environ.items() if k not in left_out} | {
        "PYTHONPATH": str(HERE)
    }
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as place:
        command = [
            str(DLSEARCH), "-m", *words, "study.name=benchmark", "study.finalize=false", "study.default_first=false",
            f"paths.store={place}/store", f"paths.data={Path(data).resolve()}",
        ]  # fmt: skip
        started, log = time.perf_counter(), Path(place, "log.txt")
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=place, env=environment, stdout=out, stderr=out)
            with watch(process.pid):
                code = process.wait()
        whole, said = time.perf_counter() - started, log.read_text(errors="replace")
        paths = sorted(Path(place, "store", "studies", "benchmark").glob("t*/journal.a*.jsonl"))
        trials = [
            _trial([json.loads(line) for line in path.read_text().splitlines()]) for path in paths
        ]
    if code or not any(trial.state == "complete" for trial in trials):
        raise SystemExit(
            f"{' '.join(command)}: exit status {code}, {len(trials)} trials\n{said[-4000:]}"
        )
    return Study(whole, trials, said)


def _trial(rows: list[dict[str, Any]]) -> Trial:
    tags = {
        name: value for row in rows if row["row"] == "tags" for name, value in row["values"].items()
    }
    values = {
        name: value
        for row in rows
        if row["row"] == "metrics"
        for name, value in row["values"].items()
    }
    return Trial(
        rows[0]["started"] / 1e3,
        rows[-1]["t"] / 1e3,
        tags.get("dlsearch.trial.state", "running"),
        tags.get("dlsearch.trial.fail_reason"),
        values.get("system/peak_memory_mib"),
    )
