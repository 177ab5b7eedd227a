"""What can be told of the page's accessibility without a browser: contrast of the palette, names, and headings."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dlsearch import report
from dlsearch.report import build
from dlsearch.report.figures.canvas import VARIABLES
from dlsearch.report.figures.classification import cell_shade

STYLE = (Path(report.__file__).parent / "templates/style.css").read_text("utf-8")
NAME = re.compile(r"--(\w+): (#[0-9a-f]{6})")
# What is written in which colour on which ground.
TEXT = [
    *itertools.product(("ink", "muted", "accent", "bad"), ("paper",)),
    *itertools.product(("ink", "muted"), ("faint",)),
]


def palettes() -> dict[str, dict[str, str]]:
    """The custom properties of each of the style sheet's three palettes."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.S)
    light, dark, paper = (dict(NAME.findall(block)) for block in blocks)
    return {"light": light, "dark": dark, "print": paper}


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    """Contrast ratio (WCAG 2.2)."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_every_text_can_be_read(name: str) -> None:
    palette = palettes()[name]
    assert set(palette) == set(VARIABLES.values())
    for fore, ground in TEXT:
        assert contrast(palette[fore], palette[ground]) >= 4.5, (fore, ground)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_counts_can_be_read_on_every_cell(name: str) -> None:
    palette = palettes()[name]
    shades = []
    for share in range(1, 101):
        alpha, ink = cell_shade(share / 100)
        parts = [[int(palette[of][i : i + 2], 16) for i in (1, 3, 5)] for of in ("accent", "paper")]
        cell = "#" + "".join(
            f"{round(alpha * a + (1 - alpha) * p):02x}" for a, p in zip(*parts, strict=True)
        )
        assert contrast(palette[VARIABLES[ink]], cell) >= 4.5, share
        shades.append(alpha)
    assert shades == sorted(set(shades)), "more errors, more colour"


def test_the_figures_have_the_light_palette() -> None:
    assert {name: colour for colour, name in VARIABLES.items()} == palettes()["light"]


class Outline(HTMLParser):
    """Headings with their text, and elements that need a name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[tuple[int, str]] = []
        self.figures: list[list[str]] = []
        self.unnamed: list[str] = []
        self.landmarks: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = dict(attrs)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
            self._open.append(tag)
        if tag == "figure":
            self.figures.append([])
        if tag == "svg":
            self.figures[-1].append(a.get("aria-label") or "")
        if tag in ("main", "header", "footer", "nav"):
            self.landmarks.append(tag)
        if (tag == "nav" or a.get("role") == "region" or a.get("tabindex")) and not a.get(
            "aria-label"
        ):
            self.unnamed.append(tag)
        if tag == "img" and not a.get("alt"):
            self.unnamed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, whole_record: dict[str, Any]) -> Path:
    """The page of the simulated study."""
    return build(whole_record, tmp_path_factory.mktemp("page") / "r")


def test_the_page_can_be_read_aloud(index: Path) -> None:
    page = Outline(index.read_text("utf-8"))
    assert [text for _, text in page.headings if not text.strip()] == []
    assert page.headings[0] == (1, "quickstart")
    assert all(b[0] <= a[0] + 1 for a, b in itertools.pairwise(page.headings))
    assert page.unnamed == []
    assert sorted(page.landmarks) == ["footer", "header", "main", "nav"]
    # Each figure says what it shows, and no two say the same.
    told = [labels[0] for labels in page.figures]
    assert all(len(text) > 30 for text in told)
    assert len(set(told)) == len(told)
    assert len(told) >= 15
    drawn = {p.stem for p in (index.parent / "figures").iterdir()}
    assert {
        "confirmation",
        "differences",
        "optimism",
        "seeds",
        "gap",
        "balance",
        "weights",
        "confusion",
    } <= drawn


def test_the_first_screen_says_what_won_and_how_to_run_it_again(
    index: Path, record: dict[str, Any]
) -> None:
    f = json.loads((index.parent / "report.json").read_text("utf-8"))
    first = index.read_text("utf-8").split('<dl class="key">', 1)[0].split("<body>", 1)[1]
    text = re.sub(r"<[^>]+>", "", first).replace("&#39;", "'")
    assert f["claim"]["headline"] in text
    assert "better than the default configuration" in f["claim"]["headline"]
    assert "95\u202f% interval" in f["claim"]["headline"]
    assert record["study"]["command"] in text
    assert "<table" not in first
