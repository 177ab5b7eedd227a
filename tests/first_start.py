"""Databases whose makers are killed: ``python -m tests.first_start HOW FOLDER [PART…]``.

Each try is a child of one process that has imported everything, in a folder of its own. A first one
makes the database and counts the statements that write; each other one kills itself at a part (0 to
1) of them, or, without parts, at each.

Standard output: JSON with ``statements``, their number, and of each try ``[signal, names of the
files that it left]``, to which a storage of studies adds the exit code of the next start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

NAME = "made.db"


def killed(how: str, folder: Path, *parts: float) -> dict[str, Any]:
    """What ``python -m tests.first_start`` says."""
    words = [sys.executable, "-m", "tests.first_start", how, str(folder), *map(str, parts)]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def ours(path: Path) -> None:
    """MLflow's database, as a search makes it."""
    from dlsearch.tracking.mlflow import database

    database.make(f"sqlite:///{path}")


def theirs(path: Path) -> None:
    """MLflow's database, as MLflow makes it."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}")


def storage(path: Path) -> None:
    """The storage of studies."""
    from dlsearch.storage.schema import open_tables

    open_tables(f"sqlite:///{path}").engine.dispose()


def _child(make: Callable[[Path], None], folder: Path, at: int = -1) -> tuple[int, int]:
    """How many statements there were, and the exit code: minus the signal that ended it."""
    folder.mkdir(exist_ok=True)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(folder)
            os.write(write, str(_counted(make, folder / NAME, at)).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(read, "rb") as pipe:
        return int(pipe.read() or 0), code


def _counted(make: Callable[[Path], None], path: Path, at: int) -> int:
    seen = 0

    @event.listens_for(Engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal seen
        seen += not statement.lstrip().upper().startswith(("SELECT", "PRAGMA"))
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    make(path)
    return seen


def _main(how: str, folder: Path, parts: list[float]) -> dict[str, Any]:
    make = {"ours": ours, "theirs": theirs, "storage": storage}[how]
    if how == "storage":
        import alembic.command  # noqa: F401
        import optuna  # noqa: F401
    else:
        from dlsearch.tracking.mlflow.sender import load

        load("sqlite:")
    folder.mkdir(parents=True, exist_ok=True)
    statements, _ = _child(make, folder / "whole")
    tries: list[list[Any]] = []
    for at in [max(1, int(part * statements)) for part in parts] or range(1, statements + 1):
        here = folder / str(at)
        _, code = _child(make, here, at)
        tries.append([-code, sorted(file.name for file in here.iterdir())])
        if how == "storage":
            tries[-1].append(_child(make, here)[1])
    return {"statements": statements, "tries": tries}


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(_main(sys.argv[1], Path(sys.argv[2]), [float(word) for word in sys.argv[3:]]))
    )
