"""Standard output and standard error without secrets, and without what changes a terminal."""

from __future__ import annotations

import io
import logging
import os
import random
import sys
import threading
import warnings

import pytest

from dlsearch.console import streams
from dlsearch.console.streams import LONGEST, MaskedStream, masked_output, put_in_place, tame
from dlsearch.core import masking
from dlsearch.core.masking import MASK
from dlsearch.tracking.mlflow.shipper import MaskingFormatter

SECRET = "canary/of+the=stream"
KEY_LINE = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
KEY = f"-----BEGIN PRIVATE KEY-----\n{KEY_LINE}\n{KEY_LINE}\n-----END PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def known(_own_session: None) -> None:
    masking.learn({"hub_token": SECRET})


@pytest.fixture
def inner() -> io.StringIO:
    return io.StringIO()


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("flushed", [False, True], ids=["", "flushed"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1000])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"it was {SECRET}, yes\n", f"it was {MASK}, yes\n"),
        (f"{SECRET}", MASK),
        (f"50%\r{SECRET}\r100%", f"50%\r{MASK}\r100%"),
        ("password=hunter2x done\n", f"password={MASK} done\n"),
        ("my api_key: 'hunter2x' ok", f"my api_key: '{MASK}' ok"),
        ("Authorization: Bearer hunter2x\n", f"Authorization: {MASK}\n"),
        ("at https://me:hunter2x@host/x\n", f"at https://{MASK}@host/x\n"),
        ("ghp_" + "0aB1cD2eF3" * 4, MASK),
        (f"a\n{KEY}b\n", f"a\n{MASK}\nb\n"),
        (f"a {KEY}b", f"a {MASK}\nb"),
        (f"{SECRET}\n" * 3, f"{MASK}\n" * 3),
    ],
    ids=range(11),
)
def test_a_secret_in_pieces_is_masked(
    inner: io.StringIO, text: str, shown: str, size: int, flushed: bool
) -> None:
    stream = MaskedStream(inner)
    for piece in pieces(text, size):
        stream.write(piece)
        if flushed:
            stream.flush()
    stream.finish()
    assert inner.getvalue() == shown


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_nothing_leaks_however_it_is_cut(inner: io.StringIO, seed: int) -> None:
    draw = random.Random(seed)
    words = [
        "loss",
        "0.31",
        SECRET,
        "\n",
        "\r",
        " ",
        "password",
        "=",
        ": ",
        "\x1b[0m",
        "https://",
        "ü漢😀",
        "sk",
        "-----",
        "token/s",
    ]
    text = "".join(draw.choice(words) for _ in range(300))
    stream = MaskedStream(inner)
    at = 0
    while at < len(text):
        size = draw.randint(1, 30)
        stream.write(text[at : at + size])
        at += size
        if draw.random() < 0.3:
            stream.flush()
    stream.finish()
    assert SECRET not in inner.getvalue()
    whole = io.StringIO()
    once = MaskedStream(whole)
    once.write(text)
    once.finish()
    assert inner.getvalue() == whole.getvalue()


def test_a_line_that_is_flushed_is_seen_in_time(inner: io.StringIO) -> None:
    stream = MaskedStream(inner)
    for said in (
        "loading...",
        " 10%|#   | 1/10 [00:01<00:09]",
        " Continue? [y/n] ",
        "12.3 token/s]",
    ):
        before = inner.getvalue()
        stream.write(said)
        assert inner.getvalue() == before
        stream.flush()
        assert inner.getvalue() == before + said


def test_what_ends_a_line_is_written_at_once(inner: io.StringIO) -> None:
    stream = MaskedStream(inner)
    stream.write("\r 10%|#  | password")
    assert inner.getvalue() == "\r"
    stream.write("\r 20%|## |\n")
    assert inner.getvalue() == "\r 10%|#  | password\r 20%|## |\n"


