"""A comparison in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.report.compare_words import p_value
from dlsearch.report.formats import NONE, THIN, difference, number, score, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table


def interval(ends: Sequence[float] | None, percent: bool) -> str:
    """``a to b``; a dash where there is none."""
    if ends is None:
        return NONE
    return f"{_unitless(score(ends[0], percent))} to {score(ends[1], percent)}"


def gap(ends: Sequence[float] | None, percent: bool) -> str:
    """An interval of a difference; a dash where there is none."""
    if ends is None:
        return NONE
    return f"{difference(ends[0], percent).removesuffix(' points')} to {difference(ends[1], percent)}"


def _unitless(text: str) -> str:
    return text.removesuffix("%").rstrip(THIN)


def overview(facts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The rows of the main table: what, and one text for each study."""
    percent, studies = facts["objective"]["percent"], facts["studies"]

    def row(what: str, text: Any) -> tuple[str, list[str]]:
        return what, [text(s) for s in studies]

    def mean(s: dict[str, Any]) -> str:
        c = s["confirmed"]
        return NONE if c is None else f"{score(c['mean'], percent)} (n = {c['n']})"

    def spread(s: dict[str, Any]) -> str:
        c = s["confirmed"]
        return NONE if c is None else interval(c["interval"], percent)

    def drop(s: dict[str, Any]) -> str:
        if s["confirmed"] is None or s["best"] is None:
            return NONE
        return difference(s["confirmed"]["mean"] - s["best"]["value"], percent)

    def tested(s: dict[str, Any]) -> str:
        t = s["test"]
        return NONE if t is None else f"{score(t['accuracy'], True)} (n = {t['n']:,})"

    def wilson(s: dict[str, Any]) -> str:
        return NONE if s["test"] is None else interval(s["test"]["wilson"], True)

    def hours(s: dict[str, Any], key: str) -> str:
        value = s["budget"][key]
        return NONE if value is None else number(float(value), 3)

    at = facts["curves"]
    curves = {r["name"]: r for r in at["rows"]}
    label = {"expected": "expected best of", "best": "best of first"}
    rows = [
        row("state", lambda s: str(s["state"])),
        row("sampler", lambda s: s["sampler"].removesuffix("Sampler")),
        row("pruner", lambda s: s["pruner"].removesuffix("Pruner")),
        row("best search score", lambda s: NONE if s["best"] is None else score(s["best"]["value"], percent)),
        row("confirmed mean", mean),
        row("its 95 % interval", spread),
        row("against the search", drop),
        row("default, in search", lambda s: score(s["default"], percent)),
        row("test accuracy", tested),
        row("95 % of the test", wilson),
        row("test, mean of seeds", lambda s: score(((s["test"] or {}).get("replicas") or {}).get("mean"), True)),
        row("trials run", lambda s: f"{s['trials']['run']} of {s['trials']['asked']}"),
        row("pruned, failed", lambda s: f"{s['trials']['pruned']}, {s['trials']['failed']}"),
        row("epochs", lambda s: f"{s['budget']['epochs']:,}"),
        row("device-hours", lambda s: hours(s, "device_hours")),
        row("… to confirm", lambda s: hours(s, "confirm_device_hours")),
        row("clock hours", lambda s: hours(s, "wall_hours")),
        row("parameters", lambda s: number(s["n_params"])),
    ]
    if at["kind"]:
        rows.append(row(f"{label[at['kind']]} {at['trials']}",
                        lambda s: score((curves.get(s["name"]) or {}).get("value"), percent)))  # fmt: skip
        timed = [r["device_hours"] for r in at["rows"] if r["device_hours"]]
        if timed:
            rows.append(row(f"… in {number(timed[0]['hours'], 2)} device-h",
                            lambda s: score(curves[s["name"]]["device_hours"]["value"], percent)))  # fmt: skip
    return [r for r in rows if any(text != NONE for text in r[1])]


#: Of the table of pairs on the page; a terminal has room for those of :data:`NARROW`.
HEADINGS = (
    "pair", "difference", "95 % interval", "test", "p", "p, Holm", "permutation", "Hedges' g", "test accuracy",
    "95 % interval",
)  # fmt: skip
NARROW = (0, 1, 2, 5, 7, 8)


def pair_row(p: dict[str, Any], percent: bool) -> list[str]:
    """A pair under :data:`HEADINGS`."""
    found, tested = p["confirmed"], p["test"]
    texts = [f"{p['a']} − {p['b']}"]
    if found is None:
        texts += [NONE] * 7
    else:
        texts += [difference(found["difference"], percent), gap(found["interval"], percent), found["test"]]
        texts += [NONE if x is None else p_value(x)[2:].lstrip("= ") for x in (found["p"], p["holm"])]
        texts += [p_value(found["permutation_p"])[2:].lstrip("= "), number(found["effect"], 3)]
    if tested is None:
        return [*texts, NONE, NONE]
    return [*texts, difference(tested["difference"], True), gap((tested["low"], tested["high"]), True)]


def show(facts: dict[str, Any], console: Console | None = None) -> None:
    """Print the comparison."""
    from rich.console import Console
    from rich.text import Text

    out = console or Console()
    verdict, names = facts["verdict"], [s["name"] for s in facts["studies"]]
    out.print(Text(verdict["headline"], style="bold"))
    for sentence in verdict["sentences"]:
        out.print(Text(sentence))
    for warning in verdict["warnings"]:
        out.print(Text(f"note: {warning}", style="yellow"))
    direction = "higher" if facts["objective"]["maximize"] else "lower"
    table = _table([f"{facts['objective']['name']} ({direction} is better)", *names])
    for what, texts in overview(facts):
        table.add_row(Text(what), *map(Text, texts))
    out.print(table)
    if len(facts["pairs"]) > 1:
        table = _table([HEADINGS[i] for i in NARROW])
        for p in facts["pairs"]:
            texts = pair_row(p, facts["objective"]["percent"])
            table.add_row(*(Text(texts[i]) for i in NARROW))
        out.print(table)
    for title, rows in (("searched", facts["space"]), ("winner", facts["params"]), ("config", facts["config"])):
        kept = rows if title == "winner" else [r for r in rows if r["differs"]]
        if kept:
            table = _table([title if title == "winner" else f"{title}: differences", *names])
            for r in kept:
                table.add_row(Text(r["key"]), *(Text(cell(v)) for v in r["values"]))
            out.print(table)


def cell(value: Any) -> str:
    """A value of a table, short; a dash where the study has none."""
    return short(number(value), 40)


def _table(headings: Any) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(Text(heading), justify="left" if index == 0 else "right", overflow="fold")
    return table
