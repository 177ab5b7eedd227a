"""Asking git about a folder that may be somebody else's: none of the programs that it names runs.

A repository's own settings name programs: watchers, hooks, external differs, filters of files,
helpers that fetch what is missing. They come with the folder, as does the place of its work tree.
So git is asked with all of these off, and the repository is the one at the nearest ``.git`` above
the folder, whatever its settings say. The settings of the user and of the machine stay in force.
Imports nothing heavy.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

TIMEOUT_S = 10.0
#: An answer may be so long, bytes; what is longer is none.
MOST = 64 << 20
_OFF = (
    "core.fsmonitor=false",
    f"core.hooksPath={os.devnull}",
    "core.quotepath=off",  # names as they are
    "core.pager=cat",
    "core.sshCommand=false",
    "core.askPass=",
    "credential.helper=",
    "diff.external=",
    "diff.ignoreSubmodules=none",
    "protocol.allow=never",
    "protocol.ext.allow=never",
    "protocol.file.allow=never",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "log.showSignature=false",
    "gpg.program=false",
)
#: Of the environment only what says where the user's settings are; not GIT_DIR and its like.
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
#: What a filter of files may have, behind a name of the repository's choice, and what switches it
#: off.
_FILTER = {
    "clean": "",
    "smudge": "",
    "process": "",
    "required": "false",
}
_MOST_SUBMODULES = 100


class Repository:
    """A work tree, asked without running what it names.

    Args:
        root: The folder that holds ``.git``.
    """

    def __init__(self, root: Path) -> None:
        """Ask nothing yet."""
        self.root = root
        self._off: list[str] | None = None

    @classmethod
    def around(cls, folder: Path) -> Repository | None:
        """The repository of a folder.

        None where git knows none, or does not take it for the user's.
        """
        at = folder.resolve()
        ceilings = {
            Path(each)
            for each in os.environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep)
            if each
        }
        for each in (at, *at.parents):
            if each != at and each in ceilings:
                return None
            here = each / ".git"
            if here.is_file() or (here / "HEAD").is_file() or (here / "HEAD").is_symlink():
                found = cls(each)
                return (
                    found
                    if found.ask(
                        "rev-parse",
                        "--is-inside-work-tree",
                        plain=True,
                    )
                    is not None
                    else None
                )
        return None

    def ask(self, *words: str, plain: bool = False) -> str | None:
        """What git answers; None where it fails, takes too long or says too much.

        Args:
            words: The command and its arguments.
            plain: Of a command that reads no file of the work tree: the filters need not be known.
        """
        if plain:
            return _ask(self.root, words, [])
        if self._off is None:
            self._off = self._programs()
        return None if self._off is None else _ask(self.root, words, self._off)

    def _programs(self) -> list[str] | None:
        """Settings that switch off what this repository, and its submodules, name.

        None where it cannot be known.
        """
        found: dict[str, str] = {}
        folders = [self.root, *self._submodules()]
        for folder in folders:
            listed = _ask(
                folder,
                ("config", "--null", "--show-scope", "--list"),
                [],
            )
            # a git of before 2020 has no scopes: then the user's own filters are off, too
            if listed is None:
                plain = _ask(folder, ("config", "--null", "--list"), [])
                listed = (
                    None
                    if plain is None
                    else "".join(f"local\0{each}\0" for each in plain.split("\0") if each)
                )
            if listed is None or not _note(listed, found):
                return None
        return (
            [f"{key}={value}" for key, value in found.items()]
            if len(folders) <= _MOST_SUBMODULES
            else None
        )

    def _submodules(self) -> list[Path]:
        """The work trees of submodules, theirs included: git asks each, with the same settings."""
        found: list[Path] = []
        left = [self.root]
        while left and len(found) < _MOST_SUBMODULES:
            folder = left.pop()
            index = _ask(folder, ("ls-files", "--stage", "-z"), []) or ""
            for line in index.split("\0"):
                if line.startswith("160000 "):
                    path = folder / line.partition("\t")[2]
                    if (path / ".git").exists():
                        found.append(path)
                        left.append(path)
        return found


def _note(listed: str, found: dict[str, str]) -> bool:
    """Add to `found` what switches off the programs that a list of settings names.

    False where one cannot be named.

    A program that the user's own settings name stays: for the same name it takes the place of the
    repository's.
    """
    words = listed.split("\0")
    users: dict[str, str] = {}
    named: list[str] = []
    for scope, setting in zip(words[::2], words[1::2], strict=False):
        key, _, value = setting.partition("\n")
        if not key.startswith("filter.") or key.rpartition(".")[2] not in _FILTER:
            continue
        if scope in ("system", "global"):
            users[key] = value
        elif scope != "command":
            named.append(key)
    found |= {key: users.get(key, _FILTER[key.rpartition(".")[2]]) for key in named}
    return not any("=" in key for key in named)


def _ask(folder: Path, words: tuple[str, ...], off: list[str]) -> str | None:
    settings = [word for each in (*_OFF, *off) for word in ("-c", each)]
    # No optional locks: another git of the user's must not trip over ours.
    command = ["git", "--no-pager", "--no-optional-locks", *settings, "-C", str(folder), *words]
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("GIT_") or key in _KEPT
    }
    environment |= {
        # else the repository's own settings could name another, a home folder say
        "GIT_WORK_TREE": str(folder),
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
    }
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # what it starts is ended with it
        )
    except OSError:
        return None
    assert process.stdout is not None
    late = threading.Timer(TIMEOUT_S, _end, [process])
    late.start()
    answer = b""
    try:
        answer = process.stdout.read(MOST + 1)
    finally:
        if process.poll() is None and len(answer) > MOST:
            _end(process)
        process.stdout.close()
        code = process.wait()
        late.cancel()
    return answer.decode("utf-8", "replace") if code == 0 and len(answer) <= MOST else None


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
