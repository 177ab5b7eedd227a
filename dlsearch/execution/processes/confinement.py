"""The seal on the test set that the kernel holds, for a process that trains and all its children.

The data are prepared by a process of their own, which says what must be out of reach and ends. The
process that trains gives these files up before it imports anything of the user's
(:mod:`dlsearch.core.machine.landlock`). Where the kernel cannot do that, the audit hook holds the
seal alone (:mod:`dlsearch.training.test_guard`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

from omegaconf import OmegaConf

from dlsearch.console.streams import finish_output
from dlsearch.core.files.descriptor import Descriptor
from dlsearch.core.machine import landlock
from dlsearch.core.text import line_of_error
from dlsearch.execution.processes.forkserver import SCRATCH, die_with_parent
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from omegaconf import DictConfig

    from dlsearch.core.types import ConfigTree, JsonObject

#: Names of files that have a second one, at most so many of them are recorded.
_MAX_LINKED = 20


class SealRecord(TypedDict, total=False):
    """Who held the seal of a training.

    Args:
        by: ``kernel`` or ``audit hook``.
        landlock: The version of the kernel's Landlock.
        why: Why the kernel did not.
        files: How many files and folders were given up.
        linked: Those of them that have another name on the disk, which may be in reach.
    """

    by: str
    landlock: int
    why: str
    files: int
    linked: list[str]


KERNEL = "kernel"
AUDIT_HOOK = "audit hook"


#: What of a data node changes no file.
_NOT_OF_FILES = frozenset(
    {
        "augment",
        "batch_size",
        "drop_last",
        "eval_batch_size",
        "num_workers",
        "pin_memory",
        "shuffle",
    }
)
_OURS = "dlsearch."
_REFERENCE = re.compile(r"\$\{(\w+)")
#: What this process, or the server that it was forked from, has given up already.
_held: tuple[str, SealRecord] | None = None


def key_of_data(config: Mapping[str, Any]) -> str:
    """What the files of a trial's data depend on: its data node, and what that refers to.

    Args:
        config: A trial's config, interpolations unresolved.
    """
    node = config.get("data")
    if not isinstance(node, Mapping):
        return "task"
    target = str(node.get("_target_"))
    kept = {key: value for key, value in node.items() if key not in _NOT_OF_FILES}
    if target.startswith(_OURS):
        kept.pop("seed", None)  # of the order alone
    parts: dict[str, Any] = {"data": kept}
    waiting = [kept]
    while waiting:
        for root in _REFERENCE.findall(json.dumps(waiting.pop())):
            if root in config and root not in parts:
                parts[root] = config[root]
                waiting.append(config[root])
    return json.dumps(parts, sort_keys=True)


def hold_for(config: ConfigTree) -> SealRecord:
    """Give up the test set of a trial, or know that it was done; its children need not do it again.

    A process that no fork server has forked keeps what it has: it does other things afterwards.

    Raises:
        Exception: The data cannot be prepared.
    """
    global _held
    if SCRATCH not in os.environ:
        return {"by": AUDIT_HOOK, "why": "the command's own process trains"}
    key = key_of_data(config)
    if _held is None or _held[0] != key:
        cfg = OmegaConf.create(config)
        _make_store_folders(cfg)
        _held = (key, seal_process([cfg]))
    return _held[1]


def _make_store_folders(cfg: DictConfig) -> None:
    """Make the folders of a store that trainings write in: later ones could not be read back.

    The prepared data lie in the store, too.
    """
    store = OmegaConf.select(cfg, "paths.store")
    if store is not None:
        for name in layout.FOLDERS_OF_TRAININGS:
            Path(store, name).mkdir(parents=True, exist_ok=True)


def is_held_by_kernel() -> bool:
    """Whether this process has given up a test set for good."""
    return _held is not None and _held[1]["by"] == KERNEL


def seal_process(configs: Sequence[DictConfig], *, prepared: bool = True) -> SealRecord:
    """Give up the test sets of `configs`.

    Args:
        configs: What this process builds.
        prepared: Prepare their data first; else only the data modules that cannot name their files
            before are prepared.

    Returns:
        Who holds the seal from now on.

    Raises:
        Exception: The data cannot be prepared.
    """
    if any(OmegaConf.select(cfg, "study.seal") == "audit" for cfg in configs):
        return {"by": AUDIT_HOOK, "why": "study.seal=audit"}
    version = landlock.abi()
    if not version:
        return {"by": AUDIT_HOOK, "why": landlock.why_not()}
    paths: list[str] = []
    for cfg in configs:
        found = run_apart(partial(_name_test_files, cfg, prepared=prepared))
        if "error" in found:
            _test_files(cfg, prepared=prepared)  # which has the better words for it
            raise RuntimeError(f"the data could not be prepared: {found['error']}")
        paths += found["paths"]
    paths = list(dict.fromkeys(paths))
    _move_scratch(paths)
    try:
        landlock.confine(paths, needed=_needed())
    except landlock.CannotConfine as error:
        return {"by": AUDIT_HOOK, "why": error.strerror or str(error)}
    return {
        "by": KERNEL,
        "landlock": version,
        "files": len(paths),
        "linked": find_linked(paths),
    }


def _name_test_files(cfg: DictConfig, *, prepared: bool) -> JsonObject:
    """In a process of its own: ``paths``, or the ``error`` in a line."""
    try:
        return {"paths": _test_files(cfg, prepared=prepared)}
    except BaseException as error:
        return {"error": line_of_error(error)}


def _test_files(cfg: DictConfig, *, prepared: bool) -> list[str]:
    """The files of the test split, as the data module of a config names them."""
    from dlsearch.training.building import build_anywhere, build_data

    data: Any = build_data(cfg)
    if data is None:
        data = build_anywhere(cfg)
    if not hasattr(data, "test_files"):
        return []
    if not prepared:
        with suppress(Exception):  # of files that it has drawn it knows only then
            return _real(data.test_files())
    data.prepare_data()
    return _real(data.test_files())


def _real(paths: Iterable[Path]) -> list[str]:
    return [os.path.realpath(path) for path in paths]


def run_apart(function: Callable[[], JsonObject]) -> JsonObject:
    """What a function returns in a process of its own, of which nothing stays in this one.

    Where that process dies, this one dies likewise.
    """
    read, write = Descriptor.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            die_with_parent()
            read.close()
            answer = json.dumps(function()).encode()
            with os.fdopen(write.detach(), "wb") as file:
                file.write(answer)
        finally:
            finish_output()
            os._exit(0)
    write.close()
    with os.fdopen(read.detach(), "rb") as file:
        answer = file.read()
    _, status = os.waitpid(pid, 0)
    if not answer:
        _die_likewise(os.waitstatus_to_exitcode(status))
    found: JsonObject = json.loads(answer)
    return found


def phrase(seal: Mapping[str, Any]) -> str:
    """Who held a seal, in a few words.

    Args:
        seal: A :class:`SealRecord`.
    """
    if seal["by"] == KERNEL:
        return f"{KERNEL} (Landlock ABI {seal['landlock']})"
    return f"{AUDIT_HOOK} ({seal['why']})" if "why" in seal else AUDIT_HOOK


def _die_likewise(code: int) -> NoReturn:
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code or 1)


def _move_scratch(paths: Sequence[str]) -> None:
    """Have temporary files made elsewhere, where their folder lies above a file that is given up.

    What is made there from now on could not be read again.
    """
    usual = os.path.realpath(tempfile.gettempdir())
    scratch = os.environ.get(SCRATCH)
    if scratch is None or not any(path.startswith(f"{usual}{os.sep}") for path in paths):
        return
    Path(scratch).mkdir(exist_ok=True)
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None


def _needed() -> list[str]:
    """What must stay in reach also where a folder above it cannot be listed."""
    home = os.path.expanduser("~")  # noqa: PTH111
    return [*filter(None, sys.path), sys.prefix, sys.base_prefix, str(Path.cwd()), home]


def find_linked(paths: Sequence[str]) -> list[str]:
    """Files among `paths`, and in folders among them, that have a second name on the disk."""
    found: list[str] = []
    for path in paths:
        names = [path]
        if os.path.isdir(path):  # noqa: PTH112
            names = [
                os.path.join(folder, name)  # noqa: PTH118
                for folder, _, files in os.walk(path)
                for name in files
            ]
        for name in names:
            if len(found) >= _MAX_LINKED:
                return found
            if os.path.lexists(name) and os.lstat(name).st_nlink > 1:
                found.append(name)
    return found
