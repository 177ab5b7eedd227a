"""Where the journals of a study, or of a run, are shipped: remembered beside them.

Imports no mlflow.

The file holds no secrets: a server's address without its user and password. Those come from the
environment, or from the command line, again. What earlier versions wrote has the address in the
``config.yaml`` beside the journals.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsearch.core.bounded import load_plain_yaml
from dlsearch.core.files.durable import write_durably
from dlsearch.core.files.inside import is_inside
from dlsearch.core.files.regular import read_json
from dlsearch.core.files.sqlite_url import PREFIX, sqlite_file, sqlite_url
from dlsearch.core.masking import MASK, mask_text
from dlsearch.tracking.journal import shipped_path

FILE = "tracking.json"
_MAX_NOTE = 100_000
#: Environment variables from which MLflow itself takes credentials, and whole addresses.
MLFLOW_CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")
MLFLOW_ADDRESS = "MLFLOW_TRACKING_URI"
_HARMLESS = ("sslmode", "connect_timeout", "charset", "application_name")
_USER_INFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*://)[^/?#]*@")


@dataclass(frozen=True)
class Destination:
    """Where a folder's journals are shipped.

    Args:
        address: The server's URI without secrets.
        has_credentials: Whether the URI had any, which are not kept.
    """

    address: str
    has_credentials: bool = False

    def matches(self, uri: str) -> bool:
        """Whether `uri`, with or without credentials, is this server's."""
        return without_secrets(uri) == self.address


def own_database(store: Path) -> str:
    """MLflow's database in the store, which stands for no address at all."""
    return sqlite_url(store.resolve() / "mlflow.db")


def without_secrets(uri: str) -> str:
    """A URI without its user and password, and without a query that holds a token or the like."""
    bare = _USER_INFO.sub(r"\1", uri)
    return bare if mask_text(bare) == bare else bare.partition("?")[0]


def folder_of(store: Path, journal: Path) -> Path:
    """The folder of the study, or of the run, that a journal belongs to."""
    parts = journal.relative_to(store).parts
    return store.joinpath(*parts[:2]) if len(parts) > 2 else journal.parent


def remember(store: Path, folder: Path, uri: str) -> None:
    """Note that the journals in `folder` are shipped to `uri`.

    Raises:
        OSError: The disk is full, or the like.
    """
    own = uri == own_database(store)
    address = None if own else without_secrets(uri)
    note = {"uri": address, "credentials": not own and address != uri}
    path = folder / FILE
    with suppress(OSError, ValueError):
        if read_json(path, _MAX_NOTE) == note:
            return
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps(note))


def recall(store: Path, folder: Path) -> Destination | None:
    """Where the journals in `folder` are shipped; None where nobody noted it."""
    found: Any = None
    try:
        found = read_json(folder / FILE, _MAX_NOTE)
    except FileNotFoundError:
        return _of_config(store, folder)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping) or not isinstance(found.get("uri", False), str | None):
        return None
    if found["uri"] is None:
        return Destination(own_database(store))
    return Destination(found["uri"], bool(found.get("credentials")))


