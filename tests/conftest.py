"""What every test stands on: one thread, a store of its own, and nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.closing import watch_close

# Set before anything imports numpy or torch, which read them once.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MPLBACKEND"] = "Agg"
# What tests start is held to it too.
_STRICT = str(Path(__file__).with_name("strict"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_STRICT, os.environ.get("PYTHONPATH"))))

_stale: list[str] = []
watch_close(
    lambda fd: _stale.append(f"os.close({fd}):\n{''.join(traceback.format_stack(limit=8))}")
)

_JOIN_S = 3.0
#: Between two collections of the youngest garbage; Python's own number is 700.
_ALLOCATIONS = 20_000
_WHY = {
    "data": "they need the data sets in DLSEARCH_DATA",
    "gpu": "they need a CUDA device",
    "storm": "storms, clusters and outages, which make test-storms runs",
}
#: Where the long files are, the longest first.
_LONGEST_FIRST = (
    "tests/e2e/",
    "tests/security/",
    "tests/test_bad_input.py",
    "tests/training/",
    "tests/systems/",
    "tests/storage/",
    "tests/tracking/",
    "tests/sampling/",
    "tests/execution/",
    "tests/report/",
)
#: Folders whose tests share warm processes and studies, which take half a minute to make.
_TOGETHER = ("tests/e2e/", "tests/security/foreign/")
_LEFT_OUT = pytest.StashKey[dict[str, int]]()


def _place_in_order(nodeid: str) -> int:
    """The number of the first of `_LONGEST_FIRST` that the test is of."""
    return next(
        (number for number, start in enumerate(_LONGEST_FIRST) if nodeid.startswith(start)),
        len(_LONGEST_FIRST),
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this machine has no data or no device for, and, unless asked for, what takes long.

    `pytest_terminal_summary` says so.
    """
    absent = {}
    if not os.environ.get("DLSEARCH_DATA"):
        absent["data"] = "data"
    if not Path("/dev/nvidia0").exists():
        absent["gpu"] = "gpu"
    if "storm" not in config.option.markexpr and not any(".py" in word for word in config.args):
        absent["storm"] = "storm"
    left_out = {}
    for item in items:
        if why := next((absent[name] for name in absent if item.get_closest_marker(name)), None):
            left_out[item] = why
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    # A long file at the end would have one of two cores wait.
    items.sort(key=lambda item: _place_in_order(item.nodeid))
    config.stash[_LEFT_OUT] = dict(Counter(left_out.values()))
    if hasattr(config, "workeroutput"):  # a worker of pytest-xdist, which says nothing itself
        config.workeroutput["left_out"] = config.stash[_LEFT_OUT]


def pytest_unconfigure() -> None:
    """Let the interpreter's end collect what was kept off: libraries report leaks otherwise."""
    gc.unfreeze()


def pytest_collection_finish() -> None:
    """Keep the collector off what all tests share: it would go through torch and mlflow again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)


class _FoldersTogether(LoadFileScheduling):
    """Files go to workers one by one, but those of some folders to one worker, which has made what they share."""

    def _split_scope(self, nodeid: str) -> str:
        folder = next((each for each in _TOGETHER if nodeid.startswith(each)), None)
        return folder or super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Who gets which tests; the storms of a folder are long enough for two workers."""
    is_plain = config.getoption("dist") == "loadfile" and "storm" not in config.option.markexpr
    return _FoldersTogether(config, log) if is_plain else None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist left out; each of them collects everything."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One visible line about each kind of what was left out."""
    for why, count in sorted(terminalreporter.config.stash.get(_LEFT_OUT, {}).items()):
        terminalreporter.write_line(f"{count} left out: {_WHY[why]}")


@pytest.fixture(autouse=True, scope="session")
def _store_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["DLSEARCH_STORE"] = str(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def _own_session(_nothing_left_behind: None) -> Iterator[None]:
    """A test knows no secrets of other tests; configs may name what the tests define, and what it grants itself."""
    from dlsearch.core.session import Session, use_session

    path = list(sys.path)
    with use_session(Session()) as session:
        session.permissions.grant(["tests"])
        yield
    sys.path[:] = path


@pytest.fixture(autouse=True)
def _nothing_left_behind(_store_of_the_session: None) -> Iterator[None]:
    """A test gives back the environment and the working directory, and ends the threads and processes it started."""
    environment, folder = dict(os.environ), Path.cwd()
    threads, children = set(threading.enumerate()), set(multiprocessing.active_children())
    yield
    moved = Path.cwd() != folder
    ours = {
        name
        for name in os.environ
        if name.startswith("DLSEARCH_") and os.environ[name] != environment.get(name)
    }
    os.chdir(folder)
    for name in set(os.environ) - set(environment) - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]  # Lightning and torch leave theirs
    os.environ.update(environment)
    deadline = time.monotonic() + _JOIN_S
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    alive = [each.name for each in set(threading.enumerate()) - threads if not each.daemon]
    running = [each.name for each in set(multiprocessing.active_children()) - children]
    closed_twice = list(_stale)
    _stale.clear()
    assert not moved, "the test changed the working directory"
    assert not ours, f"the test left its environment behind: {sorted(ours)}"
    assert not alive, f"threads outlive the test: {alive}"
    assert not running, f"processes outlive the test: {running}"
    assert not closed_twice, (
        "nothing was open any more under a number that was closed: " + "\n".join(closed_twice)
    )


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL; each test has a database of its own."""
    from tests.storage.server import Server

    server = Server(tmp_path_factory.mktemp("pg"))
    yield server
    server.close()
