"""A comparison as a page with figures: ``index.html``, ``compare.json``, ``figures/``, ``SHA256SUMS``."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.report import formats
from dlsearch.report.compare_text import HEADINGS, cell, overview, pair_row
from dlsearch.report.figures import svg
from dlsearch.report.figures.plate import NARROW, WIDE, Plate, finish
from dlsearch.report.figures.scales import Range, label, score_axis, xticks
from dlsearch.report.figures.svg import ACCENT, BAD, INK, MUTED, canvas
from dlsearch.report.formats import plural, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).parent / "templates"
#: One line a study: colour and dashes, so that they are told apart without colour too.
LINES: tuple[dict[str, Any], ...] = (
    {"color": ACCENT, "ls": "-"},
    {"color": BAD, "ls": (0, (5, 2))},
    {"color": INK, "ls": (0, (1, 1.5))},
    {"color": MUTED, "ls": (0, (6, 2, 1, 2))},
    {"color": ACCENT, "ls": (0, (2, 2))},
    {"color": BAD, "ls": "-"},
)


def write(facts: dict[str, Any], out: Path) -> Path:
    """Write the page; the same facts give the same bytes.

    Args:
        facts: What :func:`dlsearch.report.compare.compare` found.
        out: The folder; a former comparison there is replaced.

    Returns:
        The path of ``index.html``.

    Raises:
        ConfigError: `out` holds something else.
    """
    if out.exists() and not (out / "compare.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", f"{out} holds something that is no comparison", "name another folder")
    canonical = json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with svg.settings():
        files = {"compare.json": canonical, **_pages(json.loads(canonical))}
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in sorted(files.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh.chmod(0o755)
        for name, text in {**files, "SHA256SUMS": sums}.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_text(text, encoding="utf-8", newline="\n")
        if out.exists():
            out.rename(fresh / ".old")
        try:
            fresh.rename(out)
        except OSError:
            if (fresh / ".old").exists():
                (fresh / ".old").rename(out)
            raise
        shutil.rmtree(out / ".old", ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out / "index.html"


def _pages(facts: dict[str, Any]) -> dict[str, str]:
    import jinja2
    from markupsafe import Markup

    plates = [p for p in (confirmed(facts), budget(facts)) if p is not None]
    files: dict[str, str] = {}
    sheet, drawn = svg.Sheet(), []
    for p in plates:
        wide = svg.tree(p.wide, p.key)
        files[f"figures/{p.key}.svg"] = svg.alone(wide, p.alt)
        assert p.narrow is not None
        narrow = svg.tree(p.narrow, f"{p.key}-n")
        drawn.append((p, Markup(sheet.inline(wide, p.alt)), Markup(sheet.inline(narrow, p.alt))))
    css = (_TEMPLATES / "style.css").read_text("utf-8") + sheet.css() + "\n"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"short": short, "score": formats.score, "cell": cell, "plural": plural}
    percent = facts["objective"]["percent"]
    files["index.html"] = environment.get_template("compare.html.j2").render(
        f=facts,
        names=[s["name"] for s in facts["studies"]],
        overview_rows=[[what, *texts] for what, texts in overview(facts)],
        data_rows=[{"key": what, "values": values} for what, values in facts["data"]["rows"]],
        headings=HEADINGS,
        pairs=[pair_row(p, percent) for p in facts["pairs"]],
        drawn=drawn,
        css=Markup(css),
        style_digest=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
    )
    return files


def _range(values: list[float]) -> Range:
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or max(abs(high) * 0.01, 1e-3)
    return Range(low - pad, high + pad, 0)


def confirmed(facts: dict[str, Any]) -> Plate | None:
    """Each training of each winner, with mean and interval."""
    done = [s for s in facts["studies"] if s["confirmed"] is not None]
    if not done:
        return None
    objective = facts["objective"]
    ends = [v for s in done for v in (*s["confirmed"]["values"], *(s["confirmed"]["interval"] or ()),
                                      s["best"] and s["best"]["value"]) if v is not None]  # fmt: skip
    shown = _range(ends)

    def draw(width: int) -> Figure:
        figure = canvas(width, 90 + 44 * len(done))
        ax = figure.add_subplot()
        score_axis(ax, shown, objective["percent"], axis="x", most=6 if width > 500 else 4)
        for i, s in enumerate(done):
            c = s["confirmed"]
            if c["interval"] is not None:
                ax.plot(c["interval"], [i, i], color=ACCENT, lw=5, alpha=0.25, solid_capstyle="butt")
            ax.plot(c["values"], [i] * c["n"], ls="none", marker="o", ms=4.6, mfc="none", mec=MUTED, mew=0.9)
            ax.plot([c["mean"]], [i], ls="none", marker="|", ms=17, mew=2.2, color=ACCENT, zorder=4)
            if s["best"] is not None:
                ax.plot([s["best"]["value"]], [i], ls="none", marker="x", ms=6, mew=1.3, color=BAD, zorder=3)
        ax.set_yticks(range(len(done)), [short(s["name"], 24 if width > 500 else 12) for s in done])
        ax.tick_params(axis="y", labelcolor=INK)
        ax.set_ylim(len(done) - 0.5, -0.5)
        ax.grid(axis="x")
        ax.set_xlabel(label(objective, 60 if width > 500 else 30))
        finish(ax)
        return figure

    caption = (
        "Rings: each winner's trainings on fresh seeds; bar and band: their mean and its 95 % interval (BCa bootstrap);"
        " cross: the best score of the search."
    )
    means = ", ".join(f"{s['name']} {formats.score(s['confirmed']['mean'], objective['percent'])}" for s in done)
    return Plate("confirmed", "Confirmed scores", caption, f"Confirmed means of {objective['name']}: {means}.",
                 draw(WIDE), draw(NARROW), "full")  # fmt: skip


def budget(facts: dict[str, Any]) -> Plate | None:
    """What budgets bought: the expected best of n trials, or the best so far."""
    kind = facts["curves"]["kind"]
    if kind is None:
        return None
    objective = facts["objective"]
    curves: list[tuple[str, list[tuple[float, float]]]] = []
    for s in facts["studies"]:
        if kind == "expected":
            curves.append((s["name"], [(r[0], r[1]) for r in s["expected_best"]]))
        elif s["best_so_far"]:
            steps = [(number + 1, value) for number, value in s["best_so_far"]]
            curves.append((s["name"], [*steps, (max(s["trials"]["run"], steps[-1][0]), steps[-1][1])]))
    # One trial alone may be poor; from the second on there is something to see.
    shown = _range([y for _, points in curves for x, y in points if x >= 2] or [points[0][1] for _, points in curves])
    last = max(points[-1][0] for _, points in curves)

    def draw(width: int) -> Figure:
        figure = canvas(width, 320 if width > 500 else 280)
        ax = figure.add_subplot()
        score_axis(ax, shown, objective["percent"])
        for i, (name, points) in enumerate(curves):
            look = {"lw": 1.7, "label": short(name, 24), **LINES[i % len(LINES)]}
            xs, ys = [x for x, _ in points], [shown.inside(y) for _, y in points]
            if kind == "expected":
                ax.plot(xs, ys, **look)
            else:
                ax.step(xs, ys, where="post", **look)
        ax.set_xlim(1, max(last, 2))
        xticks(ax, 8 if width > 500 else 5, whole=True)
        ax.set_xlabel("trials")
        ax.set_title(f"{'expected best' if kind == 'expected' else 'best so far'}, {label(objective, 30)}")
        ax.legend(loc="lower right" if objective["maximize"] else "upper right", handlelength=3.2, handletextpad=0.6)
        finish(ax)
        return figure

    if kind == "expected":
        caption = (
            "Expected best score of n trials, by the unbiased estimator of Tang et al. (2020): the samplers do not"
            " look at earlier results, so that any order is as likely. Pruned trials count with their last score."
        )
    else:
        caption = (
            "Best score so far, in the order of the trials. A sampler that learns from earlier results has one course"
            " only: this is no expectation of what another search would find."
        )
    ends = ", ".join(f"{name} {formats.score(points[-1][1], objective['percent'])}" for name, points in curves)
    return Plate("budget", "What equal budgets buy", caption, f"{caption} In the end: {ends}.",
                 draw(WIDE), draw(NARROW), "full")  # fmt: skip
