"""The command line as such: what it says when something goes wrong."""

from __future__ import annotations

import pytest

from dlsearch.cli.main import FAILED, guarded


class UnspeakableError(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ValueError("no \x00 such\x1b[2J point\nat all"),
            "ValueError: no \\x00 such\\x1b[2J point at all",
        ),
        (UnspeakableError(), "UnspeakableError: (its text cannot be made)"),
    ],
)
def test_what_a_users_code_raises_is_said_in_one_line_that_leaves_the_terminal_alone(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def action() -> int:
        raise error

    monkeypatch.delenv("DLSEARCH_DEBUG", raising=False)
    assert guarded(action) == FAILED
    assert capsys.readouterr().err == f"dlsearch: {said} (DLSEARCH_DEBUG=1 shows where)\n"
