"""The journal: an append-only file of typed rows, one a run, written before anything is sent.

A row is one line of JSON: ``row`` (its type), ``t`` (milliseconds since 1970, taken at the call),
and its fields. A line that a crash cut short is no row; the next row starts on a new line. The
journal is the record: MLflow can be rebuilt from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import threading
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from dlsearch.core.bounded import parse_json
from dlsearch.core.files.inside import inside, is_inside
from dlsearch.core.files.regular import open_regular, open_to_append, read_json
from dlsearch.core.masking import mask, mask_known, mask_text
from dlsearch.core.text import clean_text
from dlsearch.core.types import JsonObject
from dlsearch.tracking import layout
from dlsearch.tracking.rows import (
    ArtifactRow,
    DatasetRow,
    MetricsRow,
    ModelRow,
    OpenRow,
    ParamsRow,
    StatusRow,
    TagsRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlsearch.core.files.descriptor import Descriptor
    from dlsearch.tracking.rows import JournalRow

FLUSH_BYTES = 64 * 1024
FLUSH_S = 5.0
#: A row may have so many bytes: a config is the longest thing that one holds. A longer one is
#: passed over.
MAX_ROW = 16_000_000
_MAX_NOTES = 100_000

#: A row as it is read: ``row`` (its type), ``t``, and what it has of the fields of its type, see
#: :mod:`dlsearch.tracking.rows`.
Row: TypeAlias = JsonObject

_WORD = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LONGEST = 500
_STATUSES = (
    layout.FINISHED,
    layout.KILLED,
    layout.FAILED,
    layout.SCHEDULED,
    layout.RUNNING,
)


_encode = json.JSONEncoder(
    ensure_ascii=False,
    separators=(",", ":"),
    allow_nan=False,
    default=str,
).encode


class Journal:
    """Rows of one run. Thread-safe.

    Buffered until :meth:`flush`, 64 KiB, five seconds, or a row that opens or ends.

    Several processes may append to one journal, each with a Journal of its own: a line is written
    whole.

    Args:
        path: The file. It is made, with its folder, when the first row is flushed.
    """

    def __init__(self, path: Path) -> None:
        """Write nothing yet."""
        self.path = Path(path)
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._file: Descriptor | None = None
        self._flushed = time.monotonic()
        self._keys: dict[str, str] = {}  # by name, as it was given

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
        key = _key_of_run(self.path) or uuid.uuid4().hex
        row = OpenRow(
            key=key,
            kind=kind,
            name=mask_known(name),
            experiment=mask_known(experiment),
            parent=parent,
            tags=self._to_texts(tags or {}),
            started=started_ms or _now_ms(),
        )
        self._add(row, flush=True)
        return key

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters, whole and masked."""
        self._add(ParamsRow(self._to_texts(values)))

    def metrics(
        self,
        values: Mapping[str, float],
        step: int,
        *,
        at_ms: int | None = None,
    ) -> None:
        """Record metrics at `step` (the trainer's global step); NaN and infinities are kept.

        Args:
            values: By name.
            step: As above.
            at_ms: When they were measured; now by default. The same at the same time is one row,
                even if it is sent twice.
        """
        row = MetricsRow(int(step), self._to_numbers(values))
        self._add(row, at_ms=at_ms)

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags."""
        self._add(TagsRow(self._to_texts(values)))

    def artifact(self, local_path: Path, artifact_path: str = "") -> None:
        """Name a file or folder to be copied into the run below `artifact_path`."""
        file = self._relative_to_journal(local_path)
        self._add(ArtifactRow(file, artifact_path), flush=True)

    def dataset(
        self,
        name: str,
        digest: str,
        context: str,
        source: str,
    ) -> None:
        """Name a data set that the run read.

        Args:
            name: Its name.
            digest: Of its content.
            context: ``train validation test``.
            source: Where it comes from.
        """
        row = DatasetRow(
            name=mask_known(name),
            digest=digest,
            context=context,
            source=mask_text(source),
        )
        self._add(row)

    def model(self, name: str, metrics: Mapping[str, float]) -> None:
        """Have the net in the folder ``model`` beside this journal logged as an MLflow model.

        Args:
            name: Of the model.
            metrics: What it scored; they are linked to the model.
        """
        self._add(ModelRow(name, self._to_numbers(metrics)), flush=True)

    def status(self, status: str) -> None:
        """End the run: ``FINISHED KILLED FAILED SCHEDULED``.

        The owner of the run calls it, last.
        """
        if status not in _STATUSES:
            raise ValueError(f"status: expected one of MLflow's, got {status!r}")
        self._add(StatusRow(status), flush=True)

    def flush(self) -> None:
        """Hand all rows to the operating system.

        Raises:
            OSError: The disk is full, or the like. The rows are kept; the next flush goes on where
                this one stopped.
        """
        with self._lock:
            self._write_buffer()

    def close(self) -> None:
        """Flush, sync to disk and close; a later row opens the file again."""
        with self._lock:
            self._write_buffer()
            if self._file is not None:
                with contextlib.suppress(OSError):  # /dev/null and pipes cannot be synced
                    os.fsync(self._file.fileno())
                file = self._file
                self._file = None
                file.close()

    def __enter__(self) -> Journal:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _add(
        self,
        row: JournalRow,
        *,
        at_ms: int | None = None,
        flush: bool = False,
    ) -> None:
        when_ms = _now_ms() if at_ms is None else at_ms
        text = _encode({"row": row.row, "t": when_ms, **vars(row)})
        line = text.encode("utf-8", "replace")
        with self._lock:
            self._buffer += line
            self._buffer += b"\n"
            is_long = len(self._buffer) > FLUSH_BYTES
            is_old = time.monotonic() - self._flushed > FLUSH_S
            if flush or is_long or is_old:
                self._write_buffer()

    def _write_buffer(self) -> None:
        self._flushed = time.monotonic()
        if not self._buffer:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_to_append(self.path, also_read=True)
            if _ends_torn(self._file.fileno()):
                self._buffer[:0] = b"\n"
        while self._buffer:
            written = os.write(self._file.fileno(), self._buffer)
            del self._buffer[:written]

    def _key(self, name: str) -> str:
        """A name as it is written: without secrets, and fit for MLflow.

        A second name that would be written like the first gets a digest of its own, so that both
        stay apart; also where it stands behind ``best/`` or ``final/``.
        """
        if name in self._keys:
            return self._keys[name]
        for prefix in (layout.BEST_PREFIX, layout.FINAL_PREFIX):
            if name.startswith(prefix) and name.removeprefix(prefix) in self._keys:
                key = f"{prefix}{self._keys[name.removeprefix(prefix)]}"
                break
        else:
            key = layout.key(mask_known(name))
        others = (other for other in self._keys if self._keys[other] == key)
        if next(others, None) is not None:
            digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
            key = f"{key[: layout.MAX_KEY - 9]}-{digest}"
        self._keys[name] = key
        return key

    def _to_numbers(self, values: Mapping[str, float]) -> dict[str, float | str]:
        return {self._key(name): _to_json_number(value) for name, value in values.items()}

    def _to_texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """As MLflow's databases take it: PostgreSQL refuses a request with a NUL as a whole."""
        found: dict[str, str] = {}
        for given, value in values.items():
            name = str(given)
            masked = mask(value, name)
            found[self._key(name)] = clean_text(layout.text(masked))
        return found

    def _relative_to_journal(self, path: Path) -> str:
        """Relative to the journal, so that a store can be moved."""
        own = os.path.abspath(path)  # noqa: PTH100  # links stay
        folder = os.path.abspath(self.path.parent)  # noqa: PTH100
        return os.path.relpath(own, folder)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _to_json_number(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)  # "nan", "inf", "-inf": JSON has none


