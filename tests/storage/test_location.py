"""Where a storage may be: SQLite not on file systems of several machines, whatever the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dlsearch.cli.main import main
from dlsearch.core.errors import ConfigError
from dlsearch.storage import location
from dlsearch.storage.location import filesystem, refuse_network, storage_of

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
40 27 0:40 / {0} rw,relatime shared:7 - {1} server:/export rw,vers=4.2
41 40 254:1 / {0}/local rw,relatime - xfs /dev/vdb rw
42 27 0:42 / {0}\040with\040blanks rw,relatime - {1} server:/export rw
43 27 0:43 / {0}/covered rw,relatime - {1} server:/export rw
44 27 0:44 / {0}/covered rw,relatime - tmpfs tmpfs rw
"""
KINDS = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "fuse.sshfs",
    "lustre",
    "gpfs",
    "ceph",
    "beegfs",
    "afs",
    "fuse.glusterfs",
]


@pytest.fixture
def mounts(tmp_path):
    def make(kind="nfs4"):
        path = tmp_path / "mountinfo"
        path.write_text(MOUNTS.format(tmp_path / "share", kind).lstrip())
        (tmp_path / "share").mkdir(exist_ok=True)
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_sqlite_on_a_network_is_refused_in_one_line(tmp_path, mounts, kind):
    with pytest.raises(ConfigError) as error:
        refuse_network(f"sqlite:///{tmp_path}/share/mlruns/dlsearch.db", mounts(kind))
    line = str(error.value)
    assert line.startswith(
        f"study.storage: {tmp_path}/share/mlruns/dlsearch.db lies on a network file system ({kind})"
    )
    assert "-shm file is shared memory" in line
    assert "postgresql+psycopg://" in line
    assert "paths.store=" in line
    assert "\n" not in line
    assert list((tmp_path / "share").iterdir()) == [], "nothing was made"


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "virtiofs", "fuse.fuse-overlayfs"]
)
def test_others_are_not(tmp_path, mounts, kind):
    refuse_network(f"sqlite:///{tmp_path}/share/dlsearch.db", mounts(kind))


def test_the_mount_that_holds_the_nearest_parent_decides(tmp_path, mounts):
    found = mounts("nfs4")
    (tmp_path / "share with blanks").mkdir()
    (tmp_path / "share/local").mkdir()
    (tmp_path / "share/covered").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    for name, kind in {
        "share": "nfs4",
        "share/none/yet": "nfs4",
        "share with blanks/x": "nfs4",
        "link/dlsearch.db": "nfs4",
        "share/local/x": "xfs",
        "link/local/x": "xfs",
        "share/covered/x": "tmpfs",
        "shared/x": "ext4",
        "x": "ext4",
    }.items():
        assert filesystem(tmp_path / name, found) == kind, name
    refuse_network("postgresql+psycopg://host/db", found)


def test_a_machine_that_does_not_say_is_believed(tmp_path):
    assert filesystem(tmp_path, tmp_path / "absent") is None
    refuse_network(f"sqlite:///{tmp_path}/dlsearch.db", tmp_path / "absent")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
def test_this_machine_says():
    assert filesystem(Path("/proc/self")) == "proc"


@pytest.mark.parametrize(
    "words", [["-m"], ["status", "s"], ["worker", "study=s"], ["studies"]], ids=lambda w: w[0]
)
def test_the_command_says_so_before_anything_is_written(
    tmp_path, monkeypatch, capsys, mounts, words
):
    monkeypatch.chdir(tmp_path)
    asked, found = location.filesystem, mounts("nfs4")
    if words != ["-m"]:  # it looks whether there is a study at all
        (tmp_path / "share/store").mkdir()
        (tmp_path / "share/store/dlsearch.db").touch()
    monkeypatch.setattr(location, "filesystem", lambda path, _=None: asked(path, found))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        main([*words, f"paths.store={tmp_path}/share/store"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("dlsearch: study.storage: ")
    assert "(nfs4)" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_who_knows_better_may(tmp_path, monkeypatch):
    monkeypatch.setattr(location, "filesystem", lambda path, _=None: "nfs4")
    with pytest.raises(ConfigError, match="nfs4"):
        storage_of(tmp_path, {"storage": None, "storage_on_network_fs": False})
    assert storage_of(tmp_path, {"storage": None, "storage_on_network_fs": True}).startswith(
        "sqlite:///"
    )
