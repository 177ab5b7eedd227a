"""The built report: the same bytes each time, true to its record, whole in every state of a study, and inert."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dlsearch.core.errors import ConfigError
from dlsearch.report import build
from dlsearch.report.facts.facts import facts
from dlsearch.report.formats import interval, score
from dlsearch.report.load import view
from dlsearch.report.pictures import SIDE, data_address
from tests.kinds import quick_if
from tests.report.seen import inside

Record = dict[str, Any]
EVIL = "<script>alert(1)</script>{{7*7}}{% raw %}`|**b** $x^2$ \u202e\x00\x1b[31m ☃ 日本語 \"'><img src=x onerror=a()>"


SECTIONS = [
    *(
        "claim",
        "provenance",
        "space",
        "compute",
        "accounting",
        "course",
        "budget",
        "hyperparameters",
        "confirmation",
    ),
    *("optimism", "test", "training", "model", "limits", "checklist"),
]
TITLES = [
    *(
        "Provenance",
        "Search space",
        "Compute",
        "Trial accounting",
        "Course of the search",
        "What the budget bought",
    ),
    *(
        "Hyperparameters",
        "Confirmation",
        "Optimism",
        "Test",
        "Curves and data",
        "The model",
        "Limits",
        "Checklist",
    ),
]


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def read(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def finished(r: Record) -> Record:
    return r


def random_sampler(r: Record) -> Record:
    r["study"]["sampler"] = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    return r


def minimising(r: Record) -> Record:
    r["study"].update(objectives=["val/loss"], directions=["minimize"])
    for t in r["trials"]:
        t["intermediate"] = [[e, round(4 * (1 - v), 5)] for e, v in t["intermediate"]]
        if t["value"] is not None:
            t["value"] = round(4 * (1 - t["value"]), 5)
            t["values"] = [t["value"]]
    return r


def two_objectives(r: Record) -> Record:
    r["study"].update(
        objectives=["val/accuracy", "model/n_params"], directions=["maximize", "minimize"]
    )
    for t in r["trials"]:
        if t["value"] is not None:
            t["values"] = [t["value"], [6000, 20000, 61706, 400000][t["number"] % 4]]
            t["value"] = None
    return r | {"winner": None, "test": [], "finalization": None, "openings": []}


def partial(r: Record) -> Record:
    r["study"].update(state="partial", n_trials=60)
    r["trials"] = r["trials"][:9]
    last = r["trials"][8]
    last.update(state="running", value=None, values=None, ended=None, seconds=None)
    last["attempts"][-1].update(state="running", ended=None, seconds=None)
    r["trials"].append({"number": 9, "state": "waiting", "params": {}, "attempts": []})
    best = max((t for t in r["trials"] if t.get("value")), key=lambda t: t["value"])
    return r | {
        "winner": {k: best[k] for k in ("number", "params", "value", "values")},
        "test": [],
        "finalization": None,
        "openings": [],
    }


def one_trial(r: Record) -> Record:
    r["study"].update(n_trials=1)
    first = r["trials"][0]
    return r | {
        "trials": [first],
        "winner": {"number": 0, "value": first["value"]},
        "test": [],
        "finalization": None,
    }


def all_failed(r: Record) -> Record:
    for t in r["trials"]:
        t.update(
            state="failed",
            reason="nan",
            error="train/loss is nan",
            value=None,
            values=None,
            summary={},
        )
        t["intermediate"] = [[0, float("nan")]]
    return r | {"winner": None, "test": [], "finalization": None, "openings": []}


def nothing_yet(r: Record) -> Record:
    r["study"].update(
        state="running", data={}, model={}, provenance={}, sha={}, slots=[], seconds=0, space=[]
    )
    return r | {"trials": [], "winner": None, "test": [], "finalization": None}


def searched(r: Record) -> Record:
    """A study whose winner was not confirmed."""
    best = max(
        (t for t in r["trials"] if t["value"] is not None), key=lambda t: (t["value"], -t["number"])
    )
    r["winner"] = {k: best[k] for k in ("number", "params", "value", "values")}
    r["test"][0].pop("replicas")
    r["test"][0].update(
        trial_number=best["number"], seed=90001, round=None, first_layer=None, inside=None
    )
    r["test"][0]["value"] = round(best["value"] - 0.0011, 4)
    r.pop("openings")
    return r | {"finalization": None}


def default_won(r: Record) -> Record:
    """The default configuration was confirmed as the best, and no trial of the search had run it to its end."""
    final = r["finalization"]
    for c in final["configurations"]:
        c["winner"] = c["default"]
        for x in c["replicas"]:
            x["value"] = round(x["value"] + (0.006 if c["default"] else 0), 4)
            x["values"] = [x["value"]]
        if c["default"]:
            c.update(trial_number=None, search_value=None, params={})
    first = r["trials"][0]
    first.update(default=False, state="pruned", value=None, values=None)
    final["kept"] = {"trial_number": None, "replica": 0}
    r["winner"] = {"number": None, "params": {}, "value": 0.99, "confirmed": True, "default": True}
    for row in [*r["test"], *r["openings"]]:
        row["trial_number"] = None
    return r


def half_confirmed(r: Record) -> Record:
    """Stopped in the confirmation: one seed is done, of which one replica failed; nothing was tested."""
    final = r["finalization"]
    final.update(state="partial", kept=None, checkpoint=None)
    for c in final["configurations"]:
        c.update(winner=False, replicas=c["replicas"][:1], dropped_after=None)
    lost = final["configurations"][1]["replicas"][0]
    lost.update(state="failed", reason="oom", value=None, values=None)
    best = max(
        (t for t in r["trials"] if t["value"] is not None), key=lambda t: (t["value"], -t["number"])
    )
    r["study"]["state"] = "partial"
    return r | {
        "winner": {"number": best["number"], "value": best["value"]},
        "test": [],
        "openings": r["openings"][:1],
    }


def hostile(r: Record) -> Record:
    study, long = r["study"], "very." * 80 + "long"
    study.update(name=EVIL, objectives=[f"val/{EVIL}"], command=f"dlsearch -m '{EVIL}'\n```\n# x")
    study["space"][0]["name"], study["space"][1]["name"] = EVIL, long
    study["space"][4]["choices"] = ["lenet", EVIL, "mlp"]
    study["provenance"]["packages"][EVIL] = EVIL
    study["sampler"][EVIL] = {EVIL: [EVIL]}
    study["slots"][0]["worker"] = EVIL
    study["data"]["name"] = EVIL
    study["model"]["layers"][0]["name"] = EVIL
    for t in r["trials"]:
        params = t["params"]
        params[EVIL], params[long] = params.pop("optimizer.lr"), params.pop("model.dropout")
        params["model"] = EVIL if params["model"] == "mlp" else params["model"]
        t["error"] = t["error"] and EVIL * 3
        t["attempts"][0]["device"] = t["attempts"][0]["worker"] = EVIL
        t["summary"] = {EVIL: 1.0}
    r["winner"]["params"] = {}
    final = r["finalization"]
    final["checkpoint"] = EVIL
    for c in final["configurations"]:
        c["params"] = {EVIL: EVIL}
        for x in c["replicas"]:
            x["reason"], x["summary"] = EVIL, {f"best/train/{EVIL}": 1.0, f"best/val/{EVIL}": 0.5}
    r["trials"][3]["breaches"] = [{"how": EVIL, "what": EVIL}]
    r["test"][0]["replicas"][0]["metrics"] = {EVIL: 0.5}
    r["test"][0]["first_layer"]["layer"] = EVIL
    seen = r["test"][0]["inside"] = inside(random.Random(12))
    for each in (*seen["maps"], *seen["deconvolution"], seen["warped"]):
        each["layer"] = EVIL
    seen["maps"][2]["names"][1] = seen["gradients"]["layers"][0] = EVIL
    seen["maps"][0]["tiles"]["data"] = EVIL
    r["openings"][0]["kind"] = EVIL
    r["test"][0].update(
        classes=[EVIL, *(f"class {i}" for i in range(9))], kind=EVIL, ledger_id=EVIL
    )
    r["test"][0]["errors"][0]["image"] = {"shape": [28, 28, 1], "data": EVIL}
    return r


ALIKE = (minimising, searched, default_won, half_confirmed)
STATES = quick_if(
    [
        *(finished, random_sampler, minimising, two_objectives, partial),
        *(searched, default_won, half_confirmed, one_trial, all_failed, nothing_yet, hostile),
    ],
    lambda state: state not in ALIKE,
)


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Callable[[Record], Record], Record], Path]:
    """Builds the report of a record in some state, once a state, whichever process asks first."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "reports"
    folder.mkdir(exist_ok=True)

    def get(state: Callable[[Record], Record], record: Record) -> Path:
        out = folder / state.__name__
        with (folder / f"{state.__name__}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return out if out.exists() else build(state(record), out).parent

    return get


@pytest.mark.parametrize("state", STATES)
def test_every_state_gives_a_whole_page(state: Any, built: Any, record: Record) -> None:
    folder = built(state, record)
    text = (folder / "index.html").read_text("utf-8")
    page = Page(text)
    # Headings go down one level at a time.
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    # Every reference has its target, every id is there once.
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    wanted = {h[1:] for _, a in page.tags if (h := a.get("href") or "").startswith("#")}
    wanted |= {i for _, a in page.tags if (i := a.get("aria-labelledby"))}
    assert wanted <= set(ids)
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in page.all("th"))
    assert all(a.get("aria-label") and a.get("role") == "img" for a in page.all("svg"))
    assert all(a.get("alt") for a in page.all("img"))
    assert not re.search(r"\b(None|nan %|NaN|Undefined)\b", page.text)
    for svg in folder.glob("figures/*.svg"):
        ElementTree.parse(svg)
    markdown = (folder / "report.md").read_text("utf-8")
    assert markdown.startswith("# ")
    drawn = {f"figures/{p.name}" for p in folder.glob("figures/*")}
    assert set(re.findall(r"(?m)^!\[.*\]\((figures/[^)]+)\)$", markdown)) == drawn


