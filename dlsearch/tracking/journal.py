"""The journal: an append-only file of typed rows, one a run, written before anything is sent anywhere.

A row is one line of JSON: ``row`` (its type), ``t`` (milliseconds since 1970, taken at the call), and its fields.
A line that a crash cut short is no row; the next row starts on a new line. The journal is the record: MLflow can be
rebuilt from it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
import uuid
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.tracking import layout
from dlsearch.tracking.masking import mask, mask_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLUSH_BYTES = 64 * 1024
FLUSH_S = 5.0

_key = lru_cache(maxsize=4096)(layout.key)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str).encode


class Journal:
    """Rows of one run. Thread-safe; buffered until :meth:`flush`, 64 KiB, five seconds, or a row that opens or ends.

    Several processes may append to one journal, each with a Journal of its own: a line is written whole.

    Args:
        path: The file. It is made, with its folder, when the first row is flushed.
    """

    def __init__(self, path: Path) -> None:
        """Write nothing yet."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._fd: int | None = None
        self._flushed = time.monotonic()

    def open(
        self,
        kind: str,
        name: str,
        experiment: str,
        parent: str | None = None,
        tags: Mapping[str, Any] | None = None,
        started_ms: int | None = None,
    ) -> str:
        """Begin the run, or, in a journal that has one, take it up again.

        Args:
            kind: ``study trial confirm replicate train ensemble``.
            name: The run's name.
            experiment: MLflow's experiment.
            parent: The parent's journal, relative to the store.
            tags: The run's first tags.
            started_ms: When it began; now by default.

        Returns:
            The key under which the run is found again, the same at every re-opening.
        """
        if kind not in layout.KINDS:
            raise ValueError(f"kind: expected one of {', '.join(layout.KINDS)}, got {kind!r}")
        key = next((row["key"] for row in rows(self.path) if row["row"] == "open"), None) or uuid.uuid4().hex
        fields = {"key": key, "kind": kind, "name": name, "experiment": experiment, "parent": parent}
        self._add("open", {**fields, "tags": _texts(tags or {}), "started": started_ms or _now()}, flush=True)
        return key

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters, whole and masked."""
        self._add("params", {"values": _texts(values)})

    def metrics(self, values: Mapping[str, float], step: int, *, at_ms: int | None = None) -> None:
        """Record metrics at `step` (the trainer's global step); NaN and infinities are kept.

        Args:
            values: By name.
            step: As above.
            at_ms: When they were measured; now by default. The same at the same time is one row, whoever sends it.
        """
        found = {_key(name): _number(v) for name, v in values.items()}
        self._add("metrics", {"step": int(step), "values": found, **({} if at_ms is None else {"t": at_ms})})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""
        self._add("tags", {"values": _texts(values)})

    def artifact(self, local_path: Path, artifact_path: str = "") -> None:
        """Name a file or folder to be copied into the run below `artifact_path`."""
        self._add("artifact", {"file": self._relative(local_path), "to": artifact_path}, flush=True)

    def dataset(self, name: str, digest: str, context: str, source: str) -> None:
        """Name a data set that the run read.

        Args:
            name: Its name.
            digest: Of its content.
            context: ``train validation test``.
            source: Where it comes from.
        """
        self._add("dataset", {"name": name, "digest": digest, "context": context, "source": mask_text(source)})

    def model(self, checkpoint: Path, config_path: Path, name: str, metrics: Mapping[str, float]) -> None:
        """Have a checkpoint logged as an MLflow model.

        Args:
            checkpoint: A Lightning checkpoint.
            config_path: The config that builds its task.
            name: Of the model.
            metrics: What it scored; they are linked to the model.
        """
        fields = {"checkpoint": self._relative(checkpoint), "config": self._relative(config_path), "name": name}
        self._add("model", {**fields, "metrics": {_key(k): _number(v) for k, v in metrics.items()}}, flush=True)

    def status(self, status: str) -> None:
        """End the run: ``FINISHED KILLED FAILED SCHEDULED``. The owner of the run calls it, last."""
        if status not in (layout.FINISHED, layout.KILLED, layout.FAILED, layout.SCHEDULED, layout.RUNNING):
            raise ValueError(f"status: expected one of MLflow's, got {status!r}")
        self._add("status", {"status": status}, flush=True)

    def flush(self) -> None:
        """Hand all rows to the operating system.

        Raises:
            OSError: The disk is full, or the like. The rows are kept; the next flush goes on where this one stopped.
        """
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Flush, sync to disk and close; a later row opens the file again."""
        with self._lock:
            self._flush()
            if self._fd is not None:
                with contextlib.suppress(OSError):  # /dev/null and pipes cannot be synced
                    os.fsync(self._fd)
                os.close(self._fd)
                self._fd = None

    def __enter__(self) -> Journal:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _add(self, row: str, fields: Mapping[str, Any], *, flush: bool = False) -> None:
        line = _encode({"row": row, "t": _now(), **fields}).encode("utf-8", "replace")
        with self._lock:
            self._buffer += line
            self._buffer += b"\n"
            if flush or len(self._buffer) > FLUSH_BYTES or time.monotonic() - self._flushed > FLUSH_S:
                self._flush()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._buffer:
            return
        if self._fd is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if _torn(self._fd):
                self._buffer[:0] = b"\n"
        while self._buffer:
            written = os.write(self._fd, self._buffer)
            del self._buffer[:written]

    def _relative(self, path: Path) -> str:
        """Relative to the journal, so that a store can be moved."""
        return os.path.relpath(os.path.abspath(path), os.path.abspath(self.path.parent))  # noqa: PTH100  # links stay


def _now() -> int:
    return time.time_ns() // 1_000_000


def _number(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)  # "nan", "inf", "-inf": JSON has none


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {layout.key(str(name)): layout.text(mask(value, str(name))) for name, value in values.items()}


def _torn(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def read(path: Path, offset: int = 0, limit: int = 1 << 20) -> tuple[list[tuple[dict[str, Any], int]], int]:
    """The rows of a journal from `offset` on.

    Args:
        path: The journal.
        offset: Where the last read ended.
        limit: Bytes to read at most; a longer row is read whole.

    Returns:
        Each row with the offset behind it, and the offset behind the last whole line.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            block = file.read(limit)
            if block and not block.endswith(b"\n"):
                block += file.readline()
    except FileNotFoundError:
        return [], offset
    found = []
    for line in block.split(b"\n")[:-1]:  # what stands behind the last newline is still being written
        offset += len(line) + 1
        with contextlib.suppress(ValueError):  # a line that a crash cut short
            row = json.loads(line)
            if isinstance(row, dict) and "row" in row and "t" in row:
                found.append((row, offset))
    return found, offset


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """All rows of a journal."""
    offset = 0
    while True:
        found, end = read(path, offset)
        yield from (row for row, _ in found)
        if end == offset:
            return
        offset = end


def shipped_path(path: Path) -> Path:
    """Where the shipper notes how far a journal has been sent."""
    return path.with_name(f"{path.name}.shipped")


def run_id(path: Path) -> str | None:
    """MLflow's id of the run that was shipped from the journal at `path`, if it has one yet."""
    try:
        found = json.loads(shipped_path(path).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found.get("run_id") if isinstance(found, dict) else None
