"""What a user's code says, made fit for databases, journals, MLflow, logs and terminals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.core.text import (
    MAX_LINE_CHARACTERS,
    MAX_TRACEBACK_CHARACTERS,
    NO_TEXT,
    clean_line,
    clean_text,
    clean_value,
    line_of_error,
    place_of_error,
    text_of,
    traceback_of,
)
from dlsearch.tracking.journal import Journal, rows


class Mute(Exception):
    """An exception that cannot say anything."""

    def __str__(self):
        raise ZeroDivisionError


class Numeric(Exception):
    """An exception whose text is no text."""

    def __str__(self):
        return 3


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_what_a_sink_refuses_is_written_out():
    assert clean_text("a\0b\ud800c\x1b[2J\x7f\u202e") == "a\\x00b\\ud800c\\x1b[2J\\x7f\\u202e"
    assert clean_text("Überschrift 漢字 😀\tnew\nline") == "Überschrift 漢字 😀\tnew\nline"


def test_a_line_is_one_and_bounded():
    assert clean_line(" a\n  b\r\nc ") == "a b c"
    cut = clean_line("x" * 50_000_000)
    assert len(cut) == MAX_LINE_CHARACTERS
    assert cut.endswith(" … [50,000,000 characters]")
    assert len(clean_line("\0" * MAX_LINE_CHARACTERS)) == MAX_LINE_CHARACTERS


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("half a pair: \ud800"), "ValueError: half a pair: \\ud800"),
        (ValueError("a NUL: \0"), "ValueError: a NUL: \\x00"),
        (ValueError("\n\nthe second line"), "ValueError: the second line"),
        (ValueError(), "ValueError"),
        (Mute(), f"Mute: {NO_TEXT}"),
        (Numeric(), f"Numeric: {NO_TEXT}"),
        (ConfigError("task", "is none", "task=…"), "task: is none (hint: task=…)"),
        (ValueError("postgresql://me:secret@host/db"), "ValueError: postgresql://***@host/db"),
    ],
    ids=["surrogate", "nul", "blank-lines", "empty", "raises", "no-text", "config", "secret"],
)
def test_the_line_of_an_error(error, line):
    assert line_of_error(error) == line
    written = traceback_of(raised(error))
    written.encode()
    assert "test_text.py" in written


def test_a_traceback_keeps_its_frames_and_not_fifty_megabytes():
    written = traceback_of(raised(ValueError("x" * 50_000_000)))
    assert len(written) < MAX_TRACEBACK_CHARACTERS + 100
    assert written.startswith("Traceback (most recent call last)")
    assert "characters left out" in written


def test_any_value_becomes_plain_json():
    given = {
        "a\0": ["\ud800", np.float32(0.5), np.int64(3), True, None], 1: (1, 2), "bytes": b"\0", "huge": 10**5000,
        "negative": -(10**5000), "mute": Mute(), "nan": math.nan, "own": text_of,
    }  # fmt: skip
    found = clean_value(given)
    assert found["a\\x00"] == ["\\ud800", 0.5, 3, True, None]
    assert found["1"] == [1, 2]
    assert (found["bytes"], found["mute"]) == ("b'\\x00'", NO_TEXT)
    assert (found["huge"], found["negative"]) == (math.inf, -math.inf)
    assert math.isnan(found["nan"])
    json.loads(json.dumps(found)).keys()
    plain = {"values": [0.5], "n": 3, "text": "Überschrift"}
    assert clean_value(plain) == plain


def test_a_journal_holds_no_text_that_mlflow_refuses(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.open("train", "r", "e", None, {"tag": "a\0b"})
        journal.params({"hp/x": "c\0d\ud800"})
    first, second = rows(path)
    assert first["tags"] == {"tag": "a\\x00b"}
    assert second["values"] == {"hp/x": "c\\x00d\\ud800"}


def test_the_place_of_an_error_is_in_the_users_code_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").write_text("def boom():\n    raise KeyError('x')\n")
    import mine

    def build():
        try:
            mine.boom()
        except KeyError as error:
            raise ConfigError("task", "cannot be built") from error

    with pytest.raises(ConfigError) as caught:
        build()
    assert place_of_error(caught.value).startswith("tests/core/test_text.py:"), (
        "its own frames come first"
    )
    assert place_of_error(caught.value.__cause__) == "mine/__init__.py:2"
    assert place_of_error(caught.value.with_traceback(None)) == "mine/__init__.py:2", (
        "that of its cause"
    )
    assert place_of_error(ValueError()) is None


def test_a_users_package_among_the_libraries_is_known_by_its_name():
    with pytest.raises(ValueError, match=r"Expecting") as caught:
        json.loads("{")
    frames = place_of_error(caught.value, ["json"])
    assert frames.startswith("json/decoder.py:")
