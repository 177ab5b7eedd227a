"""Which checkpoints of a training were written by this user's own processes.

Beside the checkpoints lies ``resume.json``: the digest of each of the last ones, and where in the
training it was written, signed with this user's key (:mod:`dlsearch.core.resume_key`). A checkpoint
whose digest is there is read back with all the objects in it. One of another user, or of an earlier
version, is read as plain values alone. One that was changed is not read at all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError
from dlsearch.core.files.checksum import sealed_digest
from dlsearch.core.files.durable import write_durably
from dlsearch.core.files.regular import read_json
from dlsearch.tracking.layout import RESUME_RECORD

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.core.types import JsonObject

_SCHEMA = 1
#: Checkpoints that are remembered: the last, the one before, the best, and each one's successor
#: that a kill kept from its name.
_REMEMBERED = 6
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Place:
    """Where in a training a checkpoint was written."""

    epoch: int
    global_step: int

    def __str__(self) -> str:
        return f"epoch {self.epoch} (step {self.global_step})"


class Standing(Enum):
    """What is known of a checkpoint."""

    OWN = auto()  # recorded under this user's key
    UNKNOWN = auto()  # another user's, another machine's, or of an earlier version
    CHANGED = auto()  # there is a record, and this file is not in it


@dataclass(frozen=True)
class Entry:
    """A checkpoint of the record.

    Args:
        sha256: The digest that its file holds.
        place: Where it was written.
        best: Where the best one so far was written; None before there is one.
    """

    sha256: str
    place: Place
    best: Place | None

    def to_json(self) -> JsonObject:
        """Without its signature."""
        best = None if self.best is None else [self.best.epoch, self.best.global_step]
        place = [self.place.epoch, self.place.global_step]
        return {"sha256": self.sha256, "place": place, "best": best}

    @classmethod
    def from_json(cls, found: JsonObject) -> Entry:
        """An entry as it stands in the file."""
        best = found["best"]
        return cls(
            str(found["sha256"]),
            Place(*map(int, found["place"])),
            None if best is None else Place(*map(int, best)),
        )


class ResumeRecord:
    """The record of a training's checkpoints.

    Args:
        folder: Where these are.
        key: This user's; empty where there is none: nothing is recorded then, and no checkpoint is
            known to be this user's.
    """

    def __init__(self, folder: Path, key: str = "") -> None:
        self._path = folder / RESUME_RECORD
        self._key = key

    def add(self, entry: Entry) -> None:
        """Record a checkpoint, before it gets its name.

        Raises:
            OSError: The disk is full, or the like.
        """
        if not self._key:
            return
        rows = self._rows()
        if rows is None:
            rows = self._rows_of_earlier_version()
        kept = [row for row in rows if row.get("sha256") != entry.sha256]
        row = {**entry.to_json(), "signature": self._sign(entry)}
        best = None if entry.best is None else [entry.best.epoch, entry.best.global_step]
        stay = [each for each in kept if "place" not in each or each["place"] == best]
        rows = [*stay, *kept[-_REMEMBERED:], row]
        distinct = {str(each.get("sha256")): each for each in rows}
        document = {"schema": _SCHEMA, "checkpoints": list(distinct.values())}
        write_durably(self._path, json.dumps(document, indent=1))

    def find(self, sha256: str | None) -> Entry | None:
        """The checkpoint with a digest, where it is this user's."""
        for row in self._rows() or []:
            try:
                entry = Entry.from_json(row)
            except (KeyError, TypeError, ValueError):
                continue
            if entry.sha256 == sha256 and self._is_signed(row, entry):
                return entry
        return None

    def standing(self, sha256: str | None) -> Standing:
        """What is known of the checkpoint with a digest."""
        if self.find(sha256) is not None:
            return Standing.OWN
        rows = self._rows()
        if not rows or any(row.get("sha256") == sha256 for row in rows):
            return Standing.UNKNOWN
        return Standing.CHANGED

    def _rows_of_earlier_version(self) -> list[JsonObject]:
        """Rows of the checkpoints that were there before there was a record: nobody signed them."""
        paths = sorted(self._path.parent.glob("*.ckpt"))
        return [{"sha256": sealed_digest(path)} for path in paths]

    def _rows(self) -> list[JsonObject] | None:
        """All rows, whoever signed them; None where there is no record."""
        try:
            document: Any = read_json(self._path, _MAX_BYTES)
        except (OSError, ValueError, ConfigError):
            return None
        rows = document.get("checkpoints") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            return None
        return [row for row in rows if isinstance(row, dict)]

    def _sign(self, entry: Entry) -> str:
        text = json.dumps(entry.to_json(), sort_keys=True)
        return hmac.new(self._key.encode(), text.encode(), hashlib.sha256).hexdigest()

    def _is_signed(self, row: JsonObject, entry: Entry) -> bool:
        signature = row.get("signature")
        if not self._key or not isinstance(signature, str):
            return False
        return hmac.compare_digest(signature.encode(), self._sign(entry).encode())
