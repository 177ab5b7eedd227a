"""Tables on the terminal, and in a pipe."""

from __future__ import annotations

import io

import pytest

from dlsearch.app.phrases import format_value
from dlsearch.cli.columns import print_table

HEADINGS = ("trial", "state", "space.optimizer.name")
ROWS = [["0", "complete", "[bold]adam[/bold]"], ["11", "failed(oom)", "[/x] \x1b[2J日本"]]


def test_a_pipe_gets_a_whole_line_for_each_row(capsys):
    print_table(HEADINGS, [*ROWS, ["2", "complete", "a" * 300]], left=("state",))
    head, rule, first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "complete", "[bold]adam[/bold]"]
    assert second.endswith("[/x] \\x1b[2J日本")
    assert third.endswith("a" * 300)
    assert [line.index("complete") for line in (first, third)] == [head.index("state")] * 2
    assert set(rule) == {"─", " "}
    assert len(head) == len(rule) == len(third) == len(second) + 2, "two wide characters"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("rows", "folded"), [(500, True), (501, False)])
def test_a_terminal_gets_columns_of_its_width_unless_the_table_is_long(rows, folded, monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    print_table(HEADINGS, [[str(n), "complete", "word " * 30] for n in range(rows)])
    widest = max(len(line.rstrip()) for line in out.getvalue().splitlines() if "word" in line)
    assert (widest <= 60) is folded


def test_what_a_study_holds_is_not_read_as_markup(monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("COLUMNS", "100")
    print_table(HEADINGS, ROWS)
    assert "[bold]adam[/bold]" in out.getvalue()
    assert "[/x] \\x1b[2J日本" in out.getvalue()


def test_nothing_is_printed_below_no_rows(capsys):
    print_table(("a", "b"), [])
    assert capsys.readouterr().out == "a  b\n─  ─\n"


def test_a_value_cannot_move_the_cursor():
    assert format_value("a\x1b[31m\r\nb\u202e☃") == "a\\x1b[31m\\r\\nb\\u202e☃"
    assert format_value(0.12345) == "0.123"
