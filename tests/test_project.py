"""What holds for the project as a whole: layers, packaging, and that the documents name what exists."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted((ROOT / "dlsearch").rglob("*.py"))
LIGHT = ("torch", "pytorch_lightning", "mlflow", "optuna", "sqlalchemy", "numpy")


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )


def committed() -> list[Path]:
    """The files of the repository, or of the folder where it was unpacked without git."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed.returncode == 0:
        return [
            path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()
        ]
    made = {"mlruns", "build", "dist"}
    ours = [
        path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in made
    ]
    return [path for top in ours for path in (top, *top.rglob("*")) if path.is_file()]


def test_layers_hold() -> None:
    checked = run(
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())",
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_every_module_says_its_purpose(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_a_statement_assigns_one_thing() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        if any(isinstance(target, ast.Tuple) for target in node.targets)
    ]
    assert found == []


def test_public_surface_is_frozen() -> None:
    package = importlib.import_module("dlsearch")
    modules = {path.name.removesuffix(".py") for path in (ROOT / "dlsearch").iterdir()}
    surface = {name for name in vars(package) if not name.startswith("_")} - modules
    assert surface == set()
    assert package.__version__ == "0.1.0"


def test_the_lock_names_no_address_and_pins_everything() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|--(extra-)?index-url|--find-links|file:", text)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) > 100
    for block in blocks:
        assert re.match(r"[\w.-]+==\S+", block), block.splitlines()[0]
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_the_lock_covers_what_the_project_asks_for() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = re.findall(
        r"^([\w.-]+)==([^\s;\\]+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE
    )
    versions = {canonicalize_name(name): version for name, version in locked}
    asked = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    asked += PROJECT["build-system"]["requires"]
    for requirement in map(Requirement, asked):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, requirement.name
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_no_large_file() -> None:
    assert not [
        str(path.relative_to(ROOT)) for path in committed() if path.stat().st_size > 2_000_000
    ]


def test_documents_name_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "check", "bench", "ui", "clean", "docs", "help"} <= targets
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        named = set(re.findall(r"(?:^|`|\$)\s*make ([a-z-]+)", text, flags=re.MULTILINE))
        assert named, f"{name} names no target"
        assert named <= targets, f"{name} names {named - targets}"
    assert {"demo", "test"} <= set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))


def test_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony
    shown = run("make", "help", MAKEFLAGS="")
    assert (
        re.findall(r"^  make ([\w-]+) ", shown.stdout, flags=re.MULTILINE) == phony.group(1).split()
    )


def test_an_old_or_missing_python_is_one_clear_line(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1"\nexit 1\n')
    old.chmod(0o755)
    for name, expected in (
        (old, "Python 3.9.1 is too old"),
        (tmp_path / "none", "install Python 3.11 or newer"),
    ):
        made = run("make", "env", f"PYTHON={name}", f"VENV={tmp_path / 'venv'}", MAKEFLAGS="")
        assert made.returncode != 0
        assert expected in made.stderr.splitlines()[0]
        assert not (tmp_path / "venv").exists()


def test_the_hydra_plugin_is_found_and_light() -> None:
    code = (
        "import sys; from hydra.core.plugins import Plugins; from hydra.plugins.sweeper import Sweeper;"
        "print([each.__module__ for each in Plugins.instance().discover(Sweeper)]);"
        f"sys.exit(', '.join(name for name in {LIGHT!r} if name in sys.modules) or 0)"
    )
    path = os.pathsep.join((str(ROOT), str(ROOT / "dlsearch" / "_hydra")))
    found = run(sys.executable, "-c", code, PYTHONPATH=path)
    assert found.returncode == 0, f"the plugin imports {found.stderr}"
    assert "hydra_plugins.dlsearch_plugins" in found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_configs_and_plugin(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {
        f"dlsearch/conf/{path.relative_to(ROOT / 'conf')}"
        for path in (ROOT / "conf").rglob("*.yaml")
    }
    assert configs <= names
    assert "hydra_plugins/dlsearch_plugins/__init__.py" in names
    assert "hydra_plugins/__init__.py" not in names  # a namespace, shared with other plugins
    assert not [name for name in names if name.startswith(("dlsearch/_hydra", "tests/", "conf/"))]
    # every module of the checkout, and nothing of its surroundings
    assert {str(p.relative_to(ROOT)) for p in MODULES if "_hydra" not in p.parts} <= names


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    code = (
        "import dlsearch; from dlsearch.config.compose import config_dir; from hydra.core.plugins import Plugins;"
        "from hydra.plugins.launcher import Launcher;"
        "print(dlsearch.__file__, config_dir(), [c.__name__ for c in Plugins.instance().discover(Launcher)])"
    )
    # -P keeps the working directory, which is the checkout, off the path
    ran = run(sys.executable, "-P", "-c", code, PYTHONPATH=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert str(tmp_path / "dlsearch" / "conf") in ran.stdout
    assert "LocalLauncher" in ran.stdout
    assert str(ROOT) not in ran.stdout


def _commands_of_ci(folder: Path, **environment: str) -> list[str]:
    """What ``.ci/run`` calls, in order, each with the data folder that it would see; nothing is really run."""
    log = folder / "log"
    (folder / ".ci").mkdir()
    (folder / "tests").mkdir()
    (folder / "tests/test_one.py").write_text("@pytest.mark.data\ndef test_it(): ...\n")
    (folder / "tests/test_two.py").write_text("def test_it(): ...\n")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text())
    for name in (".venv/bin/python", "make"):
        program = folder / name
        program.write_text(
            f'#!/bin/sh\necho "{Path(name).name} $* [${{DLSEARCH_DATA:-}}]" >> "{log}"\n'
        )
        program.chmod(0o755)
    surroundings = {
        key: value for key, value in os.environ.items() if key != "DLSEARCH_DATA"
    } | environment
    surroundings["PATH"] = f"{folder}:{surroundings['PATH']}"
    subprocess.run(
        ["bash", folder / ".ci" / "run"],
        check=True,
        env=surroundings,
        timeout=60,
        capture_output=True,
    )
    return log.read_text().splitlines()


def test_ci_runs_the_tests_without_data_and_with_them(tmp_path: Path) -> None:
    calls = _commands_of_ci(tmp_path, DLSEARCH_DATA="/the/data")
    assert [call for call in calls if call.startswith("make test")] == [
        "make test []",
        "make test ARGS=-m 'not storm' tests/test_one.py  [/the/data]",
        "make test-storms [/the/data]",
    ]


def test_ci_without_any_data_tests_once(tmp_path: Path) -> None:
    calls = _commands_of_ci(tmp_path)
    assert [call for call in calls if call.startswith("make test")] == [
        "make test []",
        "make test-storms []",
    ]
