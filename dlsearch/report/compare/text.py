"""A comparison in the terminal, and the tables that its page shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dlsearch.config.progress import ProgressUnit
from dlsearch.console.terminal import console as make_console
from dlsearch.console.terminal import shown
from dlsearch.report.compare.models import BudgetCurve
from dlsearch.report.compare.words import p_value
from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.formats import NONE, THIN, difference, number, plural, score, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dlsearch.report.compare.models import (
        AccuracyDifference,
        BudgetComparison,
        ComparedPair,
        ComparedStudy,
        Comparison,
        TableRow,
        TestedDifference,
    )

#: Of the table of pairs on the page; a terminal has space for those of :data:`NARROW`.
HEADINGS = (
    "pair",
    "difference",
    "95 % interval",
    "test",
    "p",
    "p, Holm",
    "permutation",
    "Hedges' g",
    "test accuracy",
    "95 % interval",
)
NARROW = (0, 1, 2, 5, 7, 8)
_COLUMNS_OF_SCORES = 7
_COLUMNS_OF_ACCURACY = 2
_BUDGET_LABELS = {
    BudgetCurve.EXPECTED: "expected best of",
    BudgetCurve.BEST: "best of first",
}


class OverviewRow(NamedTuple):
    """A row of the main table: what it says, and one text for each study."""

    what: str
    texts: list[str]


def format_interval(ends: Sequence[float] | None, percent: bool) -> str:
    """``a to b``; a dash where there is none."""
    if ends is None:
        return NONE
    low = score(ends[0], percent).removesuffix("%").rstrip(THIN)
    return f"{low} to {score(ends[1], percent)}"


def format_difference_interval(ends: Sequence[float] | None, percent: bool) -> str:
    """An interval of a difference; a dash where there is none."""
    if ends is None:
        return NONE
    low = difference(ends[0], percent).removesuffix(" points")
    return f"{low} to {difference(ends[1], percent)}"


def format_cell(value: Any) -> str:
    """A value of a table, short; a dash where the study has none."""
    return short(number(value), 40)


def overview_rows(comparison: Comparison) -> list[OverviewRow]:
    """The rows of the main table that hold anything."""
    percent = comparison["objective"]["percent"]
    studies = comparison["studies"]
    rows = [
        *_state_rows(studies),
        *_score_rows(studies, percent),
        *_test_rows(studies),
        *_cost_rows(studies),
        *_budget_rows(comparison["curves"], studies, percent),
    ]
    return [row for row in rows if any(text != NONE for text in row.texts)]


def _row(
    what: str,
    studies: Sequence[ComparedStudy],
    write: Callable[[ComparedStudy], str],
) -> OverviewRow:
    return OverviewRow(what, [write(study) for study in studies])


def _state_rows(studies: Sequence[ComparedStudy]) -> list[OverviewRow]:
    return [
        _row("state", studies, lambda study: str(study["state"])),
        _row("sampler", studies, lambda study: study["sampler"].removesuffix("Sampler")),
        _row("pruner", studies, lambda study: study["pruner"].removesuffix("Pruner")),
    ]


def _score_rows(studies: Sequence[ComparedStudy], percent: bool) -> list[OverviewRow]:
    def write_best(study: ComparedStudy) -> str:
        return NONE if study["best"] is None else score(study["best"]["value"], percent)

    def write_mean(study: ComparedStudy) -> str:
        confirmed = study["confirmed"]
        if confirmed is None:
            return NONE
        return f"{score(confirmed['mean'], percent)} (n = {confirmed['n']})"

    def write_interval(study: ComparedStudy) -> str:
        confirmed = study["confirmed"]
        quoted = quote_interval(confirmed)
        return NONE if quoted is None else format_interval(quoted.ends, percent)

    def write_drop(study: ComparedStudy) -> str:
        if study["confirmed"] is None or study["best"] is None:
            return NONE
        return difference(study["confirmed"]["mean"] - study["best"]["value"], percent)

    return [
        _row("best search score", studies, write_best),
        _row("confirmed mean", studies, write_mean),
        _row("its 95 % interval", studies, write_interval),
        _row("against the search", studies, write_drop),
        _row("default, in search", studies, lambda study: score(study["default"], percent)),
    ]


def _test_rows(studies: Sequence[ComparedStudy]) -> list[OverviewRow]:
    def write_accuracy(study: ComparedStudy) -> str:
        test = study["test"]
        return NONE if test is None else f"{score(test['accuracy'], True)} (n = {test['n']:,})"

    def write_interval(study: ComparedStudy) -> str:
        test = study["test"]
        return NONE if test is None else format_interval(test["wilson"], True)

    def write_mean_of_seeds(study: ComparedStudy) -> str:
        test = study["test"]
        if test is None or test["replicas"] is None:
            return NONE
        return score(test["replicas"]["mean"], True)

    return [
        _row("test accuracy", studies, write_accuracy),
        _row("95 % of the test", studies, write_interval),
        _row("test, mean of seeds", studies, write_mean_of_seeds),
    ]


def _cost_rows(studies: Sequence[ComparedStudy]) -> list[OverviewRow]:
    def write_run(study: ComparedStudy) -> str:
        return f"{study['trials']['run']} of {study['trials']['asked']}"

    def write_lost(study: ComparedStudy) -> str:
        return f"{study['trials']['pruned']}, {study['trials']['failed']}"

    return [
        _row("trials run", studies, write_run),
        _row("pruned, failed", studies, write_lost),
        _progress_row(studies),
        _row("device-hours", studies, lambda s: _hours(s["budget"]["device_hours"])),
        _row("… to confirm", studies, lambda s: _hours(s["budget"]["confirm_device_hours"])),
        _row("clock hours", studies, lambda s: _hours(s["budget"]["wall_hours"])),
        _row("parameters", studies, lambda study: number(study["n_params"])),
    ]


def _progress_row(studies: Sequence[ComparedStudy]) -> OverviewRow:
    """How far all trials of each study were trained, in the unit that it counts in."""
    units = {_unit_of(study) for study in studies}
    if len(units) == 1:
        (unit,) = units
        return _row(f"{unit}s", studies, lambda study: f"{study['budget']['epochs']:,}")
    return _row("progress", studies, _write_progress)


def _write_progress(study: ComparedStudy) -> str:
    return plural(study["budget"]["epochs"], _unit_of(study))


def _unit_of(study: ComparedStudy) -> ProgressUnit:
    return study.get("progress_unit") or ProgressUnit.EPOCH


def _hours(hours: float | None) -> str:
    return NONE if hours is None else number(float(hours), 3)


def _budget_rows(
    curves: BudgetComparison,
    studies: Sequence[ComparedStudy],
    percent: bool,
) -> list[OverviewRow]:
    """What equal budgets in trials buy, and in device-hours where that is known."""
    if curves["kind"] is None:
        return []
    by_name = {row["name"]: row for row in curves["rows"]}
    values = [by_name[study["name"]]["value"] for study in studies]
    label = f"{_BUDGET_LABELS[BudgetCurve(curves['kind'])]} {curves['trials']}"
    rows = [OverviewRow(label, [score(value, percent) for value in values])]
    found = [by_name[study["name"]]["device_hours"] for study in studies]
    timed = [each for each in found if each is not None]
    if timed:
        label = f"… in {number(timed[0]['hours'], 2)} device-h"
        rows.append(OverviewRow(label, [score(each["value"], percent) for each in timed]))
    return rows


def pair_row(pair: ComparedPair, percent: bool) -> list[str]:
    """A pair under :data:`HEADINGS`."""
    return [
        f"{pair['a']} − {pair['b']}",
        *_score_cells(pair["confirmed"], pair["holm"], percent),
        *_accuracy_cells(pair["test"]),
    ]


def _score_cells(found: TestedDifference | None, holm: float | None, percent: bool) -> list[str]:
    if found is None:
        return [NONE] * _COLUMNS_OF_SCORES
    quoted = quote_interval(found)
    return [
        difference(found["difference"], percent),
        NONE if quoted is None else format_difference_interval(quoted.ends, percent),
        found["test"],
        _bare_p(found["p"]),
        _bare_p(holm),
        _bare_p(found["permutation_p"]),
        number(found["effect"], 3),
    ]


def _bare_p(p: float | None) -> str:
    """A p-value in a column that names it: ``0.032``, ``< 0.001``."""
    if p is None:
        return NONE
    return p_value(p).removeprefix("p ").removeprefix("= ")


def _accuracy_cells(found: AccuracyDifference | None) -> list[str]:
    if found is None:
        return [NONE] * _COLUMNS_OF_ACCURACY
    return [
        difference(found["difference"], True),
        format_difference_interval((found["low"], found["high"]), True),
    ]


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the comparison."""
    out = console or make_console()
    names = [study["name"] for study in comparison["studies"]]
    _print_verdict(out, comparison)
    out.print(_overview_table(comparison, names))
    if len(comparison["pairs"]) > 1:
        out.print(_pairs_table(comparison))
    _print_rows(
        out,
        "searched: differences",
        _differing(comparison["space"]),
        names,
    )
    _print_rows(
        out,
        "winner",
        comparison["params"],
        names,
    )
    _print_rows(
        out,
        "config: differences",
        _differing(comparison["config"]),
        names,
    )


