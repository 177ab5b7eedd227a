"""What pages and documents quote of the committed records, for ``audit.py``; it imports nothing of ours.

Figures are written here from the observations in ``report.json``, by rules of our own, and looked
for in ``report.md``, ``index.html``, README, the guides and the comments of the recipes: the figure,
n, the kind of interval, and which seed.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "experiments"
#: Seeds below which Student's interval is the one that is quoted.
FEW = 50
ACCURACY = "test/accuracy"

Row = Mapping[str, Any]

_TEST_FIGURE = re.compile(
    r"test accuracy (\d+\.\d\d) % \((\d+\.\d\d) to (\d+\.\d\d); n = (\d+)\)(\\\*)?"
)
_ALL_SEEDS = re.compile(r"(\d+\.\d\d) % on all (\d+) seeds(\\\*)?")
_FIGURE = re.compile(r"(?<![\w.,])[+−]?(\d+\.\d+)(?![\w.]*\d)")
_PER_CENT = re.compile(r"(?<![\w.,])(\d+(?:\.\d+)?) ?%")


# -- how figures are written ----------------------------------------------------------------------


def write_score(x: float | None, percent: bool) -> str:
    """A score as pages write it, with plain spaces."""
    if x is None:
        return "–"
    text = f"{100 * x:.2f} %" if percent else write_plain(x)
    return text.replace("-", "−")


def write_plain(x: float) -> str:
    """Four decimals; of what is smaller than a hundredth, four digits without zeros at the end."""
    if x == 0 or abs(x) >= 0.01:
        return f"{x:.4f}"
    order = math.floor(math.log10(abs(x)))
    if order < -3:
        mantissa, exponent = f"{x:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{x:.{3 - order}f}".rstrip("0").rstrip(".")


def write_difference(x: float, percent: bool) -> str:
    """A difference with its sign and without its unit."""
    text = f"{100 * x:+.2f}" if percent else write_plain(x)
    text = text.replace("-", "−")
    return text if text.startswith(("+", "−")) else f"+{text}"


def write_ends(ends: Sequence[float] | None, percent: bool) -> str:
    """Both ends of an interval of scores."""
    if ends is None:
        return "–"
    low, high = (write_score(end, percent) for end in ends)
    return f"{low.removesuffix(' %')} to {high}"


def write_probability(p: float | None) -> str:
    """A probability, never certain."""
    if p is None:
        return "–"
    if p > 0.999:
        return "more than 99.9 %"
    if p < 0.001:
        return "less than 0.1 %"
    return f"{100 * p:.1f} %"


def find_resolution(scores: Sequence[float]) -> float:
    """What float32 leaves open of a difference of differences of such scores."""
    largest = max(abs(score) for score in scores)
    if 2.0**-10 <= largest < 1:
        largest = 1.0
    return largest * 2.0**-22


def student(values: Sequence[float], resolution: float | None = None) -> list[float] | None:
    """Student's interval of a mean; None where all values are equal."""
    n = len(values)
    if resolution is None and n:
        resolution = find_resolution(values)
    if n < 2 or max(values) - min(values) <= (resolution or 0.0):
        return None
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return [mean - half, mean + half]


# -- pages ----------------------------------------------------------------------------------------


class Page:
    """The text of a page, and the cells of its tables, spaces made plain.

    Args:
        text: All words.
        rows: The cells of each row.
    """

    def __init__(self, text: str, rows: Sequence[Sequence[str]]) -> None:
        """Keep them."""
        self.text = make_plain(text)
        self.rows = [[make_plain(cell) for cell in row] for row in rows]

    def rows_named(self, name: str) -> list[list[str]]:
        """The rows whose first cell begins with these words."""
        return [row for row in self.rows if row and row[0].startswith(name)]


def make_plain(text: str) -> str:
    """One plain space between words."""
    return re.sub(r"[\s\u202f\u00a0]+", " ", text).strip()


def read_markdown(path: Path) -> Page:
    """``report.md``."""
    text = re.sub(r"\\([\\`*\[\]<>|{}~$_#+-])", r"\1", path.read_text("utf-8"))
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if "|" in line]
    return Page(text, rows)


