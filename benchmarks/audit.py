"""Whether the numbers of the committed records are what their own observations give.

    python benchmarks/audit.py [RECORD …]

Each record holds observations (curves, values of trials and of replicas, times of attempts, the
confusion matrix) beside what was computed from them (counts, means, intervals, comparisons,
accuracies). This script computes the second again from the first, with NumPy and SciPy alone: it
imports nothing of dlsearch. It prints every disagreement, and ends with exit code 1 if there is
one. A bootstrap interval depends on its random resamples: for that, all resamples are enumerated,
and each end must lie where the bias-corrected and accelerated bootstrap (Efron, 1987) puts it, up to
what 9,999 draws leave open.

Then it looks at what is said: the figures on both pages of each report, and those that README, the
guides and the comments of the recipes quote of a study (``audit_texts.py``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from audit_texts import audit_documents, audit_pages, find_resolution
from scipy import stats

RECORDS = Path(__file__).resolve().parents[1] / "experiments"
#: Records write twelve digits.
RELATIVE = 1e-9
#: Differences of scores of two trials are of float32 means.
ABSOLUTE = 1e-9
LEVEL = 0.95
#: How far the share of resamples below an end may be from its nominal one.
SHARE = 0.012
#: Values up to which all resamples are enumerated: 7 ** 7 is 823,543.
MOST_ENUMERATED = 7

Row = Mapping[str, Any]


class Audit:
    """Compares what a record says with what is computed here.

    Args:
        name: The record's name.
    """

    def __init__(self, name: str) -> None:
        """Nothing is compared yet."""
        self.name = name
        self.compared = 0
        self.disagreements: list[str] = []

    def number(self, key: str, recorded: float | None, computed: float | None) -> None:
        """Compare two numbers; None stands for none."""
        self.compared += 1
        if recorded is None or computed is None:
            if recorded is not computed:
                self._disagree(key, recorded, computed)
            return
        if not math.isclose(recorded, computed, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            self._disagree(key, recorded, computed)

    def numbers(self, key: str, recorded: Sequence[float], computed: Sequence[float]) -> None:
        """Compare two sequences, value by value."""
        if len(recorded) != len(computed):
            self._disagree(key, list(recorded), list(computed))
            return
        for place, (theirs, ours) in enumerate(zip(recorded, computed, strict=True)):
            self.number(f"{key}[{place}]", theirs, ours)

    def same(self, key: str, recorded: Any, computed: Any) -> None:
        """Compare two values that must be equal."""
        self.compared += 1
        if recorded != computed:
            self._disagree(key, recorded, computed)

    def holds(self, key: str, condition: bool, what: str) -> None:
        """Note a statement that must be true."""
        self.compared += 1
        if not condition:
            self.disagreements.append(f"{self.name}: {key}: {what}")

    def _disagree(self, key: str, recorded: Any, computed: Any) -> None:
        self.disagreements.append(
            f"{self.name}: {key}: the record says {recorded}, computed {computed}"
        )


def audit_record(record: Row, audit: Audit) -> None:
    """Compute every number of a record again."""
    audit_accounting(record, audit)
    audit_course(record, audit)
    audit_compute(record, audit)
    audit_confirmation(record, audit)
    audit_data(record, audit)
    audit_test(record, audit)


# -- the search -----------------------------------------------------------------------------------


def audit_accounting(record: Row, audit: Audit) -> None:
    """How many trials ended how."""
    accounting = record["accounting"]
    trials = record["trials"]
    counts = Counter(trial["state"] for trial in trials)
    for state, count in accounting["counts"].items():
        audit.same(f"accounting.counts.{state}", count, counts[state])
    audit.same("accounting.asked", accounting["asked"], record["study"]["n_trials"])
    attempts = sum(len(trial["attempts"]) for trial in trials)
    audit.same("accounting.attempts", accounting["attempts"], attempts)
    audit.same("trials numbered from 0", [t["number"] for t in trials], list(range(len(trials))))


def scored_trials(record: Row) -> list[Row]:
    """The complete trials that were trained, and are no copies of others."""
    return [trial for trial in record["trials"] if trial["scored"]]


def audit_course(record: Row, audit: Audit) -> None:
    """The best trial, and how the search came to it."""
    if len(record["objectives"]) != 1:
        return
    maximize = record["objectives"][0]["maximize"]
    sign = 1.0 if maximize else -1.0
    scored = [t for t in scored_trials(record) if t["state"] == "complete"]
    for trial in scored:
        key = f"trials[{trial['number']}]"
        curve = [value for _, value in trial["intermediate"]]
        if curve and trial["best_epoch"] is not None:
            best = max(curve) if maximize else min(curve)
            audit.number(f"{key}.values", trial["values"][0], best)
            epoch = next(epoch for epoch, value in trial["intermediate"] if value == best)
            audit.same(f"{key}.best_epoch", trial["best_epoch"], epoch)
    if not scored:
        return
    best_trial = max(scored, key=lambda t: (sign * t["values"][0], -t["number"]))
    audit.same("best", record["best"], best_trial["number"])
    ranked = sorted(scored, key=lambda t: (-sign * t["values"][0], t["number"]))
    top = record["top"]
    audit.same("top", top, [trial["number"] for trial in ranked[: len(top)]])
    course = record["course"]
    if course is None:
        return
    values = [trial["values"][0] for trial in scored]
    audit.number("course.median", course["median"], statistics.median(values))
    steps: list[tuple[int, float]] = []
    for trial in scored:
        value = trial["values"][0]
        if not steps or sign * value > sign * steps[-1][1]:
            steps.append((trial["number"], value))
    recorded = dict(course["best_so_far"])
    for number, value in steps:
        audit.number(f"course.best_so_far[{number}]", recorded.get(number), value)


def audit_compute(record: Row, audit: Audit) -> None:
    """Device time and wall time."""
    compute = record["compute"]
    by_state: Counter[str] = Counter()
    starts = []
    ends = []
    for trial in record["trials"]:
        for place, attempt in enumerate(trial["attempts"]):
            is_last = place == len(trial["attempts"]) - 1
            seconds = attempt["seconds"]
            if seconds is None:
                return  # it was running when the record was written
            by_state[trial["state"] if is_last else "failed"] += seconds
            starts.append(attempt["started"])
            ends.append(attempt["ended"])
    for state, seconds in compute["by_state"].items():
        audit.holds(
            f"compute.by_state.{state}",
            math.isclose(seconds, by_state[state], abs_tol=1e-3),
            f"the record says {seconds}, computed {by_state[state]}",
        )
    total = sum(by_state.values())
    audit.holds(
        "compute.device_seconds",
        math.isclose(compute["device_seconds"], total, abs_tol=1e-3),
        f"the record says {compute['device_seconds']}, computed {total}",
    )
    if not starts or compute["wall_seconds"] is None:
        return
    wall = max(ends) - min(starts) - sum(end - start for start, end in compute["gaps"])
    audit.number("compute.wall_seconds", compute["wall_seconds"], wall)
    audit.number(
        "compute.utilisation", compute["utilisation"], total / wall / len(compute["slots"])
    )


# -- the confirmation -----------------------------------------------------------------------------


def audit_confirmation(record: Row, audit: Audit) -> None:
    """Means over fresh seeds, their intervals, and the comparisons with the winner."""
    confirmation = record["confirmation"]
    if confirmation is None:
        return
    maximize = record["objectives"][0]["maximize"]
    sign = 1.0 if maximize else -1.0
    finalists = confirmation["finalists"]
    for place, finalist in enumerate(finalists):
        key = f"confirmation.finalists[{place}]"
        values = [each["value"] for each in finalist["replicas"] if each["value"] is not None]
        audit_estimate(f"{key}", finalist, values, audit, find_resolution(values or [0.0]))
        if finalist["search_value"] is not None and values:
            drop = sign * (finalist["search_value"] - math.fsum(values) / len(values))
            audit.number(f"{key}.optimism", finalist["optimism"], drop)
        for epoch, n, least, mean, most in finalist["band"]:
            column = [
                value
                for each in finalist["replicas"]
                if each["state"] == "complete"
                for step, value in each["intermediate"]
                if step == epoch
            ]
            audit.same(f"{key}.band[{epoch}].n", n, len(column))
            computed = [min(column), float(np.mean(column)), max(column)]
            audit.numbers(f"{key}.band[{epoch}]", [least, mean, most], computed)
    for place, comparison in enumerate(confirmation["comparisons"]):
        audit_comparison(f"confirmation.comparisons[{place}]", comparison, finalists, sign, audit)
    audit_winner(record, confirmation, sign, audit)
    audit_chances(confirmation, sign, audit)
    seconds = [
        each["seconds"]
        for finalist in finalists
        for each in finalist["replicas"]
        if each["seconds"] is not None
    ]
    audit.number(
        "confirmation.device_seconds", confirmation["device_seconds"], sum(seconds) or None
    )


def audit_chances(confirmation: Row, sign: float, audit: Audit) -> None:
    """The chance that racing gave each finalist that it dropped (docs/architecture.md)."""
    finalists = confirmation["finalists"]
    n_seeds = len(confirmation["seeds"])
    for place, finalist in enumerate(finalists):
        seeds = finalist["dropped_after"]
        if seeds is None or finalist["failed"]:
            continue
        rows = {
            other: [sign * values_by_replica(each)[replica] for replica in range(seeds)]
            for other, each in enumerate(finalists)
            if each["dropped_after"] is None or each["dropped_after"] >= seeds
        }
        leader = max(rows, key=lambda other: math.fsum(rows[other]))
        compared = [
            row for other, row in rows.items() if other == leader or not finalists[other]["default"]
        ]
        table = np.asarray(compared)
        left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
        degrees = (len(table) - 1) * (seeds - 1)
        pooled = math.sqrt(2 * float(np.sum(left**2)) / degrees)
        differences = np.subtract(rows[leader], rows[place])
        spread = max(float(np.std(differences, ddof=1)), pooled)
        t = float(np.mean(differences)) / spread * math.sqrt(seeds * n_seeds / (n_seeds - seeds))
        chance = float(stats.t.cdf(-t, degrees))
        audit.holds(
            f"confirmation.finalists[{place}].chance",
            math.isclose(finalist["chance"], chance, rel_tol=1e-4, abs_tol=1e-9),
            f"the record says {finalist['chance']}, computed {chance}",
        )


def audit_winner(record: Row, confirmation: Row, sign: float, audit: Audit) -> None:
    """The winner has the best mean of those that completed all seeds, and the claim is about it."""
    finalists = confirmation["finalists"]
    whole = [f for f in finalists if f["all_seeds"] and f["mean"] is not None]
    if confirmation["winner"] is None or not whole:
        return
    winner = finalists[confirmation["winner"]]
    most = max(sign * finalist["mean"] for finalist in whole)
    audit.number("confirmation.winner's mean", sign * winner["mean"], most)
    optimism = record["optimism"]
    best = next((t for t in record["trials"] if t["number"] == record["best"]), None)
    if optimism is not None and best is not None:
        drop = sign * (best["values"][0] - winner["mean"])
        audit.number("optimism.drop", optimism["drop"], drop)
        audit.same("optimism.interval", optimism["interval"], winner["student"])
    claim = record["claim"]
    against = confirmation["against_default"]
    if claim is not None and against is not None and claim.get("gain") is not None:
        audit.number("claim.gain", claim["gain"], against["mean"])


def audit_comparison(
    key: str,
    comparison: Row,
    finalists: Sequence[Row],
    sign: float,
    audit: Audit,
) -> None:
    """A paired comparison: differences by seed, their mean, intervals, and the probability."""
    first = values_by_replica(finalists[comparison["of"]])
    second = values_by_replica(finalists[comparison["with"]])
    both = sorted(first.keys() & second.keys())
    audit.same(f"{key}.replicas", comparison["replicas"], both)
    scores = [values[replica] for values in (first, second) for replica in both]
    resolution = find_resolution(scores or [0.0])
    raw = [sign * (first[replica] - second[replica]) for replica in both]
    differences = [each if abs(each) > resolution else 0.0 for each in raw]
    audit.numbers(f"{key}.differences", comparison["differences"], differences)
    audit.same(f"{key}.better", comparison["better"], sum(each > 0 for each in differences))
    audit.same(f"{key}.equal", comparison["equal"], sum(each == 0 for each in differences))
    audit_estimate(key, comparison, differences, audit, resolution)
    if comparison["probability"] is not None and comparison["sd"]:
        t = np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(len(differences)))
        probability = float(stats.t.cdf(t, df=len(differences) - 1))
        audit.holds(
            f"{key}.probability",
            math.isclose(comparison["probability"], probability, rel_tol=1e-6, abs_tol=1e-9),
            f"the record says {comparison['probability']}, computed {probability}",
        )


def values_by_replica(finalist: Row) -> dict[int, float]:
    """The values of the seeds that it completed."""
    return {e["replica"]: e["value"] for e in finalist["replicas"] if e["value"] is not None}


def audit_estimate(
    key: str,
    estimate: Row,
    values: Sequence[float],
    audit: Audit,
    resolution: float,
) -> None:
    """A mean with its standard deviation and both of its intervals.

    Values that differ by no more than `resolution`, what rounding leaves open of them, are equal.
    """
    n = len(values)
    audit.same(f"{key}.n", estimate["n"], n)
    if n == 0:
        audit.same(f"{key}.mean", estimate["mean"], None)
        return
    mean = float(np.mean(values))
    audit.number(f"{key}.mean", estimate["mean"], mean)
    if n > 1 and max(values) - min(values) <= resolution:
        audit.same(f"{key}.sd", estimate["sd"], 0.0)
        audit.same(f"{key}.intervals", [estimate["student"], estimate["interval"]], [None, None])
        return
    if n == 1 or estimate["sd"] is None:
        return
    deviation = float(np.std(values, ddof=1))
    audit.number(f"{key}.sd", estimate["sd"], deviation)
    if estimate["student"] is not None:
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)
        audit.numbers(f"{key}.student", estimate["student"], [mean - half, mean + half])
    if estimate["interval"] is not None and n <= MOST_ENUMERATED:
        audit_bootstrap(key, estimate, values, audit, resolution)


def audit_bootstrap(
    key: str,
    estimate: Row,
    values: Sequence[float],
    audit: Audit,
    resolution: float,
) -> None:
    """Each end of the interval lies where all resamples put it."""
    sample = np.asarray(values)
    n = len(sample)
    means = np.sort([np.mean(draw) for draw in itertools.product(sample, repeat=n)])
    nominal = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    if estimate["method"].startswith("BCa"):
        nominal = accelerated_shares(sample, means, resolution)
    spacing = resolution
    for share, end in zip(nominal, estimate["interval"], strict=True):
        below = float(np.mean(means < end - spacing))
        up_to = float(np.mean(means <= end + spacing))
        audit.holds(
            f"{key}.interval",
            below - SHARE <= share <= up_to + SHARE,
            f"{end} has {below:.4f} to {up_to:.4f} of all resamples below it, not {share:.4f}",
        )


def accelerated_shares(
    sample: np.ndarray,
    means: np.ndarray,
    resolution: float,
) -> list[float]:
    """The shares of the resamples below the ends of the BCa interval (Efron, 1987, eq. 6.8)."""
    mean = float(np.mean(sample))
    less = float(np.mean(means < mean - resolution))
    equal = float(np.mean(np.abs(means - mean) <= resolution))
    bias = stats.norm.ppf(less + equal / 2)
    left_out = np.array([np.mean(np.delete(sample, place)) for place in range(len(sample))])
    deviations = np.mean(left_out) - left_out
    acceleration = np.sum(deviations**3) / (6 * np.sum(deviations**2) ** 1.5)
    found = []
    for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        moved = bias + stats.norm.ppf(level)
        found.append(float(stats.norm.cdf(bias + moved / (1 - acceleration * moved))))
    return found


# -- data and test --------------------------------------------------------------------------------


def audit_data(record: Row, audit: Audit) -> None:
    """The sizes of the splits, and how evenly the classes stand in them."""
    data = record["study"]["data"]
    counts = data.get("class_counts") or {}
    for split, of_split in counts.items():
        if not of_split:
            continue
        audit.same(f"study.data.sizes.{split}", data["sizes"][split], sum(of_split))
        balance = (record["data"].get("balance") or {}).get(split)
        if balance is None:
            continue
        audit.same(f"data.balance.{split}.largest", balance["largest"], max(of_split))
        audit.same(f"data.balance.{split}.smallest", balance["smallest"], min(of_split))
        shares = [count / sum(of_split) for count in of_split]
        audit.numbers(f"data.balance.{split}.shares", balance["shares"], shares)


def audit_test(record: Row, audit: Audit) -> None:
    """What the test set said: proportions, figures by class, means over seeds."""
    test = record["test"]
    if test is None:
        return
    audit.same("test.opened", test["opened"], len(test["openings"]))
    main = test["main"]
    if main is None:
        return
    if main.get("confusion"):
        audit_confusion(main, audit)
    audit_kept(record, main, audit)
    for row in main["over_seeds"] or []:
        key = f"test.over_seeds.{row['metric']}"
        values = [each["metrics"][row["metric"]] for each in main["replicas"]]
        audit_estimate(key, row, values, audit, find_resolution(values))


def audit_kept(record: Row, main: Row, audit: Audit) -> None:
    """The model that is quoted is the winner's replica with the best validation score."""
    confirmation = record["confirmation"]
    if confirmation is None or confirmation["kept"] is None or not main["replicas"]:
        return
    sign = 1.0 if record["objectives"][0]["maximize"] else -1.0
    values = values_by_replica(confirmation["finalists"][confirmation["winner"]])
    best = min(values, key=lambda replica: (-sign * values[replica], replica))
    audit.same("confirmation.kept.replica", confirmation["kept"]["replica"], best)
    scored = next(each for each in main["replicas"] if each["replica"] == best)
    audit.same("test.main.seed", main["seed"], scored["seed"])
    for metric, value in scored["metrics"].items():
        audit.number(f"test.main.metrics.{metric}", main["metrics"][metric], value)


