"""The searches and single runs that docs, README and messages print compose as they are printed."""

from __future__ import annotations

import pytest

from dlsearch.cli.commands.plan import plan
from tests.e2e.documented import DOTS, NEEDS, NEEDS_OF_VERBS, collect
from tests.kinds import first_of_each_kind

COMMANDS = [each for each in collect() if each.needs is None]
SEARCHES = [each for each in COMMANDS if each.verb is None]


def test_commands_are_found_in_pages_and_messages():
    found = collect()
    assert len(found) > 60
    sources = {each.where for each in found}
    assert {"README.md", "docs/reproducibility.md", "docs/using-models.md"} <= sources
    assert any(source.startswith("dlsearch/") for source in sources)
    named = {each.needs for each in found} - {None}
    assert named == {*NEEDS.values(), *NEEDS_OF_VERBS.values()}, "and no more than what is needed"


@pytest.mark.parametrize(
    "command", first_of_each_kind(SEARCHES, lambda each: each.words[0] == "-m")
)
def test_what_a_search_or_a_single_run_is_told_composes(command, capsys):
    words = [word for word in command.words if word not in ("-m", "--help")]
    words = ["experiment=quickstart" if word.endswith(DOTS) else word for word in words]
    assert plan(words) == 0, command
    assert "nothing was written" in capsys.readouterr().out