def test_a_line_without_end_does_not_wait_for_ever(inner: io.StringIO) -> None:
    stream = MaskedStream(inner)
    for _ in range(3 * LONGEST // 1000):
        stream.write("x" * 980)
        stream.write(SECRET[:9])
        stream.write(SECRET[9:])
        assert len(stream._line) <= LONGEST + 1000
    stream.finish()
    assert SECRET not in inner.getvalue()
    assert inner.getvalue().count("x") == 980 * (3 * LONGEST // 1000)


def test_a_private_key_without_end_takes_little_with_it(inner: io.StringIO) -> None:
    stream = MaskedStream(inner)
    stream.write(f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_LINE}\n")
    stream.write("loss: 0.31, and more\nnext\n")
    assert inner.getvalue() == f"{MASK}\nloss: 0.31, and more\nnext\n"


def test_bytes_are_masked_too(inner: io.StringIO) -> None:
    stream = MaskedStream(inner)
    for byte in f"ü {SECRET}\n".encode():
        stream.buffer.write(bytes([byte]))
    assert inner.getvalue() == f"ü {MASK}\n"


def test_it_is_safe_in_threads(inner: io.StringIO) -> None:
    stream = MaskedStream(inner)
    threads = [
        threading.Thread(target=lambda: [stream.write(f"{SECRET} said\n") for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inner.getvalue() == f"{MASK} said\n" * 2000


def test_a_forked_child_does_not_repeat_what_waits() -> None:
    read, write = os.pipe()
    with open(write, "w", closefd=False) as file:
        stream = MaskedStream(file)
        stream.write("of the parent ")
        child = os.fork()
        if child == 0:
            stream.write("of the child\n")
            os._exit(0)
        os.waitpid(child, 0)
        stream.write("as well\n")
    with open(read) as file:  # noqa: PTH123
        os.close(write)
        assert file.read() == "of the child\nof the parent as well\n"


def test_handlers_that_were_made_before_follow(
    monkeypatch: pytest.MonkeyPatch, inner: io.StringIO
) -> None:
    monkeypatch.setattr(sys, "stderr", inner)
    logger = logging.getLogger("made.before")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    try:
        with masked_output():
            logger.warning("it was %s", SECRET)
            sys.stderr.write(SECRET[:5])
            sys.stderr.flush()
            sys.stderr.write(f"{SECRET[5:]}\n")
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(f"oh {SECRET}", stacklevel=1)
            with masked_output():
                assert not isinstance(sys.stderr.inner, MaskedStream)
        assert sys.stderr is inner
        assert handler.stream is inner
    finally:
        logger.removeHandler(handler)
    assert SECRET not in inner.getvalue()
    assert inner.getvalue().startswith(f"it was {MASK}\n{MASK}\n")


def test_handlers_of_pythons_own_stream_follow_too(
    monkeypatch: pytest.MonkeyPatch, inner: io.StringIO
) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", own)
    monkeypatch.setattr(sys, "stderr", inner)
    logger = logging.getLogger("made.before")
    handler = logging.StreamHandler(own)
    logger.addHandler(handler)
    try:
        with masked_output():
            logger.warning("it was %s", SECRET)
    finally:
        logger.removeHandler(handler)
    assert (own.getvalue(), inner.getvalue()) == ("", f"it was {MASK}\n")


def test_a_second_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, inner: io.StringIO) -> None:
    monkeypatch.setattr(sys, "stdout", inner)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    put_in_place()
    first = sys.stdout
    put_in_place()
    assert sys.stdout is first
    sys.stdout.write("half a line")
    streams.finish_output()
    assert inner.getvalue() == "half a line"


def test_a_formatter_masks_what_a_handler_writes_to_a_file() -> None:
    try:
        raise ValueError(f"no way to {SECRET}")
    except ValueError:
        record = logging.LogRecord(
            "a", logging.ERROR, "f", 1, "at %s", ("http://u:pw@h/",), sys.exc_info()
        )
    shown = MaskingFormatter("%(message)s").format(record)
    assert SECRET not in shown
    assert shown.startswith(f"at http://{MASK}@h/")


OBEYED = {
    "clipboard": "\x1b]52;c;ZWNobyBoaQ==\x07",
    "link": "\x1b]8;;http://evil.invalid\x1b\\click\x1b]8;;\x1b\\",
    "title": "\x1b]0;title\x07",
    "title, asked for": "\x1b[21t",
    "answer": "\x1b[6n",
    "identity": "\x1bP$q\x1b\\",
    "application": "\x1b_Gx\x1b\\",
    "reset": "\x1bc",
    "alternate screen": "\x1b[?1049h",
    "C1 CSI": "\x9b31m",
    "C1 OSC": "\x9d52;c;aGk=\x9c",
    "bell": "\x07",
    "NUL": "\0",
    "bidi": "\u202eevil\u2066",
    "mark": "\u200f",
    "tags": "\U000e0041",
    "line separator": "\u2028",
    "half a pair": "\ud800",
    "form feed": "\x0c",
}


@pytest.mark.parametrize("name", OBEYED)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_what_a_terminal_would_obey_is_written_out(
    inner: io.StringIO, name: str, size: int
) -> None:
    stream = MaskedStream(inner, terminal=True)
    for piece in pieces(f"a {OBEYED[name]} b", size):
        stream.write(piece)
        stream.flush()
    stream.finish()
    assert (
        not set(OBEYED[name])
        & set("\x1b\x07\0\x9b\x9c\x9d\x0c\u202e\u2066\u200f\u2028\ud800\U000e0041")
        & set(inner.getvalue())
    )
    assert "\\" in inner.getvalue()


def test_colours_and_a_progress_bar_are_kept() -> None:
    text = "\x1b[1;31mred\x1b[0m\r 10%\x1b[A\x1b[2K\x1b[?25l\x1b[?25h\ttab\nü漢😀👩\u200d💻\b"
    assert tame(text) == text