def audit_confusion(main: Row, audit: Audit) -> None:
    """Accuracy, its intervals, and precision, recall and F1 of each class."""
    matrix = np.asarray(main["confusion"])
    n = int(matrix.sum())
    right = int(np.trace(matrix))
    audit.same("test.n", main["n"], n)
    audit.same("test.right", main["right"], right)
    # metrics are of float32
    accuracy = main["accuracy"]
    audit.holds("test.accuracy", abs(accuracy - right / n) < 1e-6, f"{accuracy}, not {right / n}")
    audit.numbers("test.wilson", main["wilson"], wilson(right, n))
    exact = [
        float(stats.beta.ppf((1 - LEVEL) / 2, right, n - right + 1)) if right else 0.0,
        float(stats.beta.ppf((1 + LEVEL) / 2, right + 1, n - right)) if right < n else 1.0,
    ]
    audit.numbers("test.clopper_pearson", main["clopper_pearson"], exact)
    scores = []
    for place, row in enumerate(main["per_class"]):
        key = f"test.per_class[{place}]"
        hit = matrix[place, place]
        support = matrix[place].sum()
        predicted = matrix[:, place].sum()
        audit.same(f"{key}.support", row["support"], int(support))
        recall = hit / support if support else None
        precision = hit / predicted if predicted else None
        audit.number(f"{key}.recall", row["recall"], recall)
        audit.number(f"{key}.precision", row["precision"], precision)
        both = support + predicted
        scores.append(2 * hit / both if both else 0.0)
        if row["f1"] is not None:
            audit.number(f"{key}.f1", row["f1"], scores[-1])
    macro = main["metrics"].get("test/f1")
    if macro is not None:
        audit.holds(
            "test/f1", abs(macro - np.mean(scores)) < 1e-5, f"{macro}, not {np.mean(scores)}"
        )
    for row in main["confusions"]:
        audit.holds(
            "test.confusions",
            row["count"] in matrix,
            f"no pair of classes was confused {row['count']} times",
        )


def wilson(right: int, n: int) -> list[float]:
    """Wilson's score interval (Wilson, 1927, eq. 1)."""
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [middle - half, middle + half]


def records(given: Sequence[Path]) -> Iterator[tuple[str, Row]]:
    """The records that were named, or all that are committed."""
    for path in given or sorted(RECORDS.glob("*/report.json")):
        yield path.parent.name, json.loads(path.read_text())


def main() -> int:
    """Audit, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="*", help="report.json of some studies")
    given = parser.parse_args()
    compared = 0
    disagreements: list[str] = []
    found = dict(records(given.records))
    audits = []
    for name, record in found.items():
        audit = Audit(name)
        audit_record(record, audit)
        audits.append(audit)
        if not given.records:
            audit_pages(name, record, audit)
    if not given.records:
        documents = Audit("documents")
        audit_documents(found, documents)
        audits.append(documents)
    for audit in audits:
        compared += audit.compared
        disagreements += audit.disagreements
    count = len(found)
    for line in disagreements:
        print(line)
    print(f"{count} records, {compared:,} numbers: {len(disagreements)} disagreements")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
