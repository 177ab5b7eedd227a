"""The seal on the test set while a training runs, as far as Python can hold it.

What Python can stop is stopped, and every try is written down. During a search the kernel holds the
seal where it can (:mod:`dlsearch.execution.processes.confinement`); then this one notes the tries.

Three things stand in the way: the data module's doors (``test_dataloader``, ``predict_dataloader``,
``setup`` for those stages, ``unseal``), ``Trainer.test``, and an audit hook that knows the test
split's files and refuses to open them. What reads files past Python (a C++ library, a child process
that is no fork) is not seen, nor is a copy of the test set elsewhere.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from dlsearch.training.run import Breach

FILE = "breaches.jsonl"
#: What the audit hook listens to.
_EVENTS = frozenset({"open", "os.link", "os.rename", "dlsearch.unseal", "dlsearch.sealed"})
#: Breaches that are written down.
_MAX_BREACHES = 100

_current: Seal | None = None
_hooked = False


class TestSetSealed(RuntimeError):
    """Something reached for the test set while hyperparameters are still being chosen."""

    __test__ = False  # pytest: no test

    def __init__(self, how: str, what: str) -> None:
        super().__init__(f"the test set is sealed during a search: {what} was refused ({how})")


class Seal:
    """Holds the test set closed between ``with`` and :meth:`lift`.

    Args:
        folder: Where breaches are written down (``breaches.jsonl``), by forked processes too.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._files: set[str] = set()
        self._folders: tuple[str, ...] = ()
        self._undo: list[Callable[[], None]] = []
        self._seen: set[tuple[str, str]] = set()
        self._holds = False

    def __enter__(self) -> Seal:
        """Refuse ``Trainer.test`` of every trainer, and `unseal` of every data module of ours."""
        global _current, _hooked
        self._outer = _current
        _current = self
        if not _hooked:  # an audit hook stays for good
            sys.addaudithook(_audit_event)
            _hooked = True
        trainer_test = pl.Trainer.test
        refused = functools.partialmethod(
            _refused_method,
            "trainer",
            "Trainer.test",
        )
        pl.Trainer.test = refused  # type: ignore[method-assign, assignment]
        self._undo.append(lambda: setattr(pl.Trainer, "test", trainer_test))
        self._holds = True
        return self

    def watch(self, data: Any) -> None:
        """Close the doors of the data module, and watch the files of its test split.

        Its method ``test_files``, if any, names them.

        Args:
            data: A data module. It is prepared first where it names files: preparing may read all
                of them.
        """
        for name in ("test_dataloader", "predict_dataloader"):
            refused = functools.partial(refuse, "data module", name)
            self._close_door(data, name, refused)
        setup = functools.partial(_refuse_test_stages, data.setup)
        self._close_door(data, "setup", setup)
        if not hasattr(data, "test_files"):
            return
        self._holds = False
        with suppress(Exception):  # Lightning prepares again, and has the word if that fails
            data.prepare_data()
            paths = [os.path.realpath(path) for path in data.test_files()]
            folders = [path for path in paths if Path(path).is_dir()]
            self._files = set(paths)
            self._folders = tuple(f"{folder}{os.sep}" for folder in folders)
        self._holds = True

    def lift(self) -> None:
        """Open everything again."""
        self._holds = False
        while self._undo:
            self._undo.pop()()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Lift it."""
        global _current
        self.lift()
        _current = self._outer

    def _close_door(
        self,
        data: Any,
        name: str,
        door: Callable[..., Any],
    ) -> None:
        setattr(data, name, door)
        self._undo.append(lambda: vars(data).pop(name, None))

    def note(
        self,
        how: str,
        what: str,
        *,
        stopped: bool,
    ) -> None:
        """Write a breach down, once."""
        if (how, what) in self._seen or len(self._seen) >= _MAX_BREACHES:
            return
        self._seen.add((how, what))
        breach: Breach = {"how": how, "what": what, "stopped": stopped}
        line = json.dumps(breach)
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(f"{line}\n")

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Judge an event of Python's: called for each one while the seal holds.

        Raises:
            TestSetSealed: It would open the test set.
        """
        if event in ("open", "os.link", "os.rename"):
            self._check_file(arguments[0])
        elif event == "dlsearch.unseal":
            refuse("data module", "unseal")
        elif event == "dlsearch.sealed":  # raises by itself
            self.note("data module", str(arguments[0]), stopped=True)

    def _check_file(self, path: Any) -> None:
        if not self._files or not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.path.realpath(os.fsdecode(path))
        if name in self._files or name.startswith(self._folders):
            self.note("file", name, stopped=True)
            raise TestSetSealed("file", name)


def _audit_event(event: str, arguments: tuple[Any, ...]) -> None:
    # An optimizer asks for the id of each parameter at every step, and each time is an event: the
    # name comes first.
    if event in _EVENTS and _current is not None and _current._holds:
        _current.check(event, arguments)


def refuse(how: str, what: str, *_: Any, **__: Any) -> Any:
    """Write down that `what` was asked for, and refuse it.

    Raises:
        TestSetSealed: Always.
    """
    if _current is not None:
        _current.note(how, what, stopped=True)
    raise TestSetSealed(how, what)


def _refused_method(_self: Any, how: str, what: str, *_: Any, **__: Any) -> Any:
    refuse(how, what)


def _refuse_test_stages(inner: Callable[..., Any], stage: str | None = None) -> Any:
    """A data module's ``setup``, without the stages that see the test set."""
    if stage in ("test", "predict"):
        refuse("data module", f"setup({stage!r})")
    return inner(stage)


def breaches(folder: Path) -> list[Breach]:
    """What all attempts of a trial wrote down in its folder, each breach once."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return []
    found: list[Breach] = []
    for line in dict.fromkeys(text.splitlines()):
        with suppress(ValueError):  # a line that a kill cut short
            found.append(json.loads(line))
    return found[:_MAX_BREACHES]
