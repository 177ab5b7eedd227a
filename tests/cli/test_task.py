"""The task function that Hydra calls, and the exit code of a search."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from dlsearch.app.session import SearchOutcome, SessionTask
from dlsearch.cli import main
from dlsearch.cli.commands import VERBS


def test_a_task_that_goes_to_another_process_leaves_its_session_behind():
    task = main._Task(("mypackage",))
    task.session.outcome = outcome()
    task.codes.append(1)
    other = pickle.loads(pickle.dumps(task))
    assert isinstance(other, SessionTask)
    assert other._packages == ("mypackage",)
    assert other.session.outcome is None
    assert other.codes == []


def outcome() -> SearchOutcome:
    return SearchOutcome(
        name="s",
        storage_url="sqlite:////s/dlsearch.db",
        store=Path("/s"),
        interrupted=False,
        failed=False,
        unscored=None,
        report=None,
        shipped=True,
    )


@pytest.mark.parametrize(
    ("changes", "code", "says_next"),
    [
        ({}, main.DONE, True),
        ({"shipped": False}, main.DONE, True),
        ({"failed": True}, main.FAILED, True),
        ({"unscored": "no space"}, main.FAILED, True),
        ({"interrupted": True}, main.INTERRUPTED, False),
        ({"interrupted": True, "failed": True}, main.INTERRUPTED, False),
    ],
)
def test_the_exit_code_of_a_search(changes, code, says_next, capsys):
    assert main._end_search(replace(outcome(), **changes)) == code
    said = "next: dlsearch ui · dlsearch status s · dlsearch trials s\n" if says_next else ""
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_file_of_that_name_and_answers_for_help(verb, capsys):
    path = Path(main.__file__).parent / "commands" / f"{verb.replace('-', '_')}.py"
    assert path.is_file()
    with pytest.raises(SystemExit) as end:
        VERBS[verb](["--help"])
    assert end.value.code == 0
    assert f"usage: dlsearch {verb}" in capsys.readouterr().out


def test_no_other_file_lies_among_the_verbs():
    folder = Path(main.__file__).parent / "commands"
    files = {path.stem.replace("_", "-") for path in folder.glob("*.py")} - {"--init--"}
    assert files == set(VERBS)
