"""Hydra's options: every beginning that argparse takes for one is known as that one."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra

from dlsearch.cli.main import main
from dlsearch.config.flags import OPTIONS, RERUN, spelled_out
from dlsearch.core.errors import ConfigError


def test_the_options_are_hydras() -> None:
    from hydra._internal.utils import get_args_parser

    theirs = {name for action in get_args_parser()._actions for name in action.option_strings}
    assert {name for name in theirs if name.startswith("--")} == set(OPTIONS)


@pytest.mark.parametrize("length", range(3, len(RERUN) + 1))
def test_no_pickle_is_run_again(length: int) -> None:
    short = RERUN[:length]
    for words in (
        [short, "evil.pickle"],
        [f"{short}=evil.pickle"],
        ["-m", "model=mlp", short],
        [f"{short}="],
        [short],
    ):
        with pytest.raises(ConfigError, match="--experimental-rerun"):
            spelled_out(words)


@pytest.mark.parametrize(
    "words",
    [[RERUN, "evil.pickle"], ["--exp=evil.pickle"], ["-m", "--experimental-r", "evil.pickle"]],
)
def test_the_command_says_so_and_reads_nothing(words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pickle").write_bytes(b"cos\nmkdir\n(Vcanary\ntR.")
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.err.count("\n") == 1
    assert "--experimental-rerun" in said.err
    assert not (tmp_path / "canary").exists()


def test_other_options_may_be_shortened() -> None:
    given = [
        "--multi",
        "--config-d=mine",
        "--config-dir",
        "mine",
        "--cfg",
        "job",
        "-m",
        "-cd",
        "x",
        "a=--exp",
        "--",
        "--exp",
    ]
    want = [
        "--multirun",
        "--config-dir=mine",
        "--config-dir",
        "mine",
        "--cfg",
        "job",
        "-m",
        "-cd",
        "x",
        "a=--exp",
    ]
    assert spelled_out(given) == [*want, "--", "--exp"]


@pytest.mark.parametrize(
    ("word", "hint"),
    [("--config", "or"), ("--mulitrun", "--multirun"), ("--nothing", "see --help")],
)
def test_what_is_no_option_is_refused(word: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=word) as refused:
        spelled_out([word])
    assert hint in refused.value.hint
