"""Turning a journal's rows into MLflow's requests.

One of the few modules that import mlflow; only the shipper's process runs it.
"""

from __future__ import annotations

import importlib
import logging
import os
import stat
import tempfile
import time
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core import provenance
from dlsearch.core.files.inside import OutsideError, inside
from dlsearch.core.files.regular import open_regular
from dlsearch.core.masking import mask_file, mask_text
from dlsearch.tracking import journal, layout
from dlsearch.tracking.mlflow import database, shared
from dlsearch.tracking.mlflow.artifacts import Artifacts
from dlsearch.tracking.mlflow.batch import Batch, Request
from dlsearch.tracking.mlflow.model import ModelJob, ModelProcess
from dlsearch.tracking.tail import Tail, server_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from dlsearch.tracking.journal import Row

_log = logging.getLogger("dlsearch.shipper")

LOG = "shipper.log"
EXPERIMENT_KIND = "mlflow.experimentKind"
_REFUSED = {"INVALID_PARAMETER_VALUE", "INVALID_STATE"}
#: A value that the database does not take, but also a connection that the server lost in the middle
#: of something.
_MAYBE_REFUSED = "BAD_REQUEST"
_PATIENCE = 5
_ABSENT = "no description of the model lies beside its journal"
_OF_EARLIER = (
    "an earlier version described no model beside this journal; dlsearch export writes one"
)
_GONE = {"RESOURCE_DOES_NOT_EXIST"}
_ENVIRONMENT = {
    # By default mlflow holds its caller for four minutes; and it would repeat a request whose
    # answer was lost, so that a run was made twice and nobody knew.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # It would ask git about the folder of the program, which may be somebody else's; the commit is
    # asked for by us.
    "GIT_PYTHON_GIT_EXECUTABLE": "/nonexistent/git",
}


def load(uri: str) -> None:
    """Import mlflow (seconds), with what it imports when it connects to `uri`."""
    os.environ.update(_ENVIRONMENT)
    importlib.import_module("mlflow")
    if "sql" in uri.partition(":")[0]:
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


