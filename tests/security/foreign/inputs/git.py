"""Folders with a ``.git`` of somebody else's: git runs what its settings name, and dlsearch asks git where it is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from tests.security.foreign.box import Box
from tests.security.foreign.inputs.base import OUT, Input, product
from tests.security.foreign.inputs.stores import REPRODUCE, RESUME, VERIFY

_SAFE = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main")


def _repository(box: Box) -> None:
    """A repository in the working folder, one file of which differs from its commit."""
    box.write("code.py", "a = 1\n")
    for words in (["init", "-q"], ["add", "code.py"], ["commit", "-q", "-m", "x"]):
        subprocess.run(
            [*_SAFE, *words],
            cwd=box.work,
            check=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(box.home)},
        )
    box.write("code.py", "a = 2\n")
    box.write("new.py", "b = 1\n")


def settings(
    text: str, attributes: str = "", *, where: str = ".git/config"
) -> Callable[[Box], None]:
    """Makes the repository, with `text` in its settings; EVIL stands for a program that leaves a file outside."""

    def make(box: Box) -> None:
        _repository(box)
        program = box.write(
            "foreign/evil.sh",
            f"#!/bin/sh\ntouch '{box.outside}/ran'\ncat \"$@\" 2>/dev/null\nexit 0\n",
        )
        program.chmod(0o755)
        for hook in (
            "post-index-change",
            "fsmonitor-watchman",
            "pre-auto-gc",
            "post-checkout",
            "reference-transaction",
        ):
            box.write(f"foreign/hooks/{hook}", program.read_text()).chmod(0o755)
        if attributes:
            box.write(".gitattributes", attributes)
            box.write(".git/info/attributes", attributes)
        path = box.work / where
        path.write_text(
            (path.read_text() if path.exists() else "")
            + text.replace("EVIL", str(program)).replace("HOOKS", str(box.work / "foreign/hooks"))
        )

    return make


_SETTINGS: dict[str, tuple[str, ...]] = {
    "a monitor of the file system": ("[core]\n\tfsmonitor = EVIL\n",),
    "an old monitor of the file system": (
        "[core]\n\tfsmonitor = EVIL\n\tfsmonitorHookVersion = 1\n",
    ),
    "hooks": ("[core]\n\thooksPath = HOOKS\n",),
    "a program for differences": ("[diff]\n\texternal = EVIL\n",),
    "a program that makes text": ('[diff "x"]\n\ttextconv = EVIL\n', "*.py diff=x\n"),
    "a program for differences of a kind": ('[diff "x"]\n\tcommand = EVIL\n', "*.py diff=x\n"),
    "a filter": (
        '[filter "x"]\n\tclean = EVIL\n\tsmudge = EVIL\n\trequired = true\n',
        "*.py filter=x\n",
    ),
    "a filter that is a process": ('[filter "x"]\n\tprocess = EVIL\n', "*.py filter=x\n"),
    "a pager": ("[core]\n\tpager = EVIL\n[pager]\n\tdiff = EVIL\n\tstatus = EVIL\n\tlog = EVIL\n",),
    "an editor, an alias and askpass": (
        "[core]\n\teditor = EVIL\n\taskPass = EVIL\n[alias]\n\tstatus = !EVIL\n\tdiff = !EVIL\n",
    ),
    "settings that it includes": ("[include]\n\tpath = ../foreign/more\n",),
    "a program for signatures": ("[gpg]\n\tprogram = EVIL\n[log]\n\tshowSignature = true\n",),
    "a remote that is a program": (
        '[remote "origin"]\n\turl = ext::EVIL\n\tpromisor = true\n[extensions]\n\tpartialClone = origin\n',
    ),
    "a work tree elsewhere": ("[core]\n\tworktree = ../../outside\n",),
}
_RUN = ("model.width=8", "trainer.max_epochs=1", "tracking.enabled=false")


def _included(box: Box) -> None:
    settings("[include]\n\tpath = ../foreign/more\n")(box)
    box.write("foreign/more", f"[core]\n\tfsmonitor = {box.work}/foreign/evil.sh\n")


def _submodule(box: Box) -> None:
    """A repository within, whose settings count when git looks at the one around it."""
    settings("")(box)
    inner = box.work / "inner"
    inner.mkdir()
    (inner / "x.py").write_text("x = 1\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(box.home)}
    for words in (["init", "-q"], ["add", "x.py"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*_SAFE, *words], cwd=inner, check=True, env=environment)
    subprocess.run(
        [*_SAFE, "add", "inner"], cwd=box.work, check=True, env=environment, capture_output=True
    )
    within = inner / ".git/config"
    within.write_text(f"{within.read_text()}[core]\n\tfsmonitor = {box.work}/foreign/evil.sh\n")
    (inner / "x.py").write_text("x = 2\n")


def _git_file(box: Box) -> None:
    """``.git`` is a file that leads elsewhere."""
    settings("[core]\n\tfsmonitor = EVIL\n")(box)
    (box.work / ".git").rename(box.work / "foreign/git")
    box.write(".git", "gitdir: foreign/git\n")


def _bare(box: Box) -> None:
    """The folder itself looks like a bare repository."""
    settings("[core]\n\tfsmonitor = EVIL\n")(box)
    for path in (box.work / ".git").iterdir():
        path.rename(box.work / path.name)
    (box.work / ".git").rmdir()


INPUTS = product(
    (
        Input(
            f"git's settings name {what}, for a run",
            7,
            "git folder",
            _RUN,
            settings(*given),
            harmless=True,
        )
        for what, given in _SETTINGS.items()
    ),
    (
        Input(
            f"git's settings name {what}, for verify",
            7,
            "git folder",
            VERIFY,
            settings(*given),
            harmless=True,
            says="equal",
        )
        for what, given in list(_SETTINGS.items())[:2]
    ),
    (
        Input(
            f"git's settings name {what}, for reproduce",
            7,
            "git folder",
            REPRODUCE,
            settings(*given),
            harmless=True,
            says="bit-equal",
            writable=OUT,
            slow=True,
        )
        for what, given in list(_SETTINGS.items())[:1]
    ),
    (
        Input(
            f"git's settings name {what}, for a search",
            7,
            "git folder",
            tuple(
                word.replace("study.name=good", "study.name=other").replace(
                    "n_trials=3", "n_trials=1"
                )
                for word in RESUME
            ),
            settings(*given),
            harmless=True,
            slow=True,
        )
        for what, given in list(_SETTINGS.items())[:1]
    ),
    [
        Input(
            "git's settings include settings with a monitor",
            7,
            "git folder",
            _RUN,
            _included,
            harmless=True,
        ),
        Input(
            "git's settings of a repository within",
            7,
            "git folder",
            _RUN,
            _submodule,
            harmless=True,
        ),
        Input("git's settings behind a file", 7, "git folder", _RUN, _git_file, harmless=True),
        Input(
            "git's settings of a folder that is a bare repository",
            7,
            "git folder",
            _RUN,
            _bare,
            harmless=True,
        ),
        Input(
            "git's settings, for sync",
            7,
            "git folder",
            ("sync",),
            lambda box: (settings("[core]\n\tfsmonitor = EVIL\n")(box), box.unship()),
            harmless=True,
        ),
        Input(
            "git's settings, for doctor",
            7,
            "git folder",
            ("doctor",),
            settings("[core]\n\tfsmonitor = EVIL\n"),
            harmless=True,
        ),
        Input(
            "git's settings, for look",
            7,
            "git folder",
            ("look", "good/0", "--out", "out/x"),
            settings("[core]\n\tfsmonitor = EVIL\n"),
            harmless=True,
            writable=OUT,
        ),
        Input(
            "git's settings, for lr-range",
            7,
            "git folder",
            ("lr-range", "model.width=8", "tracking.enabled=false"),
            settings("[core]\n\tfsmonitor = EVIL\n"),
            harmless=True,
            slow=True,
        ),
    ],
)
