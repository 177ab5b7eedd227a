"""Figures of what is inside a net: what each needs, what it says, and that a page of them is whole."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.report import build
from dlsearch.report.figures.canvas import figure_settings
from dlsearch.report.figures.inside import draw_inside
from dlsearch.report.look_page import write_look, write_rates
from tests.report.seen import inside

KEYS = ["kernels", "maps", "deconvolution", "warped", "gradients", "loss"]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    return inside(random.Random(12))


def drawn(found: dict[str, Any]) -> dict[str, Any]:
    with figure_settings():
        return {plate.key: plate for plate in draw_inside(found)}


def test_every_kind_has_its_figure(seen: dict[str, Any]) -> None:
    plates = drawn(seen)
    assert list(plates) == KEYS
    assert "features.4 (32 maps)" in plates["maps"].alt
    assert "sobel x, laplace, Gabor 4 px 22.5° even" in plates["kernels"].alt
    assert "least (0.254) at epoch 7" in plates["loss"].caption
    assert "marks epoch 7" in plates["loss"].caption
    assert "The 4 epochs after it did not improve it" in plates["loss"].caption
    assert "As kept, the first layer's is 0.05 times the last one's" in plates["gradients"].caption
    assert "As kept, 1 layer got no gradient at all" in plates["gradients"].caption


@pytest.mark.parametrize("key", KEYS)
def test_what_is_not_there_is_not_drawn(seen: dict[str, Any], key: str) -> None:
    found = copy.deepcopy(seen)
    if key in ("maps", "kernels"):
        found["maps"] = [m for m in found["maps"] if bool(m["names"]) != (key == "kernels")]
    else:
        found["curves" if key == "loss" else key] = None
    assert set(drawn(found)) == set(KEYS) - {key}


def test_broken_pictures_are_left_out(seen: dict[str, Any]) -> None:
    found = copy.deepcopy(seen)
    found["maps"][0]["tiles"]["data"] = "no base64"
    found["deconvolution"][0]["patches"]["shape"] = [3, 1, 5, 5]
    found["warped"]["maps"] = []
    plates = drawn(found)
    assert "features.1" not in plates["maps"].alt
    assert "features.1" not in plates["deconvolution"].alt
    assert "warped" not in plates


def test_the_report_holds_them_in_their_sections(
    whole_record: dict[str, Any], seen: dict[str, Any], tmp_path: Path
) -> None:
    record = copy.deepcopy(whole_record)
    record["test"][0]["inside"] = copy.deepcopy(seen)
    for layer in record["study"]["model"]["layers"]:
        layer["field"] = [14, 14]
    text = build(record, tmp_path / "report").read_text("utf-8")
    assert build(copy.deepcopy(record), tmp_path / "again").read_text("utf-8") == text
    training, model = text.index('<h2 id="training"'), text.index('<h2 id="model"')
    places = {key: text.index(f'id="figure-{key}"') for key in KEYS}
    assert training < places["loss"] < model < places["maps"] < text.index('<h2 id="limits"')
    assert training < places["gradients"] < model < places["deconvolution"]
    markdown = (tmp_path / "report/report.md").read_text("utf-8")
    assert all(f"figures/{key}.svg" in markdown for key in KEYS)
    assert '<th scope="col" class="r">Sees</th>' in text  # the layer table
    assert '<td class="r">14 × 14</td>' in text
    assert "| 14 × 14 |" in markdown


def test_a_page_of_its_own_has_the_same_bytes_each_time(
    seen: dict[str, Any], tmp_path: Path
) -> None:
    page = write_look(copy.deepcopy(seen), "<b>mine</b>", tmp_path / "look")
    again = write_look(copy.deepcopy(seen), "<b>mine</b>", tmp_path / "again")
    names = sorted(str(p.relative_to(page.parent)) for p in page.parent.rglob("*") if p.is_file())
    assert names == sorted(["index.html", "look.json", *(f"figures/{key}.svg" for key in KEYS)])
    for name in names:
        assert (page.parent / name).read_bytes() == (again.parent / name).read_bytes()
    text = page.read_text("utf-8")
    assert "&lt;b&gt;mine&lt;/b&gt;" in text
    assert "256 examples of the validation data" in text
    assert not re.search(r"<script|https?://(?!www\.w3\.org)| style=", text)
    assert json.loads((page.parent / "look.json").read_text())["n"] == 256


def test_a_page_shows_hostile_texts_as_they_are(seen: dict[str, Any], tmp_path: Path) -> None:
    evil = "<script>a()</script>\x1b]52;c;aGk=\x07\u202e\ud800 $x^2$ <img src=x onerror=a()>"
    for each in (*seen["maps"], *seen["deconvolution"], seen["warped"]):
        each["layer"] = evil
    seen["source"] = seen["gradients"]["layers"][0] = seen["maps"][2]["names"][1] = evil
    page = write_look(seen, evil, tmp_path / "look")
    text = page.read_text("utf-8")
    assert not re.search(r"<script|<img|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "\\u001b]52" in text
    for name in (*page.parent.glob("figures/*.svg"), page.parent / "look.json"):
        assert not re.search(
            r"<script|<img|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", name.read_text("utf-8")
        ) or (name.suffix == ".json")


def test_a_page_takes_the_place_of_its_former_self_alone(
    seen: dict[str, Any], tmp_path: Path
) -> None:
    write_look(copy.deepcopy(seen), "mine", tmp_path / "look")
    write_look({"n": 0}, "nothing", tmp_path / "look")
    assert "There is nothing to be seen" in (tmp_path / "look/index.html").read_text()
    assert not (tmp_path / "look/figures").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("all of it")
    with pytest.raises(ConfigError, match=r"--out: .* holds something that is no such page"):
        write_look({"n": 0}, "nothing", tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").read_text() == "all of it"


def test_a_range_test_says_what_the_curve_speaks_for(tmp_path: Path) -> None:
    rng = random.Random(0)
    rates = [1e-6 * 10 ** (i / 20) for i in range(121)]
    smooth = [2.3 - 2.0 / (1 + (1e-3 / r) ** 2) + (r / 0.3) ** 2 for r in rates]
    found = {
        "low": 1e-6,
        "high": 1.0,
        "steps": 121,
        "rates": rates,
        "smooth": smooth,
        "diverged": False,
    }
    found |= {
        "losses": [v + rng.uniform(-0.1, 0.1) for v in smooth],
        "begins": 3e-4,
        "least": 0.02,
        "suggestion": 1e-3,
    }
    page = write_rates(found, "lenet", tmp_path / "lr_range")
    text = page.read_text("utf-8")
    assert "it falls most steeply at 0.001" in text
    assert "steepest: 0.001" in text
    found |= {"begins": None, "least": None, "suggestion": None}
    assert "nothing can be suggested" in write_rates(
        found, "lenet", tmp_path / "lr_range"
    ).read_text("utf-8")
