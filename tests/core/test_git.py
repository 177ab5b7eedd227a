"""Git is asked about a folder of somebody else's, and none of the programs that the folder names runs."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dlsearch.core import git, provenance
from tests.kinds import first_of_each_kind

ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "u", "GIT_AUTHOR_EMAIL": "u@x",
    "GIT_COMMITTER_NAME": "u", "GIT_COMMITTER_EMAIL": "u@x",
}  # fmt: skip


def run(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    root.mkdir()
    run(root, "init", "-q")
    (root / "a.py").write_text("LR = 1\n")
    (root / "b.txt").write_text("text\n")
    (root / "same.txt").write_text("as 1\n")
    run(root, "add", ".")
    run(root, "commit", "-qm", "first")
    return root


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


@pytest.fixture
def program(tmp_path: Path, marker: Path) -> str:
    """A program that leaves a file behind."""
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{marker}'\ncat 2>/dev/null\nexit 0\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def look(root: Path) -> dict[str, object]:
    return provenance.collect(config={}, space=[], data={}, cwd=root)


SETTINGS = {
    "fsmonitor": "core.fsmonitor={program}",
    "pager": "core.pager={program}",
    "pager of a command": "pager.diff={program}",
    "ssh": "core.sshCommand={program}",
    "external": "diff.external={program}",
    "driver": "diff.x.command={program}",
    "textconv": "diff.x.textconv={program}",
    "clean": "filter.x.clean={program}",
    "process": "filter.x.process={program}",
    "smudge": "filter.x.smudge={program}",
    "name with dots": "filter.x.y.z.clean={program}",
    "alias": "alias.status=!{program}",
    "gpg": "gpg.program={program}",
    "editor": "core.editor={program}",
    "askpass": "core.askPass={program}",
    "credentials": "credential.helper={program}",
    "alternates": "core.alternateRefsCommand={program}",
    "gitproxy": "core.gitProxy={program}",
    "differ of an interaction": "interactive.diffFilter={program}",
    "trace": "trace2.normalTarget={marker}",
}
ATTRIBUTES = "* filter=x diff=x\n*.py filter=x.y.z\n*.txt filter=x diff=x\n"


def plant(root: Path, program: str, marker: Path, kind: str) -> None:
    """Put a setting into the folder, and change its files, so that git has to read them."""
    key, _, value = SETTINGS[kind].format(program=program, marker=marker).partition("=")
    run(root, "config", key, value)
    (root / ".gitattributes").write_text(ATTRIBUTES)
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text(ATTRIBUTES)
    for name in ("a.py", "b.txt"):
        (root / name).write_text(f"changed {kind}\n")
    (root / "same.txt").write_text("as 2\n")  # of the same size: git has to look at what is in it


def _settings() -> list[tuple[str, str]]:
    """Each setting in each place where git reads it."""
    places = ["config", "included", "included on a condition", "worktree"]
    found = []
    for number, kind in enumerate(SETTINGS):
        turned = places[number % len(places) :] + places[: number % len(places)]
        found += [(kind, place) for place in turned]
    return found


@pytest.mark.parametrize(("kind", "where"), first_of_each_kind(_settings(), lambda case: case[0]))
def test_no_setting_of_a_folder_runs_a_program(
    kind: str, where: str, repository: Path, program: str, marker: Path
) -> None:
    plant(repository, program, marker, kind)
    if where == "worktree":
        key, _, value = SETTINGS[kind].format(program=program, marker=marker).partition("=")
        run(repository, "config", "--unset", key)
        run(repository, "config", "extensions.worktreeConfig", "true")
        run(repository, "config", "--worktree", key, value)
    elif where != "config":
        config = repository / ".git/config"
        other = repository / ".git/more"
        config.rename(other)
        section = "include" if where == "included" else f'includeIf "gitdir:{repository}/"'
        config.write_text(f"[core]\n\trepositoryformatversion = 0\n[{section}]\n\tpath = more\n")
    marker.unlink(missing_ok=True)
    found = look(repository)
    assert not marker.exists(), marker.read_text()
    machine = found["provenance"]
    assert isinstance(machine, dict)
    assert (len(machine["commit"]), machine["dirty"]) == (40, True)
    assert f"+changed {kind}" in str(found["diff"])


@pytest.mark.parametrize(
    "kind", ["fsmonitor", "clean", "process", "name with dots", "external", "textconv", "driver"]
)
def test_plain_git_runs_what_is_planted(
    kind: str, repository: Path, program: str, marker: Path
) -> None:
    plant(repository, program, marker, kind)
    marker.unlink(missing_ok=True)
    # what the program answers is nothing that git understands
    with suppress(subprocess.CalledProcessError):
        run(repository, "status", "--porcelain")
        run(repository, "diff", "HEAD")
    assert marker.exists()


HOOKS = [
    "post-index-change",
    "fsmonitor-watchman",
    "pre-commit",
    "post-checkout",
    "reference-transaction",
]


@pytest.mark.parametrize("how", ["folder", "setting"])
def test_no_hook_runs(
    how: str, repository: Path, program: str, marker: Path, tmp_path: Path
) -> None:
    folder = repository / ".git/hooks" if how == "folder" else tmp_path / "hooks"
    folder.mkdir(exist_ok=True)
    for name in HOOKS:
        (folder / name).symlink_to(program)
    if how == "setting":
        run(repository, "config", "core.hooksPath", str(folder))
    (repository / "a.py").touch()
    look(repository)
    assert not marker.exists(), marker.read_text()


@pytest.mark.parametrize("kind", ["clean", "process", "fsmonitor", "external", "textconv"])
@pytest.mark.parametrize("depth", [1, 2])
def test_no_setting_of_a_submodule_runs_a_program(
    kind: str, depth: int, repository: Path, program: str, marker: Path, tmp_path: Path
) -> None:
    inner = repository
    for level in range(depth):
        source = tmp_path / f"source{level}"
        source.mkdir()
        run(source, "init", "-q")
        (source / "a.py").write_text("x = 1\n")
        (source / "b.txt").write_text("x\n")
        run(source, "add", ".")
        run(source, "commit", "-qm", "first")
        run(inner, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(source), "sub")
        run(inner, "commit", "-qm", "with a submodule")
        inner = inner / "sub"
    run(repository, "config", "diff.submodule", "diff")
    key, _, value = SETTINGS[kind].format(program=program, marker=marker).partition("=")
    run(inner, "config", key, value)
    (inner / ".gitattributes").write_text(ATTRIBUTES)
    for name in ("a.py", "b.txt"):
        (inner / name).write_text("changed\n")
    marker.unlink(missing_ok=True)
    found = look(repository)
    assert not marker.exists(), marker.read_text()
    assert found["provenance"]["dirty"] is True  # type: ignore[index]
    assert "-dirty" in str(found["diff"]), "as git says it"


def test_what_is_missing_is_not_fetched(repository: Path, program: str, marker: Path) -> None:
    blob = run(repository, "rev-parse", "HEAD:a.py").strip()
    (repository / f".git/objects/{blob[:2]}/{blob[2:]}").unlink()
    for key, value in {
        "core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true",
        "remote.origin.url": f"ext::{program} %S x", "protocol.ext.allow": "always", "protocol.allow": "always",
        "remote.origin.uploadpack": program,
    }.items():  # fmt: skip
        run(repository, "config", key, value)
    (repository / "a.py").write_text("changed\n")
    look(repository)
    run(repository, "config", "remote.origin.url", str(repository))
    look(repository)
    assert not marker.exists(), marker.read_text()


def test_a_folder_cannot_name_another_as_its_work_tree(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secrets.yaml").write_text("hunter2")
    for place in (home, tmp_path, Path("/")):
        run(repository, "config", "core.worktree", str(place))
        found = look(repository)
        assert "hunter2" not in str(found["diff"])
        assert found["provenance"]["dirty"] is False  # type: ignore[index]
    assert provenance.git_state(repository)["root"] == repository


def test_a_new_file_that_is_a_link_is_not_read(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text("hunter2")
    (repository / "x.yaml").symlink_to(tmp_path / "secrets.yaml")
    (repository / "folder").symlink_to(tmp_path)
    os.mkfifo(repository / "pipe.py")
    (repository / "new.py").write_text("y = 1\n")
    found = look(repository)
    assert "hunter2" not in str(found["diff"])
    assert "+y = 1" in str(found["diff"])


def test_a_bare_repository_in_a_folder_is_none(
    repository: Path, program: str, marker: Path
) -> None:
    inner = repository / "data"
    run(repository, "init", "-q", "--bare", str(inner))
    run(inner, "config", "core.bare", "false")
    run(inner, "config", "core.worktree", str(repository))
    run(inner, "config", "core.fsmonitor", program)
    state = provenance.git_state(inner)
    assert not marker.exists()
    assert state["root"] == repository, "the one around it"


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_COUNT",
                                  "GIT_CONFIG_PARAMETERS", "GIT_TRACE", "GIT_SSH_COMMAND"])  # fmt: skip
def test_the_environment_names_no_other_repository(
    name: str, repository: Path, program: str, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = provenance.git_state(repository)
    values = {"GIT_EXTERNAL_DIFF": program, "GIT_SSH_COMMAND": program, "GIT_TRACE": str(marker),
              "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor={program}'", "GIT_CONFIG_COUNT": "1"}  # fmt: skip
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", program)
    monkeypatch.setenv(name, values.get(name, "/nonexistent"))
    assert provenance.git_state(repository) == expected
    assert not marker.exists()


@pytest.mark.timeout(120)
def test_git_is_waited_for_only_so_long(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "TIMEOUT_S", 1.0)
    os.mkfifo(repository / ".git/pipe")
    run(repository, "config", "core.excludesFile", str(repository / ".git/pipe"))
    began = time.monotonic()
    state = provenance.git_state(repository)
    assert time.monotonic() - began < 60
    assert len(state["commit"]) == 40


def test_an_answer_that_is_too_long_is_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "MOST", 1000)
    (repository / "a.py").write_text("x\n" * 10_000)
    assert provenance.git_state(repository)["dirty"] is True
    assert look(repository)["diff"] == ""


# -- what is recorded of a repository as it is usually -----------------------------------------------------------------
def as_before(root: Path) -> tuple[str, bool, str]:
    """What plain git says."""
    commit = run(root, "rev-parse", "HEAD").strip()
    changes = run(root, "status", "--porcelain", "--untracked-files=normal")
    return (
        commit,
        bool(changes),
        run(root, "-c", "core.quotepath=off", "diff", "--no-color", "--no-ext-diff", "HEAD"),
    )


CHANGES = [
    "nothing",
    "touched",
    "changed",
    "staged",
    "removed",
    "renamed",
    "new",
    "ignored",
    "line ends",
    "mode",
    "ümlaut",
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_ordinary_repository_is_recorded_as_it_is(change: str, repository: Path) -> None:
    if change == "touched":
        os.utime(repository / "a.py", (1, 1))
    elif change == "changed":
        (repository / "b.txt").write_text("other\n")
    elif change == "staged":
        (repository / "b.txt").write_text("other\n")
        run(repository, "add", ".")
    elif change == "removed":
        (repository / "b.txt").unlink()
    elif change == "renamed":
        run(repository, "mv", "b.txt", "c.txt")
    elif change == "new":
        (repository / "c.bin").write_text("x")
    elif change == "ignored":
        (repository / ".git/info").mkdir(exist_ok=True)
        (repository / ".git/info/exclude").write_text("*.py2\n")
        (repository / "x.py2").write_text("x")
    elif change == "line ends":
        (repository / ".gitattributes").write_text("* text=auto eol=crlf\n")
        run(repository, "add", ".")
        run(repository, "commit", "-qm", "ends")
        (repository / "b.txt").write_bytes(b"text\r\n")
    elif change == "mode":
        (repository / "a.py").chmod(0o755)
    elif change == "ümlaut":
        (repository / "ü.txt").write_text("x\n")
        run(repository, "add", ".")
    found = look(repository)
    machine = found["provenance"]
    assert isinstance(machine, dict)
    assert (machine["commit"], machine["dirty"], found["diff"]) == as_before(repository)


def test_a_linked_work_tree_and_a_folder_below_are_found(repository: Path, tmp_path: Path) -> None:
    run(repository, "worktree", "add", "-q", str(tmp_path / "linked"))
    (tmp_path / "linked/deep/er").mkdir(parents=True)
    for at in (tmp_path / "linked", tmp_path / "linked/deep/er"):
        state = provenance.git_state(at)
        assert state == {**provenance.git_state(repository), "root": tmp_path / "linked"}
    (tmp_path / "linked/.gitx").mkdir()
    (repository / "sub/.git").mkdir(parents=True)
    assert provenance.git_state(repository / "sub")["root"] == repository, (
        "an empty folder of that name is none"
    )


def test_a_filter_of_the_users_own_runs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git-lfs installs itself; also where the repository names it a second time."""
    settings = tmp_path / "gitconfig"
    settings.write_text('[filter "up"]\n\tclean = tr a-z A-Z\n\trequired = true\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setitem(ENVIRONMENT, "GIT_CONFIG_GLOBAL", str(settings))
    (repository / ".gitattributes").write_text("*.up filter=up\n")
    (repository / "x.up").write_text("abc\n")
    run(repository, "add", ".")
    run(repository, "commit", "-qm", "filtered")
    os.utime(repository / "x.up", (1, 1))
    assert provenance.git_state(repository)["dirty"] is False
    run(repository, "config", "filter.up.clean", "tr a-z B")
    assert provenance.git_state(repository)["dirty"] is False, "the user's, not the repository's"
