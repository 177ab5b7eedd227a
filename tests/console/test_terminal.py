"""What dlsearch itself writes where a terminal may be."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import dlsearch
from dlsearch.console.terminal import console, say, shown, warn

PACKAGE = Path(dlsearch.__file__).parent
#: Where the streams themselves are put in place; and a trial's traceback, which goes to its log.
THEMSELVES = {"console/terminal.py", "console/streams.py", "console/output.py"}
TRACEBACKS = {"execution/ensemble_scoring.py": 1, "execution/trial_main.py": 1}
EVIL = "a\x1b]52;c;aGk=\x07b\x1b[2J\x1b[31m\x9b6n\r\n\b\x7f\u202ec\u2066\0"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def obeyed(text: str) -> set[str]:
    """What a terminal would obey in a text, or what would make a line of it look like another."""
    return {
        each
        for each in text
        if not each.isprintable() and each not in "\n\u200c\u200d\u00a0\u202f\u2009"
    }


@pytest.mark.parametrize(
    ("text", "one_line"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\nand\ttab", "two\\nlines\\r\\nand\\ttab"),
        ("\x9b31m \x07 \b \x7f \0", "\\x9b31m \\x07 \\x08 \\x7f \\x00"),
        ("\u202eevil\u2069 \u200f \u2028", "\\u202eevil\\u2069 \\u200f \\u2028"),
        ("\ud800 \U000e0041", "\\ud800 \\U000e0041"),
        ("ü漢😀 👩\u200d💻 98.1\u202f%", "ü漢😀 👩\u200d💻 98.1\u202f%"),
    ],
)
def test_shown(text: str, one_line: str) -> None:
    assert shown(text) == one_line
    assert shown(shown(text)) == shown(text)


def test_each_line_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"study {EVIL}", "next")
    warn(f"failed: {EVIL}", "next")
    said = capsys.readouterr()
    assert said.out == f"study {shown(EVIL)}\nnext\n"
    assert said.err == f"dlsearch: failed: {shown(EVIL)}\ndlsearch: next\n"
    assert not obeyed(said.out + said.err)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_has_its_own_colours_and_nobody_elses(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal() if terminal else io.StringIO()
    table = Table(title=f"t{EVIL}")
    table.add_column(f"h{EVIL}")
    table.add_row(Text(f"c{EVIL}", style="bold"))
    table.add_row(f"[link=http://evil.invalid]x[/link] {EVIL}")
    made = console(out)
    made.print(table)
    made.print(Text(f"bold {EVIL}", style="bold red"))
    made.print(f"[red]{EVIL}")
    text = out.getvalue()
    for mine in ("\x1b[1m", "\x1b[1;31m", "\x1b[3m", "\x1b[0m", "\x1b[1;3m"):
        text = text.replace(mine, "")
    assert not obeyed(text)
    assert "]8;" not in text
    assert "[link=http" in text
    assert ("\x1b[1;31m" in out.getvalue()) is terminal


def test_a_live_table_keeps_the_cursor() -> None:
    from rich.live import Live

    out = Terminal()
    with Live(Text("a\x1b[2J"), console=console(out), auto_refresh=False) as live:
        live.update(Text("b\x1b]0;x\x07"), refresh=True)
    assert "\x1b[2J" not in out.getvalue()
    assert "\x1b]" not in out.getvalue()
    assert "b\\x1b]0;x" in out.getvalue()
    assert "\x1b[?25l" in out.getvalue()


def test_nothing_is_written_past_it() -> None:
    found: dict[str, int] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in (
                "print",
                "sys.stdout.write",
                "sys.stderr.write",
                "Console",
                "sys.stdout.buffer.write",
            ):
                found[name] = found.get(name, 0) + 1
    assert {name: count for name, count in found.items() if name not in THEMSELVES} == TRACEBACKS


def test_the_message_of_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from dlsearch.cli.main import guarded
    from dlsearch.core.errors import ConfigError

    def fails(error: Exception) -> int:
        return guarded(lambda: (_ for _ in ()).throw(error))

    assert fails(ConfigError(f"key{EVIL}", f"expected {EVIL}", EVIL)) == 2
    assert fails(RuntimeError(EVIL)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert not obeyed(said)


def test_the_standard_streams_are_tame_while_a_command_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dlsearch.cli import main as cli

    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    def verb(_: list[str]) -> int:
        sys.stdout.write(f"of a library {EVIL}\x1b[32mgreen\x1b[0m\n")
        return 0

    monkeypatch.setattr("dlsearch.cli.commands.VERBS", {"status": verb})
    with pytest.raises(SystemExit) as end:
        cli.main(["status"])
    assert end.value.code == 0
    assert sys.stdout is out
    assert "\x1b]52" not in out.getvalue()
    assert "\x1b[32mgreen\x1b[0m" in out.getvalue()