@pytest.mark.parametrize("state", STATES)
def test_nothing_runs_and_nothing_is_fetched(state: Any, built: Any, record: Record) -> None:
    folder = built(state, record)
    text = (folder / "index.html").read_text("utf-8")
    page = Page(text)
    assert not page.all(
        "script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"
    )
    assert not [n for _, a in page.tags for n in a if n.startswith("on") or n == "style"]
    for _, a in page.tags:
        for name in ("src", "href"):
            assert (a.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    policy = page.all("meta")[1]["content"] or ""
    style = text.split("<style>", 1)[1].split("</style>", 1)[0]
    assert page.all("style") == [{}]
    assert (
        f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    )
    assert policy.startswith("default-src 'none';")
    assert "url(" not in style
    for svg in folder.glob("figures/*.svg"):
        assert {e.tag.rsplit("}", 1)[-1] for e in ElementTree.parse(svg).iter()}.isdisjoint(
            {"script", "foreignObject"}
        )
    # In Markdown no tag starts outside of code.
    markdown = re.sub(r"(?s)(`+).+?\1", "", (folder / "report.md").read_text("utf-8"))
    assert not re.search(r"(?<!\\)<\w", markdown)


def test_hostile_strings_are_shown_as_they_are(built: Any, record: Record) -> None:
    page = Page((built(hostile, record) / "index.html").read_text("utf-8"))
    assert "<script>alert(1)</script>{{7*7}}{% raw %}" in page.text
    assert "\\u202e\\u0000\\u001b[31m" in page.text
    assert "\u202e" not in page.text
    assert not page.all("img")[0]["src"].startswith("x")  # type: ignore[union-attr]


def test_the_same_record_gives_the_same_bytes(built: Any, record: Record, tmp_path: Path) -> None:
    first = read(built(finished, record))
    # Another process with another order of sets, another time zone and another matplotlibrc.
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\n")
    code = (
        "import json, sys, pathlib; import dlsearch.report\n"
        "heavy = {'numpy', 'matplotlib', 'optuna', 'scipy', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "dlsearch.report.build(json.loads(pathlib.Path('record.json').read_text()), pathlib.Path('again'))\n"
        "heavy = {'torch', 'pytorch_lightning', 'mlflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, timeout=120)
    again = read(tmp_path / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def test_the_order_of_the_record_does_not_matter(
    built: Any, record: Record, tmp_path: Path
) -> None:
    first = read(built(finished, record))
    record["trials"].reverse()
    assert read(build(record, tmp_path / "out").parent) == first


def test_sums_name_every_file(built: Any, record: Record) -> None:
    files = read(built(finished, record))
    sums = [line.split("  ", 1) for line in files.pop("SHA256SUMS").decode().splitlines()]
    assert sums == [
        [hashlib.sha256(data).hexdigest(), name] for name, data in sorted(files.items())
    ]


@pytest.mark.parametrize("state", STATES)
def test_every_trial_is_accounted_for(state: Any, built: Any, record: Record) -> None:
    f = json.loads((built(state, record) / "report.json").read_text("utf-8"))
    a = f["accounting"]
    assert sum(a["counts"].values()) + a["not_started"] == a["asked"]
    assert sum(a["failed_by_reason"].values()) == a["counts"]["failed"] == len(a["failures"])
    assert f["compute"]["device_seconds"] == pytest.approx(sum(f["compute"]["by_state"].values()))
    assert f["compute"]["utilisation"] is None or 0 < f["compute"]["utilisation"] <= 1
    if f["best"] is not None:
        done = [t["values"][0] for t in f["trials"] if t["scored"]]
        best = max(done) if f["objectives"][0]["maximize"] else min(done)
        assert f["trials"][f["best"]]["values"][0] == best == f["course"]["best_so_far"][-1][1]


def test_what_the_finished_study_says(built: Any, record: Record) -> None:
    folder = built(finished, record)
    f = json.loads((folder / "report.json").read_text("utf-8"))
    a = f["accounting"]
    assert a["failed_by_reason"] == {"nan": 2, "exception": 1}
    assert [(t["number"], t["ends"]) for t in a["retried"]] == [(8, ["lost", "complete"])]
    assert a["duplicates"] == [{"number": 17, "of": 5}]
    final = record["finalization"]
    mine, default = (
        next(c for c in final["configurations"] if c[key]) for key in ("winner", "default")
    )
    mean = sum(r["value"] for r in mine["replicas"]) / len(mine["replicas"])
    main = f["test"]["main"]
    assert f["won"]["value"] == pytest.approx(mean)
    assert f["claim"]["gain"] == pytest.approx(
        mean - sum(r["value"] for r in default["replicas"]) / 5
    )
    confusion = record["test"][0]["confusion"]
    assert main["right"] == sum(confusion[i][i] for i in range(10))
    assert main["wilson"][0] < main["accuracy"] < main["wilson"][1]
    page = Page((folder / "index.html").read_text("utf-8"))
    markdown = (folder / "report.md").read_text("utf-8")
    for text in (page.text, markdown):
        assert f["claim"]["headline"] in text
        assert " ".join(f["claim"]["sentences"]) in text
        assert score(mean, True) in text
        assert score(main["accuracy"], True) in text
        assert interval(main["wilson"], True) in text
        assert f["reproduce"]["study"] in text
        assert f["reproduce"]["winner"] in text
        assert "The confirmation over fresh seeds took another" in text
        assert all(digest in text for digest in record["study"]["sha"].values())
        assert record["trials"][11]["error"] in re.sub(r"\\(.)", r"\1", text)
        assert all(sentence in text for sentence in f["limits"])
    assert len(page.all("img")) == 16
    assert [a["id"] for tag, a in page.tags if tag == "h2" and a.get("id")] == SECTIONS
    assert [line[3:] for line in markdown.splitlines() if line.startswith("## ")] == TITLES


def test_independent_trials_alone_have_an_expected_best(built: Any, record: Record) -> None:
    adaptive = json.loads((built(finished, record) / "report.json").read_text("utf-8"))
    assert adaptive["course"]["expected_best"] == []
    assert not (built(finished, record) / "figures/budget.svg").exists()


def test_random_search_has_an_expected_best(built: Any, record: Record) -> None:
    folder = built(random_sampler, record)
    rows = json.loads((folder / "report.json").read_text("utf-8"))["course"]["expected_best"]
    assert [r[0] for r in rows] == list(range(1, len(rows) + 1))
    assert (folder / "figures/budget.svg").is_file()


def test_a_study_that_went_on_after_its_test_says_so(record: Record) -> None:
    row = searched(record)["test"][0]
    record["finalization"] = None
    row["evaluated_at"] = record["trials"][3]["ended"]
    record["test"].append(
        row | {"ledger_id": 2, "kind": "manual", "evaluated_at": "2026-12-01T00:00:00.000Z"}
    )
    record["study"]["data"]["overlap"] = {"index": 0, "content": 10}
    record["study"]["provenance"].update(dirty=True, lock=None)
    limits = " ".join(facts(view(record))["limits"])
    for said in (
        "opened 2 times",
        "went on when its test score was known",
        "10 held-out examples",
        "uncommitted",
        "lock",
    ):
        assert said in limits


def test_seeds_that_racing_left_out_are_called_unlikely_to_matter(record: Record) -> None:
    dropped = [c for c in record["finalization"]["configurations"] if c["dropped_after"]]
    assert dropped
    limits = " ".join(facts(view(record))["limits"])
    assert "unlikely to change the result (a chance of at most 5 % in all)" in limits
    assert "could not" not in limits
    (chance,) = [
        f["chance"] for f in facts(view(record))["confirmation"]["finalists"] if f["chance"]
    ]
    assert 0 < chance < 0.05
    assert "(a chance of" in limits


def test_a_finalist_that_was_dropped_on_equal_differences_is_named(record: Record) -> None:
    final = record["finalization"]
    winner = next(c for c in final["configurations"] if c["winner"])
    dropped = next(c for c in final["configurations"] if c["dropped_after"])
    for mine, theirs in zip(winner["replicas"], dropped["replicas"], strict=False):
        theirs["value"] = mine["value"] - 0.01
        theirs["values"] = [theirs["value"]]
    limits = " ".join(facts(view(record))["limits"])
    assert f"dropped trial {dropped['trial_number']} on equal differences to the winner" in limits


def test_a_short_search_is_called_one_unless_it_is_the_whole_space(make_record: Any) -> None:
    record = make_record(4)
    said = "The search had 4 trials: which configuration won says little"
    assert said in " ".join(facts(view(record))["limits"])
    record["study"]["sampler"] = {"_target_": "dlsearch.sampling.factory.grid"}
    assert said not in " ".join(facts(view(record))["limits"])
    assert said not in " ".join(facts(view(make_record(24)))["limits"])


def test_a_gain_whose_interval_holds_zero_is_not_called_better(record: Record) -> None:
    final = record["finalization"]
    winner = next(c for c in final["configurations"] if c["winner"])
    default = next(c for c in final["configurations"] if c["default"])
    leads = (0.01, -0.008, 0.011, -0.009, 0.002)
    for lead, mine, other in zip(leads, winner["replicas"], default["replicas"], strict=False):
        other["value"] = mine["value"] - lead
        other["values"] = [other["value"]]
    claim = facts(view(record))["claim"]
    assert claim["gain"] > 0
    assert "points better than the default configuration" in claim["headline"]
    assert claim["headline"].endswith(", which is not told from no difference.")


@pytest.mark.storm
def test_a_thousand_trials_stay_below_three_megabytes(make_record: Any, tmp_path: Path) -> None:
    index = build(make_record(1000, slots=16), tmp_path / "big")
    assert index.stat().st_size < 3_000_000


def test_a_report_that_fails_leaves_the_former_one(
    built: Any, record: Record, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    build(one_trial(record), out)
    before = read(out)
    with pytest.raises(ValueError, match="schema"):
        build(record | {"schema": 9}, out)
    assert read(out) == before
    record["study"]["name"] = "renamed"
    build(one_trial(record), out)
    assert b"renamed" in read(out)["index.html"]
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_a_folder_that_is_no_report_is_left_alone(record: Record, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="no report"):
        build(record, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("shape", "mode"), [((5, 7, 1), "L"), ((5, 7, 3), "RGB"), ((5, 7, 4), "RGBA")]
)
def test_pictures_are_png_of_the_same_pixels(shape: tuple[int, int, int], mode: str) -> None:
    from PIL import Image

    raw = bytes(i % 251 for i in range(shape[0] * shape[1] * shape[2]))
    address = data_address({"shape": list(shape), "data": base64.b64encode(raw).decode()})
    assert address is not None
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1])))
    assert (picture.mode, picture.size, picture.tobytes()) == (mode, (7, 5), raw)