def _of_config(store: Path, folder: Path) -> Destination | None:
    """What the config says that earlier versions wrote beside the journals."""
    try:
        config = load_plain_yaml(folder / "config.yaml")
        uri = config["tracking"]["uri"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if uri is None:
        return Destination(own_database(store))
    if not isinstance(uri, str) or "${" in uri:
        return None
    return Destination(without_secrets(uri), MASK in uri or without_secrets(uri) != uri)


class Routes:
    """Which journals of a store go to one server.

    Those that are shipped there, and those of which nobody noted where they go.

    Args:
        store: The store.
        uri: The server.
    """

    def __init__(self, store: Path, uri: str) -> None:
        """Read nothing yet."""
        self._store = store.resolve()
        self._uri = uri
        self._known: dict[Path, bool] = {}

    def __call__(self, journal: Path) -> bool:
        """Whether the journal goes there."""
        folder = folder_of(self._store, journal.resolve())
        if folder not in self._known:
            found = recall(self._store, folder)
            self._known[folder] = found is None or found.matches(self._uri)
        return self._known[folder]


class UnknownDestinationError(Exception):
    """It is not known where a folder's journals go, or how to get in there."""


class UnlistedDestinationError(UnknownDestinationError):
    """The noted address is a file outside the store, or none that is opened at the word of a store.

    Args:
        address: As noted.
    """

    def __init__(self, address: str) -> None:
        """Say why."""
        self.address = address
        shown = "".join(each if each.isprintable() else "?" for each in address[:200])
        super().__init__(
            f"is noted to ship to {shown}, "
            "which lies outside of the store and is opened only when named"
        )


def is_allowed(store: Path, address: str) -> bool:
    """Whether an address that a store notes may be opened.

    It may be a server's, or that of a database file in the store.

    Somebody else may have written the note: what is made, or written to, because of it lies in
    the store.
    """
    if address.startswith(PREFIX):
        path = sqlite_file(address)
        is_plain = path is not None and path.is_absolute() and "?" not in address
        return is_plain and is_inside(store.resolve(), str(path))
    scheme, _, rest = address.partition("://")
    if not rest:
        return False
    if scheme in ("http", "https"):
        return True
    is_database = scheme.partition("+")[0] in ("postgresql", "mysql", "mssql")
    return is_database and _has_harmless_query(rest)


def _has_harmless_query(rest: str) -> bool:
    """Whether the query of an address, if it has one, holds nothing but harmless settings."""
    if "?" not in rest:
        return True
    settings = rest.partition("?")[2].split("&")
    return all(setting.partition("=")[0] in _HARMLESS for setting in settings)


def uri_of(
    store: Path,
    folder: Path,
    journals: Iterable[Path],
    candidates: Iterable[str],
    server: Callable[[str], str],
) -> str:
    """The URI, with credentials where they are needed, that a folder's journals are shipped to.

    Args:
        store: The store.
        folder: Of a study or of a run.
        journals: Its journals.
        candidates: URIs that may have the credentials; the first is used where nobody noted
            anything.
        server: :func:`~dlsearch.tracking.tail.server_id`.

    Raises:
        UnknownDestinationError: As above.
    """
    given = [*candidates, *filter(None, [os.environ.get(MLFLOW_ADDRESS)])]
    found = recall(store, folder)
    if found is not None and not any(found.matches(uri) for uri in given):
        _check_unnamed(store, found)
    is_noted = (folder / FILE).is_file()
    if found is None or (not is_noted and found.address == own_database(store)):
        uri = given[0] if found is None else found.address
        if _was_shipped_elsewhere(journals, server(uri)):
            raise UnknownDestinationError(
                "was shipped to another server before, and nobody noted which"
            )
        return uri
    return _with_credentials(found, given) if found.has_credentials else found.address


def _check_unnamed(store: Path, found: Destination) -> None:
    """Check an address that nobody but the store names.

    Raises:
        UnknownDestinationError: It is not opened at the store's word, or would be sent credentials.
    """
    if not is_allowed(store, found.address):
        raise UnlistedDestinationError(found.address)
    if _is_asked_with_credentials(found):
        raise UnknownDestinationError(
            f"is noted to ship to {found.address}, "
            "and credentials of the environment are sent nowhere at its word; "
            f"{MLFLOW_ADDRESS} names their server"
        )


def _with_credentials(found: Destination, given: Iterable[str]) -> str:
    """The address of a server that asks for a user and a password, with what is known of them.

    Raises:
        UnknownDestinationError: Nothing is.
    """
    for uri in given:
        if found.matches(uri) and uri != found.address:
            return uri
    # of this server: it is among those that are given
    if any(os.environ.get(name) for name in MLFLOW_CREDENTIALS):
        return found.address
    raise UnknownDestinationError(
        f"is shipped to {found.address}, whose user and password are not kept"
    )


def _is_asked_with_credentials(found: Destination) -> bool:
    """Whether MLflow would send what the environment holds to the noted server."""
    is_server = found.address.startswith(("http://", "https://"))
    return is_server and any(os.environ.get(name) for name in MLFLOW_CREDENTIALS)


def where_to_ship(
    store: Path,
    folder: Path,
    uri: str,
    *,
    typed: bool,
) -> str:
    """The URI that new journals in a folder go to, which is noted.

    What was typed now comes first, then what was noted, then `uri`.

    Args:
        store: The store.
        folder: Of a study or of a run.
        uri: What the config says.
        typed: Whether somebody gave it for just this.

    Raises:
        UnknownDestinationError: The noted server's credentials are not known.
        OSError: The disk is full, or the like.
    """
    if not typed and (folder / FILE).is_file():
        return uri_of(
            store,
            folder,
            [],
            [uri],
            lambda _: "",
        )
    remember(store, folder, uri)
    return uri


def _was_shipped_elsewhere(journals: Iterable[Path], server: str) -> bool:
    for journal in journals:
        with suppress(OSError, ValueError):
            notes = read_json(shipped_path(journal), _MAX_NOTE)
            if isinstance(notes, Mapping) and notes.get("server", server) != server:
                return True
    return False