class Sender:
    """Turns rows into requests.

    Args:
        store: The store; artifacts go below it when `uri` is SQLite.
        uri: The tracking server or database.
        prefix: Put before every experiment's name.
        final: Nobody writes any more: a missing parent is not waited for.
    """

    def __init__(
        self,
        store: Path,
        uri: str,
        prefix: str = "",
        *,
        final: bool = False,
    ) -> None:
        """Import mlflow (seconds); nothing is sent, and no database made."""
        load(uri)
        # their notes on making the tables are not the user's business
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.store = store.resolve()
        self.uri = uri
        self.prefix = prefix
        self.final = final
        self.server = server_id(uri)
        self.models = ModelProcess(uri, self.store / LOG)
        self.artifacts = Artifacts(self.store, uri, lambda: self.client)
        self._experiments: dict[str, str] = {}
        self._context: dict[str, str] | None = None
        self._started_ms = time.time_ns() // 1_000_000
        # journals, and their keys, of whose run a second one may have been made
        self._unsure: dict[Path, str] = {}

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's; the first use makes the database."""
        from mlflow import MlflowClient

        database.check(self.uri)
        database.make(self.uri)
        return MlflowClient(tracking_uri=self.uri)

    # -- one journal
    def advance(self, tail: Tail) -> int:
        """Send what is new in a journal, as far as it goes; the number of rows sent.

        Raises:
            Exception: The server did not take it; try again later.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._send_rows(tail)
        except MlflowException as error:
            if self._code_of(error) not in _GONE or tail.run_id is None or self.exists(tail.run_id):
                raise
            _log.warning(
                "%s: run %s is gone from the server; it is made again",
                tail.path,
                tail.run_id,
            )
            self._experiments.clear()
            tail.reset()
            return 0

    def _send_rows(self, tail: Tail) -> int:
        sent = 0
        while True:
            size = tail.path.stat().st_size
            begin = tail.offset
            found, end = journal.read(tail.path, begin)
            batch = Batch()
            for row, after in found:
                if row["row"] == "open" and not journal.opens(row):
                    continue  # of no run that this version, or an earlier one, has opened
                if tail.run_id is None and row["row"] != "open":
                    _log.warning("%s: no run is open at the first row; left alone", tail.path)
                    tail.seen = size
                    return sent
                if row["row"] in ("params", "metrics", "tags"):
                    batch.add(row, after)
                    if batch.full:
                        sent += self._send_batch(tail, batch)
                        batch = Batch()
                    continue
                sent += self._send_batch(tail, batch)
                batch = Batch()
                if not self._send_row(tail, row):
                    return sent
                tail.commit(after)
                sent += 1
            sent += self._send_batch(tail, batch)
            tail.commit(end)
            if end == begin:
                tail.seen = size
                return sent

    def _send_row(self, tail: Tail, row: Row) -> bool:
        """Send one row of the other types; False when it has to wait."""
        kind = row["row"]
        if kind == "open":
            return self._open_run(tail, row)
        if kind == "model":
            try:
                return self._send_model(tail, row)
            except OutsideError as error:
                _log.warning("%s: model row left out: %s", tail.path, error)
                return True
        handlers: dict[str, Callable[[Tail, Row], None]] = {
            "artifact": self._send_artifact,
            "dataset": self._send_dataset,
            "status": self._send_status,
        }
        if kind in handlers:
            self._or_skip(
                tail,
                lambda: handlers[kind](tail, row),
                f"{kind} row",
            )
        return True

    def _or_skip(
        self,
        tail: Tail,
        send: Callable[[], object],
        what: str,
    ) -> None:
        """Call `send`; what the server refuses for good is left out, and nothing waits for it."""
        from mlflow.exceptions import MlflowException

        try:
            send()
        except (MlflowException, FileNotFoundError, PermissionError, OutsideError) as error:
            if isinstance(error, MlflowException) and not self._is_refused(tail, error):
                raise
            _log.warning(
                "%s: %s left out: %s",
                tail.path,
                what,
                str(error).splitlines()[0],
            )

    def _code_of(self, error: MlflowException) -> str | None:
        """The code of what MLflow itself said.

        None for the words of a proxy, or of a server that is dying.
        """
        from mlflow.exceptions import RestException

        if self.uri.startswith("http") and not isinstance(error, RestException):
            return None
        return str(error.error_code)

    def _is_refused(self, tail: Tail, error: MlflowException) -> bool:
        """Whether the same request would be refused again and again."""
        code = self._code_of(error)
        return code in _REFUSED or (code == _MAYBE_REFUSED and tail.failures >= _PATIENCE)

    # -- runs
    def _open_run(self, tail: Tail, row: Row) -> bool:
        if tail.run_id is not None:
            self._take_up_run(tail, row)
            return True
        experiment = self._find_experiment(self.prefix + row["experiment"])
        path = journal.parent_of(self.store, row)
        parent = None if path is None else self._find_parent_run(path, experiment, row)
        if path is not None and parent is None and self._awaits_parent(path):
            return False
        run = self._find_run(tail, experiment, row)
        if run is None:
            run = self._create_run(tail, experiment, row, parent)
        tail.run_id = run.info.run_id
        tail.experiment_id = experiment
        tail.kind = row["kind"]
        tail.creating = False
        return True

    def _take_up_run(self, tail: Tail, row: Row) -> None:
        """Go on with the run of a study that was resumed."""
        run_id = tail.run_id or ""
        if tail.ended:
            resume = partial(
                self.client.update_run,
                run_id,
                status=layout.RUNNING,
            )
            self._or_skip(tail, resume, "status")
            tail.ended = False
        if row["tags"]:
            self._set_tags(tail, row["tags"])

    def _find_parent_run(
        self,
        path: Path,
        experiment: str,
        row: Row,
    ) -> str | None:
        """The run above.

        Of a study whose journal another machine has, and ships, it is found by its tags.
        """
        known = Tail.load(path, self.server).run_id
        if known is not None or path.is_file():
            return known
        above = shared.of_study(self.client, experiment, "study", row)
        return None if above is None else above.info.run_id

    def _awaits_parent(self, path: Path) -> bool:
        """Whether a run above that is not there yet is waited for."""
        return path.is_file() or not (self.final or self.uri.startswith("sqlite:"))

    def _find_run(self, tail: Tail, experiment: str, row: Row) -> Any:
        """The run that the server has of this journal already; None where it has none."""
        run = None
        if tail.creating or row["started"] < self._started_ms:
            run = next(
                iter(shared.by_key(self.client, experiment, row["key"])),
                None,
            )
        if run is None and row["kind"] == "confirm":
            run = shared.of_study(self.client, experiment, "confirm", row)
        return run

    def _create_run(
        self,
        tail: Tail,
        experiment: str,
        row: Row,
        parent: str | None,
    ) -> Any:
        tail.creating = True
        tail.save()
        self._unsure[tail.path] = row["key"]
        run = self.client.create_run(
            experiment,
            start_time=row["started"],
            tags=self._make_tags(row, parent),
            run_name=row["name"],
        )
        if not tail.failures:
            del self._unsure[tail.path]
        return run

    def _make_tags(self, row: Row, parent: str | None) -> dict[str, str]:
        tags = dict(self._context_tags())
        tags[layout.SCHEMA] = layout.SCHEMA_VERSION
        tags |= row["tags"]
        tags[layout.KIND] = row["kind"]
        tags[layout.KEY] = row["key"]
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return {key: value[: layout.MAX_TAG] for key, value in tags.items()}

    def _context_tags(self) -> dict[str, str]:
        """User, source and git tags, which ``create_run`` does not add.

        Of the user's work, not of this process.
        """
        if self._context is None:
            from mlflow.tracking.context.registry import resolve_tags

            found: dict[str, str] = {}
            for key, value in resolve_tags().items():
                if not key.startswith("mlflow.source.git"):
                    found[key] = str(value)
            found["mlflow.source.name"] = "dlsearch"
            commit = provenance.git_state(Path.cwd())["commit"]
            if commit:
                found["mlflow.source.git.commit"] = commit
            self._context = {key: mask_text(value) for key, value in found.items()}
        return self._context

    def _remove_twins(self, tail: Tail) -> None:
        """Delete the second, empty run of a request that was given up and arrived nevertheless."""
        key = self._unsure.get(tail.path)
        if key is None or tail.experiment_id is None:
            return
        for run in shared.by_key(self.client, tail.experiment_id, key):
            if run.info.run_id != tail.run_id:
                _log.warning(
                    "%s: run %s was made twice; the second is deleted",
                    tail.path,
                    run.info.run_id,
                )
                self.client.delete_run(run.info.run_id)
        del self._unsure[tail.path]

    def exists(self, run_id: str) -> bool:
        """Whether the server has the run."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if self._code_of(error) in _GONE:
                return False
            raise
        return True

    def _find_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                local = self.uri.startswith("sqlite:")
                artifacts = (self.store / "artifacts").as_uri() if local else None
                try:
                    self._experiments[name] = self.client.create_experiment(
                        name, artifact_location=artifacts
                    )
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self.client.get_experiment_by_name(name)
                # without it the pages speak of agents, traces and judges
                if name in self._experiments:
                    self.client.set_experiment_tag(
                        self._experiments[name],
                        EXPERIMENT_KIND,
                        "custom_model_development",
                    )
                if local:
                    # a reader, the UI, does not stop the writer
                    database.tune(self.uri, "PRAGMA journal_mode=WAL")
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
            self.artifacts.adopt(self._experiments[name])
        return self._experiments[name]

    def _send_status(self, tail: Tail, row: Row) -> None:
        assert tail.run_id is not None
        if row["status"] in (layout.FINISHED, layout.KILLED, layout.FAILED):
            self.client.set_terminated(
                tail.run_id,
                row["status"],
                end_time=row["t"],
            )
        else:
            self.client.update_run(tail.run_id, status=row["status"])
        tail.ended = row["status"] != layout.RUNNING
        if tail.ended:
            self._remove_twins(tail)
        if tail.kind == "study":
            # Without statistics SQLite joins in the wrong order: the best of 10,000 runs takes
            # seconds to find.
            database.tune(self.uri, "ANALYZE")

    # -- rows
    def _send_batch(self, tail: Tail, batch: Batch) -> int:
        from mlflow.exceptions import MlflowException

        if not batch.rows:
            return 0
        assert tail.run_id is not None
        for where, value in batch.long.items():
            put = partial(self.artifacts.put_text, tail.run_id, value, where)
            self._or_skip(tail, put, where)
        run_id = tail.run_id
        for request in batch.requests():
            try:
                self._log_request(run_id, request)
            except MlflowException as error:
                if not self._is_refused(tail, error):
                    raise
                self._log_singly(tail, request)
        tail.commit(batch.offset)
        return batch.rows

    def _log_request(self, run_id: str, request: Request) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            run_id,
            metrics=[
                Metric(
                    each.key,
                    each.value,
                    each.at_ms,
                    each.step,
                )
                for each in request.metrics
            ],
            params=[Param(*item) for item in request.params.items()],
            tags=[RunTag(*item) for item in request.tags.items()],
            synchronous=True,
        )

    def _log_singly(self, tail: Tail, request: Request) -> None:
        """One by one, so that what is refused (a param that changed, say) costs only itself."""
        singles: list[tuple[str, Request]] = []
        for key, value in request.params.items():
            singles.append((f"param {key}", Request(params={key: value})))
        for key, value in request.tags.items():
            singles.append((f"tag {key}", Request(tags={key: value})))
        singles += [(f"metric {each.key}", Request(metrics=[each])) for each in request.metrics]
        run_id = tail.run_id or ""
        for what, single in singles:
            self._or_skip(
                tail,
                partial(self._log_request, run_id, single),
                what,
            )

    def _send_dataset(self, tail: Tail, row: Row) -> None:
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": row["source"]})
        digest = layout.dataset_digest(row["digest"])
        dataset = Dataset(row["name"], digest, "local", source)
        context = InputTag("mlflow.data.context", row["context"])
        self.client.log_inputs(tail.run_id or "", [DatasetInput(dataset, [context])])

    def _send_artifact(self, tail: Tail, row: Row) -> None:
        # what is no text is refused by `inside`
        named = os.path.join(tail.path.parent, row["file"])  # noqa: PTH118
        path = inside(self.store, named)
        if not path.is_dir():
            self._send_file(tail, path, row["to"])
            return
        for file in sorted(_list_files(path)):
            below = file.parent.relative_to(path)
            target = Path(row["to"], path.name, below)
            self._send_file(tail, file, str(target))

    def _send_file(
        self,
        tail: Tail,
        path: Path,
        to: str,
    ) -> None:
        # what cannot be read is left out; what cannot be written is tried again
        with open_regular(path) as file:
            file.read(1)
        target = None if to in ("", ".") else Path(to).as_posix()
        clean = mask_file(path)
        if clean is not None:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, path.name)
                copy.write_text(
                    clean,
                    encoding="utf-8",
                    errors="surrogateescape",
                )
                self.artifacts.put(tail.run_id or "", copy, target)
            return
        self.artifacts.put(tail.run_id or "", path, target)

    def _send_model(self, tail: Tail, row: Row) -> bool:
        if "checkpoint" in row:
            # Earlier versions named what would have to be built, and a journal may be anybody's.
            self._set_tags(tail, {layout.MODEL_ERROR: _OF_EARLIER})
            return True
        if tail.job is None:
            try:
                folder = inside(self.store, tail.path.parent / layout.MODEL_FOLDER)
            except OutsideError:
                self._set_tags(tail, {layout.MODEL_ERROR: _ABSENT})
                return True
            job = ModelJob(
                run_id=tail.run_id or "",
                experiment_id=tail.experiment_id or "",
                folder=str(folder),
                name=row["name"],
                metrics=row["metrics"],
                t=row["t"],
            )
            tail.job = self.models.submit(job)
        answer = self.models.answer(tail.job)
        if answer is None:
            return False
        if answer.retry:
            tail.job = None
            raise ConnectionError(answer.error)
        if answer.model_id is not None:
            self._set_tags(tail, {layout.MODEL_ID: answer.model_id})
        else:
            error = answer.error or ""
            _log.warning(
                "%s: the model could not be logged: %s",
                tail.path,
                error,
            )
            self._set_tags(tail, {layout.MODEL_ERROR: error})
        tail.job = None
        return True

    def _set_tags(self, tail: Tail, tags: dict[str, str]) -> None:
        batch = Batch()
        batch.add({"row": "tags", "values": tags}, tail.offset)
        self._send_batch(tail, batch)


def _list_files(folder: Path) -> Iterator[Path]:
    """The plain files in a folder and below it; no link is followed."""
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path