def test_large_pictures_are_thinned_and_broken_ones_left_out() -> None:
    from PIL import Image

    raw = base64.b64encode(bytes(500 * 300 * 3)).decode()
    address = data_address({"shape": [500, 300, 3], "data": raw})
    assert address is not None
    assert max(Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))).size) <= SIDE
    for broken in (
        None,
        {},
        {"shape": [2, 2, 1], "data": "!"},
        {"shape": [2, 2, 2], "data": ""},
        {"shape": [9, 9, 1]},
    ):
        assert data_address(broken) is None


def test_the_interactive_page_runs_its_own_scripts_alone(
    record: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("plotly")
    folder = build(hostile(record), tmp_path / "r", interactive=True).parent
    text = (folder / "interactive.html").read_text("utf-8")
    policy = Page(text).all("meta")[1]["content"] or ""
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 2
    for script in scripts:
        assert (
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
            in policy
        )
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "alert(1)" in scripts[1]
    assert "<" not in scripts[1]
    # What plotly draws with compiled shaders would need a policy that lets any code run.
    assert not re.search(r'"type": "(parcoords|scattergl|splom|surface|mesh3d)"', scripts[1])
    assert "unsafe-eval" not in policy
    assert "interactive.html" in (folder / "SHA256SUMS").read_text("utf-8")


def test_without_plotly_the_page_says_what_to_install(
    record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plotly", "plotly.offline"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"plotly.*pip install"):
        build(record, tmp_path / "r", interactive=True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (0, "there was no other finalist."),
        (1, "the other finalist did no better."),
        (2, "none of the 2 other finalists did better."),
    ],
)
def test_the_headline_counts_the_finalists_that_the_default_beat(
    others: int, said: str, record: Record
) -> None:
    record = default_won(record)
    final = record["finalization"]
    rest = [c for c in final["configurations"] if not c["default"]]
    final["configurations"] = [c for c in final["configurations"] if c["default"]] + rest[:others]
    assert facts(view(record))["claim"]["headline"].endswith(f"; {said}")


def test_what_violates_a_constraint_is_no_result(record: Record, tmp_path: Path) -> None:
    best = view(record).best
    assert best is not None
    for trial in record["trials"]:
        if trial["number"] == best.number:
            trial["infeasible"] = True
    record["finalization"] = record["winner"] = None
    found = facts(view(record))
    assert best.number not in found["leaders"]
    assert best.number not in [number for number, _ in found["course"]["best_so_far"]]
    text = build(record, tmp_path / "report").read_text("utf-8")
    assert "1 completed trial violated a constraint" in text
