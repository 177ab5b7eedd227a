from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from dlsearch.core import permission, provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "user"
    (root / "pkg_of_user").mkdir(parents=True)
    (root / "pkg_of_user/__init__.py").write_text("LR = 1\n")
    (root / "requirements.lock").write_text("torch==2.15.0\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        identity = ["-c", "user.name=u", "-c", "user.email=u@example.org"]
        subprocess.run(["git", "-C", str(root), *identity, *words], check=True)
    monkeypatch.syspath_prepend(root)
    permission.grant(["pkg_of_user"])
    return root


def collect(root: Path) -> dict[str, object]:
    return provenance.collect(
        config={"a": 1}, space=[], data={}, allow_targets=["pkg_of_user.nets"], cwd=root
    )


def test_a_clean_tree(repository: Path) -> None:
    found = provenance.collect(config={"a": 1}, space=[], data={}, cwd=repository)
    machine = found["provenance"]
    assert len(machine["commit"]) == 40
    assert machine["dirty"] is False
    assert found["diff"] == ""
    assert machine["packages"]["torch"].startswith("2.")
    assert machine["cores"] >= 1
    assert len(machine["lock"]) == 64
    assert set(found["sha"]) == {"config", "space", "data", "env", "code"}
    json.dumps(found)


def test_the_diff_brings_back_the_change(repository: Path) -> None:
    (repository / "pkg_of_user/__init__.py").write_text('LR = 2\nurl = "http://me:hunter2@host"\n')
    (repository / "pkg_of_user/new.py").write_text("x = 1")
    (repository / "weights.bin").write_bytes(b"\0" * 100)
    found = collect(repository)
    diff = str(found["diff"])
    assert found["provenance"]["dirty"] is True  # type: ignore[index]
    assert "hunter2" not in diff
    assert "weights.bin" not in diff
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "."], check=True)
    (repository / "pkg_of_user/new.py").unlink()
    subprocess.run(["git", "-C", str(repository), "apply", "-"], input=diff, text=True, check=True)
    assert (
        repository / "pkg_of_user/__init__.py"
    ).read_text() == 'LR = 2\nurl = "http://***@host"\n'
    assert (repository / "pkg_of_user/new.py").read_text() == "x = 1"


def test_the_users_code_is_in_the_digest(repository: Path) -> None:
    before = provenance.code_digest(["pkg_of_user.nets"])
    assert before == provenance.code_digest(["pkg_of_user"])
    assert before != provenance.code_digest()
    (repository / "pkg_of_user/__init__.py").write_text("LR = 3\n")
    assert provenance.code_digest(["pkg_of_user"]) != before


def test_outside_a_repository(tmp_path: Path) -> None:
    found = provenance.collect(config={}, space=[], data={}, cwd=tmp_path)
    assert found["provenance"]["commit"] is None
    assert found["provenance"]["dirty"] is False


def test_secrets_reach_neither_the_document_nor_the_patch(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlsearch.planning.open_study import document_of
    from tests.study.studies import CONFIG, STUDY, draft

    monkeypatch.setenv("WANDB_API_KEY", "hunter2-env")
    (repository / "settings.yaml").write_text("db_password: hunter2-yaml\nlr: 0.1\n")
    (repository / "pkg_of_user/new.py").write_text('TOKEN = "hunter2-code"\nn_tokens = 512\n')
    found = collect(repository)
    storage = "postgresql+psycopg://me:hunter2-url@host/db"
    given = draft(
        overrides=[
            "+data.api_key=hunter2-override",
            f"study.storage='{storage}'",
            "optimizer.lr=0.1",
        ],
        config={
            "data": {**CONFIG["data"], "api_key": "hunter2-config"},
            "study": {**STUDY, "storage": storage},
        },
    )
    monkeypatch.setattr(sys, "argv", ["dlsearch", "-m", *given.overrides])
    written = json.dumps([document_of(given, {}, found).plain, found])
    assert "hunter2" not in written
    assert "optimizer.lr=0.1" in written
    assert "+n_tokens = 512" in str(found["diff"])
    assert "+lr: 0.1" in str(found["diff"])


def test_what_is_installed_and_which_code_ran_can_be_named(repository: Path) -> None:
    machine = collect(repository)["provenance"]
    assert isinstance(machine, dict)
    assert machine["installed"]["pytest"] == importlib.metadata.version("pytest")
    assert set(machine["packages"]) <= set(machine["installed"])
    assert "dlsearch/core/provenance.py" in machine["code"]
    before = machine["code"]["pkg_of_user/__init__.py"]
    (repository / "pkg_of_user/__init__.py").write_text("LR = 2\n")
    assert provenance.code_files(["pkg_of_user"])["pkg_of_user/__init__.py"] != before
    assert machine["memory_mb"] > 100


def test_digests_do_not_depend_on_order() -> None:
    assert provenance.digest({"a": 1, "b": [1, 2]}) == provenance.digest({"b": [1, 2], "a": 1})
    assert provenance.digest({"a": 1}) != provenance.digest({"a": 2})


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from dlsearch.core import masking, permission, provenance, session; "
        "from dlsearch.core.machine import nvml; "
        "from dlsearch.tracking import destination, handle, journal, layout, tail; "
        "from dlsearch.tracking.mlflow import shipper, ui; "
        "heavy = ('torch', 'mlflow', 'numpy', 'pytorch_lightning', 'optuna', 'filelock', 'pynvml'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_package_brings_inside_itself_is_no_part_of_the_environment(tmp_path, monkeypatch):
    for name, place in (
        ("plain", "site"),
        ("vendored", "site/big/thirdparty"),
        ("beside", "elsewhere"),
    ):
        info = tmp_path / place / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "site"))
    monkeypatch.setattr(
        sys,
        "path",
        [str(tmp_path / place) for place in ("site", "site/big/thirdparty", "elsewhere")],
    )
    provenance._all_packages.cache_clear()
    try:
        assert provenance._all_packages() == {"plain": "1.0", "beside": "1.0"}
    finally:
        provenance._all_packages.cache_clear()
