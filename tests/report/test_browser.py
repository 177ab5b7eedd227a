"""The pages in a browser without a network: they ask for nothing, and fit a phone. axe-core: ``.ci/browser``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dlsearch.report import build
from tests.report.browser import LOOKS, Browser, NoAnswerError, browser, program


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running browser."""
    with browser(_program()) as running:
        yield running


def _program() -> str:
    found = program()
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    return found


def test_the_report_asks_for_nothing_and_fits(
    chromium: Browser, tmp_path: Path, whole_record: dict[str, Any]
) -> None:
    index = build(whole_record, tmp_path / "report")
    assert index.stat().st_size < 3e6
    for look, (width, dark) in LOOKS.items():
        found = chromium.visit(index, width, dark)
        assert (look, found.requests, found.complaints, found.overflow) == (look, [], [], 0)
        paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is not dark


def test_a_page_that_asks_for_something_is_found_out(chromium: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><title>x</title><img src='http://example.invalid/a.png'><link rel=stylesheet href=b.css>"
        "<p style='width: 500px'>wide</p>"
    )
    found = chromium.visit(page, 375, False)
    assert sorted(found.requests) == [(tmp_path / "b.css").as_uri(), "http://example.invalid/a.png"]
    assert len(found.complaints) == 2
    assert found.overflow > 100
    page.write_text(
        "<!doctype html><meta http-equiv=Content-Security-Policy content=\"default-src 'none'\"><title>x</title>"
        "<script>document.title = 'ran'</script>"
    )
    found = chromium.visit(page, 375, False)
    assert found.requests == []
    assert "Content Security Policy" in found.complaints[0]
    assert chromium.evaluate("document.title") == "x"


def test_a_page_or_browser_that_dies_is_said_at_once() -> None:
    started = time.monotonic()
    with browser(_program()) as running, pytest.raises(NoAnswerError, match="the page crashed"):
        running.call("Page.crash")
    with browser(_program()) as running, pytest.raises(NoAnswerError, match="the browser ended"):
        running.call("Browser.crash")
    assert time.monotonic() - started < 60