def _print_verdict(out: Console, comparison: Comparison) -> None:
    verdict = comparison["verdict"]
    out.print(_styled(verdict["headline"], "bold"))
    for sentence in verdict["sentences"]:
        out.print(_styled(sentence))
    for warning in verdict["warnings"]:
        out.print(_styled(f"note: {warning}", "yellow"))


def _overview_table(comparison: Comparison, names: Sequence[str]) -> Table:
    objective = comparison["objective"]
    direction = "higher" if objective["maximize"] else "lower"
    table = _new_table([f"{objective['name']} ({direction} is better)", *names])
    for row in overview_rows(comparison):
        _add_row(table, row.what, row.texts)
    return table


def _pairs_table(comparison: Comparison) -> Table:
    percent = comparison["objective"]["percent"]
    table = _new_table([HEADINGS[column] for column in NARROW])
    for pair in comparison["pairs"]:
        texts = pair_row(pair, percent)
        name, *others = (texts[column] for column in NARROW)
        _add_row(table, name, others)
    return table


def _differing(rows: Sequence[TableRow]) -> list[TableRow]:
    return [row for row in rows if row["differs"]]


def _print_rows(
    out: Console,
    title: str,
    rows: Sequence[TableRow],
    names: Sequence[str],
) -> None:
    if not rows:
        return
    table = _new_table([title, *names])
    for row in rows:
        _add_row(table, row["key"], [format_cell(value) for value in row["values"]])
    out.print(table)


def _new_table(headings: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(
            _styled(heading),
            justify="left" if index == 0 else "right",
            overflow="fold",
        )
    return table


def _add_row(table: Table, what: str, texts: Sequence[str]) -> None:
    cells = [_styled(text) for text in (what, *texts)]
    table.add_row(*cells)


def _styled(text: str, style: str = "") -> Text:
    """A text of rich's that is one line, and changes nothing on a terminal."""
    from rich.text import Text

    return Text(shown(text), style=style)