def read_html(path: Path) -> Page:
    """``index.html``."""
    text = path.read_text("utf-8")
    rows = [
        [strip_tags(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr\b[^>]*>(.*?)</tr>", text, re.DOTALL)
    ]
    return Page(strip_tags(re.sub(r"<(style|svg)\b.*?</\1>", " ", text, flags=re.DOTALL)), rows)


def strip_tags(text: str) -> str:
    """Words alone."""
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def audit_pages(name: str, record: Row, audit: Any) -> None:
    """The figures of a report's two pages."""
    for file, read in (("report.md", read_markdown), ("index.html", read_html)):
        page = read(RECORDS / name / file)
        for key, words in expected_words(record):
            audit.holds(f"{file}: {key}", words in page.text, f"does not say {words!r}")
        for key, first, cells in expected_rows(record):
            found = page.rows_named(first)
            has_row = any(set(cells) <= set(row) for row in found)
            audit.holds(
                f"{file}: {key}", has_row, f"no row {first!r} with {cells}, but {found[:3]}"
            )


def expected_words(record: Row) -> Iterator[tuple[str, str]]:
    """What must stand on a page, each with a key."""
    percent = record["objectives"][0]["percent"]
    confirmation = record["confirmation"]
    claim = record["claim"]
    yield "claim.headline", make_plain(claim["headline"])
    for place, sentence in enumerate(claim["sentences"]):
        yield f"claim.sentences[{place}]", make_plain(sentence)
    if confirmation is not None and confirmation["winner"] is not None:
        finalists = confirmation["finalists"]
        winner = finalists[confirmation["winner"]]
        values = values_of(winner)
        ends = student(values)
        mean = write_score(float(np.mean(values)), percent)
        seeds = f"{len(values)} fresh seeds"
        quoted = f"(mean of {seeds})"
        if ends is not None:
            extent = write_ends(ends, percent)
            quoted = f"(95 % interval {extent}, Student's t, n = {seeds})"
        yield "the winner", f"{record['objectives'][0]['name']} {mean} {quoted}"
        for comparison in quoted_comparisons(confirmation):
            yield from words_of_comparison(record, comparison)
    main = record["test"]["main"]
    if main is not None and main["confusion"]:
        matrix = np.asarray(main["confusion"])
        share = float(np.trace(matrix) / matrix.sum())
        yield "test.main", f"accuracy {write_score(share, True)} (95 % interval"
        yield "test.main.n", f"n = {int(matrix.sum()):,} examples)"
    if main is not None and main["confusion"] and len(main["replicas"]) > 1:
        values = [each["metrics"][ACCURACY] for each in main["replicas"]]
        mean = write_score(float(np.mean(values)), True)
        yield (
            "test.over_seeds",
            f"over its {len(values)} seeds the winner reached {mean} on average",
        )


def quoted_comparisons(confirmation: Row) -> list[Row]:
    """The comparisons that the claim makes: with the default configuration, and the runner-up."""
    places = {confirmation["default"], confirmation["runner_up"]}
    return [row for row in confirmation["comparisons"] if row["with"] in places]


def words_of_comparison(record: Row, comparison: Row) -> Iterator[tuple[str, str]]:
    """A comparison in the claim."""
    percent = record["objectives"][0]["percent"]
    finalists = record["confirmation"]["finalists"]
    differences, resolution = find_differences(record, comparison)
    if not differences:
        return
    better = sum(each > 0 for each in differences)
    mean = write_difference(float(np.mean(differences)), percent)
    unit = " points" if percent else ""
    n = f"{len(differences)} seed{'s' if len(differences) > 1 else ''}"
    text = f"it is better on {better} of {n}, by {mean}{unit} on average"
    ends = student(differences, resolution)
    if ends is not None:
        low, high = (write_difference(end, percent) for end in ends)
        text += f" (95 % interval {low} to {high}{unit}, Student's t)"
        chance = write_probability(find_probability(differences))
        text += f"; the probability that its mean is better is {chance}"
    yield f"against {finalists[comparison['with']]['name']}", text


def find_probability(differences: Sequence[float]) -> float:
    """Of a mean difference above zero, by Student's t."""
    n = len(differences)
    t = np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(n))
    return float(stats.t.cdf(t, df=n - 1))


def find_differences(record: Row, comparison: Row) -> tuple[list[float], float]:
    """The differences by seed, positive where the winner is better, and what rounding leaves open."""
    sign = 1.0 if record["objectives"][0]["maximize"] else -1.0
    finalists = record["confirmation"]["finalists"]
    first, second = (
        {e["replica"]: e["value"] for e in finalists[place]["replicas"] if e["value"] is not None}
        for place in (comparison["of"], comparison["with"])
    )
    both = sorted(first.keys() & second.keys())
    if not both:
        return [], 0.0
    scores = [values[replica] for values in (first, second) for replica in both]
    resolution = find_resolution(scores)
    raw = [sign * (first[replica] - second[replica]) for replica in both]
    return [each if abs(each) > resolution else 0.0 for each in raw], resolution


def values_of(finalist: Row) -> list[float]:
    """The scores of the seeds that it completed."""
    return [each["value"] for each in finalist["replicas"] if each["value"] is not None]


def expected_rows(record: Row) -> Iterator[tuple[str, str, list[str]]]:
    """What must stand in a row of a table: a key, how its first cell begins, and some cells."""
    percent = record["objectives"][0]["percent"]
    by_number = {trial["number"]: trial for trial in record["trials"]}
    for number in record["top"]:
        trial = by_number[number]
        first = f"{number} (default)" if trial["default"] else str(number)
        yield f"trial {number}", first, [write_score(trial["values"][0], percent)]
    yield from expected_classes(record["test"]["main"])
    confirmation = record["confirmation"]
    if confirmation is None:
        return
    for finalist in confirmation["finalists"]:
        values = values_of(finalist)
        ends = student(values)
        cells = [write_score(float(np.mean(values)), percent), write_ends(ends, percent)]
        cells.append("Student's t" if ends is not None else "–")
        yield f"finalist {finalist['name']}", finalist["name"], cells
    for comparison in confirmation["comparisons"]:
        differences, resolution = find_differences(record, comparison)
        name = confirmation["finalists"][comparison["with"]]["name"]
        ends = student(differences, resolution)
        cells = [write_difference(float(np.mean(differences)), percent)]
        if ends is not None:
            cells.append(" to ".join(write_difference(end, percent) for end in ends))
            cells.append(write_probability(find_probability(differences)))
        yield f"comparison with {name}", name, cells
    main = record["test"]["main"]
    if main is not None and main["over_seeds"] and ACCURACY in main["replicas"][0]["metrics"]:
        values = [each["metrics"][ACCURACY] for each in main["replicas"]]
        yield "test accuracy over seeds", "95 % interval", [write_ends(student(values), True)]
        for replica in main["replicas"]:
            accuracy = write_score(replica["metrics"][ACCURACY], True)
            cells = [str(replica["seed"]), accuracy]
            yield f"replica {replica['replica']} on the test set", str(replica["replica"]), cells


def expected_classes(main: Row | None) -> Iterator[tuple[str, str, list[str]]]:
    """Precision and recall of each class on the test set."""
    if main is None or not main["confusion"]:
        return
    matrix = np.asarray(main["confusion"])
    for place, row in enumerate(main["per_class"]):
        hit = matrix[place, place]
        support = int(matrix[place].sum())
        predicted = int(matrix[:, place].sum())
        cells = [f"{support:,}"]
        cells += [f"{100 * hit / whole:.1f} %" for whole in (predicted, support) if whole]
        yield f"class {row['class']}", str(row["class"])[:20], cells


# -- documents ------------------------------------------------------------------------------------


def audit_documents(records: Mapping[str, Row], audit: Any) -> None:
    """README, the guides, the list of studies, and the comments of the recipes."""
    seen: set[str] = set()
    for path in (ROOT / "README.md", RECORDS / "README.md"):
        for line in path.read_text("utf-8").splitlines():
            names = re.findall(r"\((?:experiments/)?(\w+)/report\.md\)", line)
            if not line.startswith("| ") or not names:
                continue
            seen.update(names)
            cell = line.rstrip("| ").split(" | ")[-1]
            for name, words in split_cell(cell, names):
                audit_cell(f"{path.parent.name}/{path.name}: {name}", words, records[name], audit)
    for name in records:
        audit.holds(f"README: {name}", name in seen, "no row quotes this record")
    for path in sorted((ROOT / "docs").glob("*.md")):
        for line in path.read_text("utf-8").splitlines():
            for name in records:
                if re.search(rf"\b{name}\b", line):
                    audit_figures(f"docs/{path.name}: {name}", line, records[name], audit)
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        record = records.get(path.stem)
        if record is None:
            continue
        comments = " ".join(re.findall(r"#(.*)", path.read_text("utf-8")))
        audit_figures(f"conf/experiment/{path.name}", comments, record, audit)
    audit_prose(records, audit)


def split_cell(cell: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a cell of the table says of each study that it names."""
    if len(names) == 1:
        yield names[0], cell
        return
    starts = [(cell.index(f"{name}:"), name) for name in names]
    starts.sort()
    ends = [start for start, _ in starts[1:]] + [len(cell)]
    for (start, name), end in zip(starts, ends, strict=True):
        yield name, cell[start + len(name) + 1 : end]


def audit_cell(key: str, words: str, record: Row, audit: Any) -> None:
    """One study's figures in a table: test accuracy, n, interval and star; all others are known ones."""
    main = record["test"]["main"]
    star = "\\*" if record["won"]["default"] else None
    values = [each["metrics"].get(ACCURACY) for each in main["replicas"]]
    figure = _TEST_FIGURE.search(words)
    whole = _ALL_SEEDS.search(words)
    if figure is not None:
        ends = student(values)
        audit.holds(key, ends is not None, "an interval is quoted of equal values")
        mean = f"{100 * float(np.mean(values)):.2f}"
        expected = [mean, *(f"{100 * end:.2f}" for end in ends or []), str(len(values)), star]
        audit.same(key, list(figure.groups()), expected)
    elif whole is not None:
        expected = [f"{100 * float(np.mean(values)):.2f}", str(len(values)), star]
        audit.same(key, list(whole.groups()), expected)
        audit.same(f"{key}: interval", student(values), None)
    audit_figures(key, words, record, audit, every=True)


def audit_figures(key: str, words: str, record: Row, audit: Any, *, every: bool = False) -> None:
    """Each figure in some words is one of the record's, rounded.

    Args:
        key: What to call the place.
        words: The words.
        record: The record that they are about.
        audit: Takes the result.
        every: Whether decimals without a per cent sign are figures of the record too.
    """
    known = known_figures(record)
    found = (_FIGURE if every else _PER_CENT).findall(words)
    for figure in found:
        places = len(figure.partition(".")[2])
        is_known = any(f"{each:.{places}f}" == figure for each in known)
        audit.holds(key, is_known, f"{figure} is no figure of the record")


def known_figures(record: Row) -> list[float]:
    """All means and ends that a document may quote: in per cent, and as they are."""
    found: list[float] = []
    confirmation = record["confirmation"]
    for finalist in confirmation["finalists"]:
        values = values_of(finalist)
        found += [float(np.mean(values)), *(student(values) or [])]
    for comparison in confirmation["comparisons"]:
        differences, resolution = find_differences(record, comparison)
        found += [float(np.mean(differences)), *(student(differences, resolution) or [])]
    main = record["test"]["main"]
    metrics = {name for each in main["replicas"] for name in each["metrics"]}
    for metric in sorted(metrics):
        values = [each["metrics"][metric] for each in main["replicas"]]
        found += [float(np.mean(values)), *(student(values) or [])]
    found += [abs(value) for value in main["metrics"].values()]
    return [abs(value) for value in found] + [100 * abs(value) for value in found]


def audit_prose(records: Mapping[str, Row], audit: Any) -> None:
    """README's sentences on the studies."""
    text = make_plain((ROOT / "README.md").read_text("utf-8"))
    found = re.search(
        r"LeNet-5 was found by the search \((\d+\.\d+) % on validation over (\d+) fresh seeds,"
        r" the default configuration (\d+\.\d+) %\)",
        text,
    )
    audit.holds("README: LeNet-5", found is not None, "the sentence on lenet_mnist is gone")
    if found is not None:
        confirmation = records["lenet_mnist"]["confirmation"]
        winner, default = (
            values_of(confirmation["finalists"][confirmation[place]])
            for place in ("winner", "default")
        )
        expected = [f"{100 * float(np.mean(winner)):.2f}", str(len(winner))]
        expected.append(f"{100 * float(np.mean(default)):.2f}")
        audit.same("README: LeNet-5", list(found.groups()), expected)
    won = [name for name, record in records.items() if record["won"]["default"]]
    counted = f"In {len(won)} of the {len(records)} the default configuration won"
    audit.holds("README: defaults", counted in text, f"does not say {counted!r}")
