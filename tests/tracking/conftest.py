"""A real MLflow database, made once: that takes seconds, a copy of it none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlsearch.tracking.journal import Journal

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "dlsearch/test/digits"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a fresh database."""
    store = tmp_path / "store"
    store.mkdir()
    shutil.copy(empty_database, store / "mlflow.db")
    monkeypatch.chdir(tmp_path)  # MLflow makes folders where it is
    return store


@pytest.fixture
def uri(store: Path) -> Iterator[str]:
    """The database's URI; its connections are given back at the end."""
    uri = f"sqlite:///{store / 'mlflow.db'}"
    yield uri
    forget(uri)


def forget(uri: str) -> None:
    """Close what MLflow keeps open for `uri`."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.pop(uri, None)
    if engine is not None:
        engine.dispose()


@pytest.fixture
def client(uri: str) -> MlflowClient:
    """To look at what was sent."""
    import mlflow

    return mlflow.MlflowClient(uri)


@pytest.fixture
def write(store: Path) -> Callable[..., Path]:
    """Writes a study of `trials` finished trials with `steps` rows each."""

    def write(
        name: str = "s", *, trials: int = 2, steps: int = 5, status: str | None = "FINISHED"
    ) -> Path:
        parent = store / f"studies/{name}/journal.jsonl"
        with Journal(parent) as journal:
            journal.open("study", f"study:{name}", EXPERIMENT, None, {"dlsearch.study.name": name})
            journal.params({"cfg/seed": 0})
            for number in range(trials):
                with Journal(store / f"studies/{name}/t{number:05d}/journal.a1.jsonl") as trial:
                    trial.open(
                        "trial",
                        f"{name}/t{number:05d}",
                        EXPERIMENT,
                        f"studies/{name}/journal.jsonl",
                        {"n": number},
                    )
                    trial.params({"hp/lr": 0.1 * number})
                    for step in range(steps):
                        trial.metrics({"train/loss": 1 / (step + 1), "val/loss": float(step)}, step)
                    trial.tags({"dlsearch.trial.state": "complete"})
                    trial.status("FINISHED")
            if status is not None:
                journal.status(status)
        return parent

    return write
