"""``dlsearch sync``: the journals of a store, each to the server that its study ships to.

Imports mlflow, in `send`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dlsearch.core.errors import ConfigError, did_you_mean
from dlsearch.core.masking import learn, mask_text
from dlsearch.tracking.destination import (
    UnknownDestinationError,
    UnlistedDestinationError,
    folder_of,
    uri_of,
    without_secrets,
)
from dlsearch.tracking.tail import backlog, discover, pending_rows, server_id

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject


@dataclass
class Shipment:
    """What came of one server.

    Args:
        to: Its address, without secrets; None where it is not known.
        runs: That got something.
        rows: That were sent.
        pending: Journals that are not all there yet.
        pending_rows: Rows of theirs.
        error: Why something is pending.
    """

    to: str | None
    runs: int = 0
    rows: int = 0
    pending: int = 0
    pending_rows: int = 0
    error: str | None = None


@dataclass
class Shipments:
    """What came of a store.

    Args:
        all: One for each server, and for each folder whose server is not known.
        notes: What there is to say of it first.
    """

    all: list[Shipment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Journals that are not all where they belong."""
        return self._sum_of("pending")

    def _sum_of(self, name: str) -> int:
        return sum(getattr(each, name) for each in self.all)

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        sums = {name: self._sum_of(name) for name in ("runs", "rows", "pending", "pending_rows")}
        return {**sums, "destinations": [asdict(each) for each in self.all]}

    def lines(self) -> list[str]:
        """For a person."""
        found = list(self.notes)
        for each in self.all:
            sent = f"shipped {_count_noun(each.runs, 'run')}, {_count_noun(each.rows, 'row')}"
            if each.to is None:
                found.append(f"{_count_noun(each.pending_rows, 'row')} pending: {each.error}")
            elif each.pending:
                pending = _count_noun(each.pending_rows, "row")
                found.append(f"{sent} to {each.to}, {pending} pending: {each.error}")
            else:
                found.append(f"{sent} to {each.to}, 0 pending")
        return found or ["shipped 0 runs, 0 rows, 0 pending"]


def _count_noun(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def sync_store(
    store: Path,
    uri: str,
    *,
    only: str | None,
    typed: bool,
) -> Shipments:
    """Send what is pending.

    Args:
        store: The store.
        uri: What the config says: for journals of which nobody noted where they go.
        only: The name of a study or of a run's folder.
        typed: Whether `uri` was given for just this; then everything goes there.

    Raises:
        ConfigError: There is nothing of that name.
    """
    store = store.resolve()
    learn(uri)
    folders = _group_by_folder(store)
    if only is not None:
        folders = _select_folder(folders, only, store)
    found = Shipments()
    journals_by_address: dict[str, set[Path]] = {}
    for folder, journals in folders.items():
        address = uri
        try:
            address = uri_of(
                store,
                folder,
                journals,
                [uri],
                server_id,
            )
        except UnknownDestinationError as error:
            if not typed:
                if _is_worth_a_word(store, journals, error):
                    found.all.append(
                        _pending_shipment(
                            store,
                            folder,
                            journals,
                            error,
                        )
                    )
                continue
            if isinstance(error, UnlistedDestinationError):
                address = error.address
        if typed and address != uri:
            found.notes.append(_note_detour(folder, address, uri))
        journals_by_address.setdefault(uri if typed else address, set()).update(journals)
    for address, going in journals_by_address.items():
        found.all.append(_ship_to(store, address, going))
    return found


def _note_detour(folder: Path, noted: str, uri: str) -> str:
    """The line that says that a folder's journals go elsewhere than usual."""
    shown = mask_text(without_secrets(noted))
    return f"note: {folder.name} ships to {shown}; this once it goes to {without_secrets(uri)}"


def _group_by_folder(store: Path) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for journal in sorted(discover(store)):
        found.setdefault(folder_of(store, journal), []).append(journal)
    return found


def _select_folder(
    folders: dict[Path, list[Path]],
    name: str,
    store: Path,
) -> dict[Path, list[Path]]:
    found = {folder: journals for folder, journals in folders.items() if folder.name == name}
    if not found:
        hint = did_you_mean(name, [folder.name for folder in folders])
        raise ConfigError(
            name,
            f"there is no journal of a study or run of this name in {store}",
            hint,
        )
    return found


def _pending_shipment(
    store: Path,
    folder: Path,
    journals: Iterable[Path],
    error: UnknownDestinationError,
) -> Shipment:
    known = set(journals)
    rows = pending_rows(store, "", known.__contains__)
    words = f"{folder.name} {error}; dlsearch sync {folder.name} tracking.uri=… ships it"
    return Shipment(
        None,
        pending=len(known),
        pending_rows=rows,
        error=words,
    )


def _is_worth_a_word(
    store: Path,
    journals: Iterable[Path],
    error: UnknownDestinationError,
) -> bool:
    """Whether a folder whose journals are not sent is to be mentioned.

    One is not whose journals have all arrived, going by the notes beside them, at an address that
    is not opened.
    """
    if not isinstance(error, UnlistedDestinationError):
        return True
    return bool(
        backlog(
            store,
            server_id(error.address),
            set(journals).__contains__,
        )
    )


def _ship_to(store: Path, uri: str, journals: set[Path]) -> Shipment:
    from dlsearch.tracking.mlflow.shipper import send

    learn(uri)
    done = send(store, uri, journals.__contains__)
    error = None if done.error is None else mask_text(done.error)
    return Shipment(
        without_secrets(uri),
        done.runs,
        done.rows,
        done.pending,
        done.pending_rows,
        error,
    )
