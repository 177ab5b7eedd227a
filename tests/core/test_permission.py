"""Who may admit a package: the person at the keyboard, and no file that somebody else wrote."""

from __future__ import annotations

import os
import sys

import pytest

from dlsearch.cli.main import main
from dlsearch.config.compose import compose_config
from dlsearch.core import permission
from dlsearch.core.errors import ConfigError

HIDDEN = "import pathlib\npathlib.Path('canary').touch()\nclass Net: pass\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a package in it, and a home without settings."""
    here = tmp_path / "work"
    here.mkdir()
    (here / "mine.py").write_text(HIDDEN)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("DLSEARCH_STORE", str(here / "store"))
    yield here
    sys.modules.pop("mine", None)


def admit(path, text):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)


def test_a_word_of_the_command_line_admits(folder):
    assert permission.admitted(["model=mlp", "allow_targets=[mine,other.nets]"]).packages == (
        "mine",
        "other.nets",
    )
    assert permission.admitted(["+allow_targets=[a]", "++allow_targets=[b]"]).packages == ("b",), (
        "the last one counts"
    )
    assert (
        permission.admitted(
            ["model.allow_targets=[a]", "allow_target=[a]", "~allow_targets"]
        ).packages
        == ()
    )
    for word in (
        "allow_targets=[os]",
        "allow_targets=[mine],[other]",
        "allow_targets={a: b}",
        "allow_targets=[${x}]",
    ):
        with pytest.raises(ConfigError, match=r"^allow_targets: "):
            permission.admitted([word])


def test_the_project_of_the_working_folder_and_ones_own_settings_admit(folder, tmp_path):
    admit(folder / "pyproject.toml", '[tool.dlsearch]\nallow_targets = ["mine"]\n')
    admit(tmp_path / "settings/dlsearch/settings.toml", 'allow_targets = ["hers", "mine"]\n')
    given = permission.admitted(["allow_targets=[typed]"])
    assert given.packages == ("typed", "mine", "hers")
    assert given.lines() == [
        f"allow_targets: hers ({tmp_path / 'settings/dlsearch/settings.toml'})",
        "allow_targets: mine (pyproject.toml)",
    ]


@pytest.mark.parametrize(
    "text", ["", "[tool]\n", "[tool.dlsearch]\n", "tool = 3\n", "not toml", "[tool.other]\nx=1\n"]
)
def test_a_project_that_says_nothing_admits_nothing(folder, text):
    admit(folder / "pyproject.toml", text)
    assert permission.admitted([]).packages == ()


@pytest.mark.parametrize("value", ['["os"]', '"mine"', "[3]", '["a b"]', '["torch"]', "{a = 1}"])
def test_a_file_that_admits_what_cannot_be_is_named(folder, tmp_path, value):
    admit(folder / "pyproject.toml", f"[tool.dlsearch]\nallow_targets = {value}\n")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml: allow_targets: "):
        permission.admitted([])
    (folder / "pyproject.toml").unlink()
    admit(tmp_path / "settings/dlsearch/settings.toml", f"allow_targets = {value}\n")
    with pytest.raises(ConfigError, match=r"settings\.toml: allow_targets: "):
        permission.admitted([])


def test_the_record_says_what_a_project_admits(folder):
    permission.grant(["mine"])
    assert list(compose_config(["model=mlp"]).allow_targets) == ["mine"]
    assert list(compose_config(["model=mlp", "allow_targets=[other]"]).allow_targets) == [
        "other",
        "mine",
    ]


def test_a_folder_is_on_the_import_path_only_while_a_package_in_it_is_admitted(folder, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(
        sys, "path", [entry for entry in sys.path if entry not in ("", str(folder))]
    )
    permission.grant(["not_here"])
    assert str(folder) not in sys.path
    assert os.environ["PYTHONSAFEPATH"] == "1"
    permission.grant(["mine.nets"])
    assert sys.path[-1] == str(folder)


YAML = "# @package _global_\nallow_targets: [mine]\nmodel: {_target_: mine.Net}\n"
SPACE = "# @package _global_\nallow_targets: [mine]\nspace: {_function_: mine.Net}\n"
CALLBACK = "# @package _global_\nallow_targets: [mine]\ncallbacks: {x: {_target_: mine.Net}}\n"
OVERRIDDEN = f"{YAML}hydra: {{overrides: {{task: ['allow_targets=[mine]']}}}}\n"


@pytest.mark.parametrize("words", [["plan"], [], ["-m"], ["describe"]], ids=" ".join)
@pytest.mark.parametrize(
    "text", [YAML, SPACE, CALLBACK, OVERRIDDEN], ids=["model", "space", "callback", "overrides"]
)
def test_a_yaml_admits_nothing(folder, capsys, words, text):
    if words == ["describe"] and text is not YAML:
        text = YAML.replace("model: {", "model: {a: 1, ")
    if words == [] and text is SPACE:
        text = text.replace("space: {_function_: mine.Net}", "optimizer: {_target_: mine.Net}")
    admit(folder / "conf/experiment/theirs.yaml", text)
    with pytest.raises(SystemExit) as end:
        main([*words, "--config-dir", "conf", "experiment=theirs", "model=mlp", "data=digits"][:8])
    said = capsys.readouterr()
    assert end.value.code == 2, said
    assert ("hydra.overrides.task" if text is OVERRIDDEN else "allow_targets=[mine]") in said.err
    assert said.err.count("\n") == 1
    assert not (folder / "canary").exists()
    assert not (folder / "store").exists()


def test_a_project_admits_folders_that_its_config_files_may_name(folder, tmp_path, capsys):
    admit(
        folder / "conf/experiment/hers.yaml",
        f"# @package _global_\npaths: {{data: {tmp_path / 'datasets'}}}\n",
    )
    words = ["plan", "--config-dir", "conf", "experiment=hers", "model=mlp", "data=digits"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "allow_paths" in capsys.readouterr().err
    admit(folder / "pyproject.toml", '[tool.dlsearch]\nallow_paths = ["../datasets"]\n')
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    admit(folder / "pyproject.toml", '[tool.dlsearch]\nallow_paths = "../datasets"\n')
    with pytest.raises(ConfigError, match=r"^pyproject\.toml: allow_paths: "):
        permission.admitted([])
