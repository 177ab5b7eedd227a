"""Where the files of a run go: to the server, or below the store.

Where MLflow is a database file, they go below the store and nowhere else.

MLflow keeps an absolute place with each experiment and each run, and would write wherever its
database says. Of a store that was moved that is where it lay before; of one that somebody else made
it may be anywhere. One of the few modules that import mlflow.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import url2pathname

from dlsearch.core.files.inside import OutsideError, check_database, check_schema, inside, is_inside
from dlsearch.core.files.regular import write_text
from dlsearch.tracking.mlflow import database

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

_log = logging.getLogger("dlsearch.shipper")
_RUN = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True)
class _Place:
    """Where MLflow's server looks for files.

    Args:
        table: The table.
        column: The column that holds the place.
        name: The column that names a row.
        where: Which rows.
    """

    table: str
    column: str
    name: str
    where: str = ""


_PLACES = (
    _Place("runs", "artifact_uri", "run_uuid"),
    _Place("logged_models", "artifact_location", "model_id"),
    _Place("model_versions", "source", "name"),
    _Place("model_versions", "storage_location", "name"),
    _Place(
        "trace_tags",
        "value",
        "request_id",
        "WHERE key = 'mlflow.artifactLocation'",
    ),
    _Place("webhooks", "url", "name"),
)
_REFERENCES = ("models:/", "runs:/")


def check_places(store: Path, uri: str) -> None:
    """Look where a database in the store has the files that MLflow's pages would show.

    After a move they moved along.

    Raises:
        OutsideError: They are neither in the store nor where they lay before it was moved.
    """
    file = database.path_of(uri)
    if file is None or not file.is_file() or not is_inside(store, file.absolute()):
        return
    check_database(file)
    with closing(sqlite3.connect(file, timeout=30.0)) as opened:
        check_schema(opened, triggers=False)
        for place in _PLACES:
            for key, location in _read_places(opened, place):
                if not _is_in_place(store, location):
                    moved = _find_moved(store, location, str(key))
                    if moved is None:
                        raise _outside(file, uri, str(key), location)
                    change = f"UPDATE {place.table} SET {place.column} = ? WHERE {place.name} = ?"
                    opened.execute(change, [moved.as_uri(), key])
        opened.commit()


def _read_places(opened: sqlite3.Connection, place: _Place) -> list[tuple[Any, str]]:
    """The name of each row, and where its files lie.

    None where this version of MLflow has no such table.
    """
    question = f"SELECT {place.name}, {place.column} FROM {place.table} {place.where}"
    try:
        rows = opened.execute(question).fetchall()
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            return []
        raise
    return [(key, str(location)) for key, location in rows if location]


def _is_in_place(store: Path, location: str) -> bool:
    return location.startswith(_REFERENCES) or _find_local(store, location) is not None


def _outside(
    file: Path,
    uri: str,
    key: str,
    location: str,
) -> OutsideError:
    shown = f"{file} has the files of {_make_printable(key)} in {_make_printable(location)}"
    hint = f"tracking.uri={uri}, typed, shows it as it is"
    return OutsideError("paths.store", f"{shown}, outside of the store", hint)


def _find_moved(store: Path, location: str, key: str) -> Path | None:
    """Where files lie now, if a store that lay elsewhere had them at `location`."""
    for below in (f"artifacts/{key}/artifacts", f"artifacts/models/{key}/artifacts"):
        if (
            _RUN.fullmatch(key)
            and location.endswith(f"/{below}")
            and location.startswith(("file:///", "/"))
        ):
            return inside(store, below)
    return None


class Artifacts:
    """Puts files into runs.

    Args:
        store: The store, absolute.
        uri: The tracking server or database.
        client: Gives MLflow's client.
    """

    def __init__(
        self,
        store: Path,
        uri: str,
        client: Callable[[], MlflowClient],
    ) -> None:
        """Look at nothing yet."""
        self.store = store
        self.uri = uri
        self._client = client
        #: The database's file; None where a server knows where its files lie.
        self._file = database.path_of(uri) if uri.startswith("sqlite:") else None
        self._is_local = uri.startswith("sqlite:")
        self._said: set[str] = set()

    def put(
        self,
        run_id: str,
        path: Path,
        target: str | None,
    ) -> None:
        """Put a file into a run.

        Args:
            run_id: The run.
            path: The file.
            target: The folder in the run's artifacts; None for the uppermost.

        Raises:
            OutsideError: The run's artifacts, or the folder among them, lie outside of the store.
        """
        if not self._is_local:
            self._client().log_artifact(run_id, str(path), target)
            return
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        folder = self._find_folder(run_id)
        # a database of the user's, who keeps the files of this experiment on a server
        if folder is None:
            self._client().log_artifact(run_id, str(path), target)
            return
        file = inside(self.store, folder / (target or "") / path.name)
        if not file.is_relative_to(folder):
            raise OutsideError("artifact", f"{file} lies outside of the run's artifacts")
        repository = LocalArtifactRepository(folder.as_uri())
        repository.log_artifact(str(path), target)  # type: ignore[no-untyped-call]

    def put_text(
        self,
        run_id: str,
        text: str,
        target: str,
    ) -> None:
        """Put a text into a run under the name `target`.

        Raises:
            OutsideError: As :meth:`put`.
        """
        where = Path(target)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, where.name)
            write_text(copy, text, errors="surrogateescape")
            self.put(
                run_id,
                copy,
                None if where.parent == Path() else where.parent.as_posix(),
            )

    def adopt(self, experiment_id: str) -> None:
        """Have the new runs and models of an experiment put their files below the store.

        That is so only where the database lies in the store as well.

        Raises:
            OutsideError: They would go elsewhere all the same.
        """
        if self._file is None or not is_inside(self.store, self._file.absolute()):
            return
        location = self._client().get_experiment(experiment_id).artifact_location
        if _find_local(self.store, location) is None:
            wanted = (self.store / "artifacts").as_uri()
            self._update_row(
                "experiments SET artifact_location = ? WHERE experiment_id = ?",
                wanted,
                experiment_id,
            )
            self._warn_once(f"experiment {experiment_id}", location, wanted)
            if (
                _find_local(
                    self.store, self._client().get_experiment(experiment_id).artifact_location
                )
                is None
            ):
                raise OutsideError(
                    "artifact", f"the files of experiment {experiment_id} lie outside of the store"
                )

    def _find_folder(self, run_id: str) -> Path | None:
        """Where the files of a run lie; None where a database of the user's has them on a server.

        Raises:
            OutsideError: Outside of the store, and they cannot be had to lie in it.
        """
        info = self._client().get_run(run_id).info
        found = _find_local(self.store, info.artifact_uri)
        if found is not None:
            return found
        own = self._file is not None and is_inside(self.store, self._file.absolute())
        if (
            not own
            and "://" in info.artifact_uri
            and not info.artifact_uri.lower().startswith("file:")
        ):
            return None
        if not _RUN.fullmatch(run_id):
            raise OutsideError("artifact", "the run's id is none of MLflow's")
        wanted = inside(self.store, f"artifacts/{run_id}/artifacts")
        self._update_row(
            "runs SET artifact_uri = ? WHERE run_uuid = ?",
            wanted.as_uri(),
            run_id,
        )
        self._warn_once(
            f"experiment {info.experiment_id}",
            info.artifact_uri,
            (self.store / "artifacts").as_uri(),
        )
        found = _find_local(self.store, self._client().get_run(run_id).info.artifact_uri)
        if found is None:
            raise OutsideError("artifact", f"the files of run {run_id} lie outside of the store")
        return found

    def _update_row(self, change: str, *values: str) -> None:
        if self._file is None:
            return
        with closing(sqlite3.connect(self._file, timeout=30.0)) as opened:
            opened.execute(f"UPDATE {change}", values)
            opened.commit()

    def _warn_once(
        self,
        whose: str,
        before: str,
        now: str,
    ) -> None:
        if whose not in self._said:
            self._said.add(whose)
            shown = _make_printable(before)
            _log.warning(
                "%s kept its files in %s; those of this store lie below %s from now on",
                whose,
                shown,
                now,
            )


def _make_printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:200])


def _find_local(store: Path, location: str | None) -> Path | None:
    """The folder in the store that a location of MLflow's names.

    None where it names anything else.
    """
    if not location or (":" in location.partition("/")[0] and not location.startswith("file:///")):
        return None
    path = url2pathname(location.removeprefix("file://"))  # as MLflow reads it
    if not path.startswith("/") or "?" in location or "#" in location or not is_inside(store, path):
        return None
    return inside(store, path)