def _ends_torn(fd: int) -> bool:
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def read(
    path: Path,
    offset: int = 0,
    limit: int = 1 << 20,
) -> tuple[list[tuple[Row, int]], int]:
    """The rows of a journal from `offset` on.

    Args:
        path: The journal.
        offset: Where the last read ended.
        limit: Bytes to read at most; a longer row is read whole, unless no journal has such a row.

    Returns:
        Each row with the offset behind it, and the offset behind the last whole line.
    """
    try:
        with open_regular(path) as file:
            file.seek(offset)
            block = file.read(limit)
            if block and b"\n" not in block:
                block += file.readline(MAX_ROW)
                is_cut = len(block) > MAX_ROW and not block.endswith(b"\n")
                if is_cut:
                    return [], offset + _skip_line(file, len(block))
    except FileNotFoundError:
        return [], offset
    found: list[tuple[Row, int]] = []
    # what stands behind the last newline is still being written
    lines = block.split(b"\n")[:-1]
    for line in lines:
        offset += len(line) + 1
        row = _parse_row(line)
        if row is not None:
            found.append((row, offset))
    return found, offset


def _parse_row(line: bytes) -> Row | None:
    """The row of a line; None where a crash cut it short, or it is no row at all."""
    try:
        row = parse_json(line, "a journal", MAX_ROW)
    except ValueError:
        return None
    if isinstance(row, dict) and "row" in row and "t" in row:
        return row
    return None


def _skip_line(file: IO[bytes], begun: int) -> int:
    """Go to the end of a line of which `begun` bytes were read.

    Its length, 0 while it has no end.
    """
    while block := file.readline(MAX_ROW):
        begun += len(block)
        if block.endswith(b"\n"):
            return begun
    return 0


def rows(path: Path) -> Iterator[Row]:
    """All rows of a journal."""
    offset = 0
    while True:
        found, end = read(path, offset)
        yield from (row for row, _ in found)
        if end == offset:
            return
        offset = end


def _key_of_run(path: Path) -> str | None:
    """The key under which the run of a journal is found; None where it opens none yet."""
    for row in rows(path):
        if row["row"] == "open":
            key: str = row["key"]
            return key
    return None


def opens(row: Row) -> bool:
    """Whether a row opens a run with usable names.

    Each of them is one line, and the key is a word.
    """
    if row.get("row") != "open" or row.get("kind") not in layout.KINDS:
        return False
    if not isinstance(row.get("tags"), dict) or not isinstance(row.get("started"), int):
        return False
    key = row.get("key")
    if not isinstance(key, str) or not _WORD.fullmatch(key):
        return False
    return _is_title(row.get("name")) and _is_title(row.get("experiment"))


def _is_title(text: Any) -> bool:
    """Whether this is one line that MLflow's pages can show."""
    return isinstance(text, str) and 0 < len(text) <= _LONGEST and text.isprintable()


def parent_of(store: Path, row: Row) -> Path | None:
    """The journal of the run above the one that `row` opens.

    None where it has none, or names none of this store.
    """
    parent = row.get("parent")
    if not isinstance(parent, str) or not parent or not is_inside(store, parent):
        return None
    return inside(store, parent)


def shipped_path(path: Path) -> Path:
    """Where the shipper notes how far a journal has been sent."""
    return path.with_name(f"{path.name}.shipped")


def run_id(path: Path) -> str | None:
    """MLflow's id of the run that was shipped from the journal at `path`, if it has one yet."""
    try:
        found = read_json(shipped_path(path), _MAX_NOTES)
    except (OSError, ValueError):
        return None
    known = found.get("run_id") if isinstance(found, dict) else None
    return known if isinstance(known, str) else None
