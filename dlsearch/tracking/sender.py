"""Turning a journal's rows into MLflow's requests: experiments, runs, batches, files, data sets, models.

One of the few modules that import mlflow; only the shipper's process runs it.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.tracking import database, journal, layout, provenance, shared
from dlsearch.tracking.batch import Batch, Request
from dlsearch.tracking.masking import mask_file, mask_text
from dlsearch.tracking.model import ModelProcess
from dlsearch.tracking.tail import Tail, server_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

_log = logging.getLogger("dlsearch.shipper")

LOG = "shipper.log"
EXPERIMENT_KIND = "mlflow.experimentKind"
_REFUSED = {"INVALID_PARAMETER_VALUE", "INVALID_STATE"}
#: A value that the database does not take, but also a connection that the server lost in the middle of something.
_MAYBE_REFUSED, _PATIENCE = "BAD_REQUEST", 5
_GONE = {"RESOURCE_DOES_NOT_EXIST"}
_ENVIRONMENT = {
    # By default mlflow holds its caller for four minutes; and it would repeat a request whose answer was lost, so that
    # a run was made twice and nobody knew.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
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

    def __init__(self, store: Path, uri: str, prefix: str = "", *, final: bool = False) -> None:
        """Import mlflow (seconds); nothing is sent, and no database made."""
        load(uri)
        for name in ("mlflow", "alembic"):  # their notes on making the tables are not the user's business
            logging.getLogger(name).setLevel(logging.WARNING)
        self.store, self.uri, self.prefix, self.final = store.resolve(), uri, prefix, final
        self.server = server_id(uri)
        self.models = ModelProcess(uri, self.store / LOG)
        self._experiments: dict[str, str] = {}
        self._context: dict[str, str] | None = None
        self._started_ms = time.time_ns() // 1_000_000
        self._unsure: dict[Path, str] = {}  # journals, and their keys, of whose run a second one may have been made

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's; the first use makes the database."""
        from mlflow import MlflowClient

        database.make(self.uri)
        return MlflowClient(tracking_uri=self.uri)

    # -- one journal ----------------------------------------------------------------------------------------------
    def advance(self, tail: Tail) -> int:
        """Send what is new in a journal, as far as it goes; the number of rows sent.

        Raises:
            Exception: The server did not take it; try again later.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._advance(tail)
        except MlflowException as error:
            if self._said(error) not in _GONE or tail.run_id is None or self.exists(tail.run_id):
                raise
            _log.warning("%s: run %s is gone from the server; it is made again", tail.path, tail.run_id)
            self._experiments.clear()
            tail.reset()
            return 0

    def _advance(self, tail: Tail) -> int:
        sent = 0
        while True:
            size, begin = tail.path.stat().st_size, tail.offset
            found, end = journal.read(tail.path, begin)
            batch = Batch()
            for row, after in found:
                if tail.run_id is None and row["row"] != "open":
                    _log.warning("%s: no run is open at the first row; left alone", tail.path)
                    tail.seen = size
                    return sent
                if row["row"] in ("params", "metrics", "tags"):
                    batch.add(row, after)
                    if batch.full:
                        sent += self._send(tail, batch)
                        batch = Batch()
                    continue
                sent += self._send(tail, batch)
                batch = Batch()
                if not self._handle(tail, row):
                    return sent
                tail.commit(after)
                sent += 1
            sent += self._send(tail, batch)
            tail.commit(end)
            if end == begin:
                tail.seen = size
                return sent

    def _handle(self, tail: Tail, row: dict[str, Any]) -> bool:
        """Send one row of the other types; False when it has to wait."""
        kind = row["row"]
        if kind == "open":
            return self._open(tail, row)
        if kind == "model":
            return self._model(tail, row)
        handlers: dict[str, Callable[[Tail, dict[str, Any]], None]] = {
            "artifact": self._artifact,
            "dataset": self._dataset,
            "status": self._status,
        }
        if kind in handlers:
            self._or_skip(tail, lambda: handlers[kind](tail, row), f"{kind} row")
        return True

    def _or_skip(self, tail: Tail, send: Callable[[], object], what: str) -> None:
        """Call `send`; what the server refuses for good is noted and left out, so that nothing behind it waits."""
        from mlflow.exceptions import MlflowException

        try:
            send()
        except (MlflowException, FileNotFoundError, PermissionError) as error:
            if isinstance(error, MlflowException) and not self._refuses(tail, error):
                raise
            _log.warning("%s: %s left out: %s", tail.path, what, str(error).splitlines()[0])

    def _said(self, error: MlflowException) -> str | None:
        """The code of what MLflow itself said; None for the words of a proxy, or of a server that is dying."""
        from mlflow.exceptions import RestException

        if self.uri.startswith("http") and not isinstance(error, RestException):
            return None
        return str(error.error_code)

    def _refuses(self, tail: Tail, error: MlflowException) -> bool:
        """Whether the same request would be refused again and again."""
        code = self._said(error)
        return code in _REFUSED or (code == _MAYBE_REFUSED and tail.failures >= _PATIENCE)

    # -- runs -----------------------------------------------------------------------------------------------------
    def _open(self, tail: Tail, row: dict[str, Any]) -> bool:
        if tail.run_id is not None:  # a resumed study
            if tail.ended:
                run_id = tail.run_id
                self._or_skip(tail, lambda: self.client.update_run(run_id, status=layout.RUNNING), "status")
                tail.ended = False
            if row["tags"]:
                batch = Batch()
                batch.add({"row": "tags", "values": row["tags"]}, tail.offset)
                self._send(tail, batch)
            return True
        parent, experiment = None, self._experiment(self.prefix + row["experiment"])
        if row["parent"]:
            path = self.store / row["parent"]
            parent = Tail.load(path, self.server).run_id
            if parent is None:  # another machine has the study's journal, and ships it
                above = None if path.is_file() else shared.of_study(self.client, experiment, "study", row)
                if above is None and (path.is_file() or not (self.final or self.uri.startswith("sqlite:"))):
                    return False
                parent = None if above is None else above.info.run_id
        known = tail.creating or row["started"] < self._started_ms
        run = next(iter(shared.by_key(self.client, experiment, row["key"])), None) if known else None
        if run is None and row["kind"] == "confirm":
            run = shared.of_study(self.client, experiment, "confirm", row)
        if run is None:
            tail.creating = True
            tail.save()
            self._unsure[tail.path] = row["key"]
            run = self.client.create_run(
                experiment, start_time=row["started"], tags=self._tags(row, parent), run_name=row["name"]
            )
            if not tail.failures:
                del self._unsure[tail.path]
        tail.run_id, tail.experiment_id = run.info.run_id, experiment
        tail.kind, tail.creating = row["kind"], False
        return True

    def _tags(self, row: dict[str, Any], parent: str | None) -> dict[str, str]:
        tags = {**self._context_tags(), layout.SCHEMA: layout.SCHEMA_VERSION, **row["tags"]}
        tags |= {layout.KIND: row["kind"], layout.KEY: row["key"]}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return {key: value[: layout.MAX_TAG] for key, value in tags.items()}

    def _context_tags(self) -> dict[str, str]:
        """User, source and git tags, which ``create_run`` does not add; of the user's work, not of this process."""
        if self._context is None:
            from mlflow.tracking.context.registry import resolve_tags

            found = {
                key: str(value) for key, value in resolve_tags().items() if not key.startswith("mlflow.source.git")
            }
            commit = provenance.git_state(Path.cwd())["commit"]
            found |= {"mlflow.source.name": "dlsearch", **({"mlflow.source.git.commit": commit} if commit else {})}
            self._context = {key: mask_text(value) for key, value in found.items()}
        return self._context

    def _remove_twins(self, tail: Tail) -> None:
        """Delete what a request left behind that was given up, and arrived nevertheless: a second, empty run."""
        key = self._unsure.get(tail.path)
        if key is None or tail.experiment_id is None:
            return
        for run in shared.by_key(self.client, tail.experiment_id, key):
            if run.info.run_id != tail.run_id:
                _log.warning("%s: run %s was made twice; the second is deleted", tail.path, run.info.run_id)
                self.client.delete_run(run.info.run_id)
        del self._unsure[tail.path]

    def exists(self, run_id: str) -> bool:
        """Whether the server has the run."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(run_id)
        except MlflowException as error:
            if self._said(error) in _GONE:
                return False
            raise
        return True

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                local = self.uri.startswith("sqlite:")
                artifacts = (self.store / "artifacts").as_uri() if local else None
                try:
                    self._experiments[name] = self.client.create_experiment(name, artifact_location=artifacts)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    found = self.client.get_experiment_by_name(name)
                if name in self._experiments:  # without it the pages speak of agents, traces and judges
                    self.client.set_experiment_tag(self._experiments[name], EXPERIMENT_KIND, "custom_model_development")
                if local:
                    database.tune(self.uri, "PRAGMA journal_mode=WAL")  # a reader, the UI, does not stop the writer
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _status(self, tail: Tail, row: dict[str, Any]) -> None:
        assert tail.run_id is not None
        if row["status"] in (layout.FINISHED, layout.KILLED, layout.FAILED):
            self.client.set_terminated(tail.run_id, row["status"], end_time=row["t"])
        else:
            self.client.update_run(tail.run_id, status=row["status"])
        tail.ended = row["status"] != layout.RUNNING
        if tail.ended:
            self._remove_twins(tail)
        if tail.kind == "study":
            # Without statistics SQLite joins in the wrong order: the best of 10,000 runs takes seconds to find.
            database.tune(self.uri, "ANALYZE")

    # -- rows -----------------------------------------------------------------------------------------------------
    def _send(self, tail: Tail, batch: Batch) -> int:
        from mlflow.exceptions import MlflowException

        if not batch.rows:
            return 0
        assert tail.run_id is not None
        for where, value in batch.long.items():
            self.client.log_text(tail.run_id, value, where)
        for request in batch.requests():
            try:
                self._log(tail.run_id, request)
            except MlflowException as error:
                if not self._refuses(tail, error):
                    raise
                self._log_singly(tail, request)
        tail.commit(batch.offset)
        return batch.rows

    def _log(self, run_id: str, request: Request) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            run_id,
            metrics=[Metric(*metric) for metric in request.metrics],
            params=[Param(*item) for item in request.params.items()],
            tags=[RunTag(*item) for item in request.tags.items()],
            synchronous=True,
        )

    def _log_singly(self, tail: Tail, request: Request) -> None:
        """One by one, so that what is refused (a param that changed, say) costs only itself."""
        singles = [(f"param {key}", Request(params={key: value})) for key, value in request.params.items()]
        singles += [(f"tag {key}", Request(tags={key: value})) for key, value in request.tags.items()]
        singles += [(f"metric {metric[0]}", Request(metrics=[metric])) for metric in request.metrics]
        run_id = tail.run_id or ""
        for what, single in singles:
            self._or_skip(tail, lambda single=single: self._log(run_id, single), what)  # type: ignore[misc]

    def _dataset(self, tail: Tail, row: dict[str, Any]) -> None:
        import json

        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": row["source"]})
        dataset = Dataset(row["name"], layout.dataset_digest(row["digest"]), "local", source)
        self.client.log_inputs(
            tail.run_id or "", [DatasetInput(dataset, [InputTag("mlflow.data.context", row["context"])])]
        )

    def _artifact(self, tail: Tail, row: dict[str, Any]) -> None:
        path = tail.path.parent / row["file"]
        if path.is_dir():
            for file in sorted(each for each in path.rglob("*") if each.is_file()):
                self._file(tail, file, str(Path(row["to"], path.name, file.parent.relative_to(path))))
        else:
            self._file(tail, path, row["to"])

    def _file(self, tail: Tail, path: Path, to: str) -> None:
        with path.open("rb") as file:  # what cannot be read is left out; what cannot be written is tried again
            file.read(1)
        target = None if to in ("", ".") else Path(to).as_posix()
        clean = mask_file(path)
        if clean is not None:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, path.name)
                copy.write_text(clean, encoding="utf-8", errors="surrogateescape")
                self.client.log_artifact(tail.run_id or "", str(copy), target)
            return
        self.client.log_artifact(tail.run_id or "", str(path), target)

    def _model(self, tail: Tail, row: dict[str, Any]) -> bool:
        if tail.job is None:
            here = tail.path.parent
            tail.job = self.models.submit(
                {
                    "run_id": tail.run_id,
                    "experiment_id": tail.experiment_id,
                    "checkpoint": os.path.normpath(here / row["checkpoint"]),
                    "config": os.path.normpath(here / row["config"]),
                    "name": row["name"],
                    "metrics": row["metrics"],
                    "t": row["t"],
                }
            )
        if (answer := self.models.answer(tail.job)) is None:
            return False
        if answer.get("retry"):
            tail.job = None
            raise ConnectionError(answer["error"])
        tags = {layout.MODEL_ID: answer["model_id"]} if "model_id" in answer else {layout.MODEL_ERROR: answer["error"]}
        if "error" in answer:
            _log.warning("%s: the model could not be logged: %s", tail.path, answer["error"])
        batch = Batch()
        batch.add({"row": "tags", "values": tags}, tail.offset)
        self._send(tail, batch)
        tail.job = None
        return True
