"""Classification: scores are shares of examples that were classified right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.facts.intervals import clopper_pearson, resolution, wilson
from dlsearch.report.facts.kinds.base import empty_facts
from dlsearch.report.formats import THIN, interval, score

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import (
        ClassRow,
        ConfusedPair,
        KindFacts,
        MainScore,
        MetricOverSeeds,
        Resolution,
    )
    from dlsearch.report.study import ConfusionMatrix, LedgerRow, View

#: The metric that counts right answers on the test set.
TEST_ACCURACY = "test/accuracy"

#: Pairs of classes in the list of confusions.
MOST_CONFUSIONS = 8


class Classification:
    """Scores with an accuracy or a confusion matrix."""

    name = "classification"
    headline_metric: str | None = TEST_ACCURACY

    def recognises(self, row: LedgerRow) -> bool:
        """Whether the row holds a confusion matrix or an accuracy."""
        has_accuracy = row.metrics.get(TEST_ACCURACY) is not None
        return has_accuracy or bool(row.confusion)

    def describe_scores(self, row: LedgerRow, view: View) -> KindFacts:
        """Accuracy with its intervals, and which classes were taken for which."""
        facts = empty_facts()
        n = int(row.n or 0)
        classes = _name_classes(row, view)
        facts["accuracy"] = row.metrics.get(TEST_ACCURACY)
        facts["classes"] = classes
        facts["confusion"] = row.confusion
        facts["per_class"] = _describe_classes(row.confusion, classes)
        facts["confusions"] = _list_confusions(row.confusion, classes)
        right = _count_right(row, n)
        facts["right"] = right
        if right is not None and n:
            facts["wilson"] = wilson(right, n)
            facts["clopper_pearson"] = clopper_pearson(right, n)
        return facts

    def resolve_validation(self, view: View) -> Resolution | None:
        """How close to the best accuracy the validation examples cannot distinguish another."""
        n = view.document.data.sizes.get("val")
        scored = view.scored
        objective = view.objective
        is_accuracy = objective.percent and objective.name.endswith("accuracy")
        if view.best is None or len(scored) < 2 or not n or not is_accuracy:
            return None
        best = view.best.values[0]
        width = resolution(best, int(n))
        others = [trial for trial in scored if trial is not view.best]
        near = [trial for trial in others if abs(trial.values[0] - best) < width]
        return {
            "n": int(n),
            "width": width,
            "near": [trial.number for trial in near],
        }

    def word_score(self, main: MainScore) -> str | None:
        """The accuracy with its interval, and its mean over the seeds."""
        accuracy = main["accuracy"]
        if accuracy is None:
            return None
        text = f"accuracy {score(accuracy, True)}"
        if main["wilson"]:
            ends = interval(main["wilson"], True)
            text += f" (95{THIN}% interval {ends}, n = {main['n']:,} examples)"
        over_seeds = _find_accuracy_over_seeds(main)
        if over_seeds is not None and over_seeds["n"] > 1:
            mean = score(over_seeds["mean"], True)
            text += f"; over its {over_seeds['n']} seeds the winner reached {mean} on average"
        return text


def _find_accuracy_over_seeds(main: MainScore) -> MetricOverSeeds | None:
    for metric in main["over_seeds"]:
        if metric["metric"] == TEST_ACCURACY:
            return metric
    return None


def _count_right(row: LedgerRow, n: int) -> int | None:
    """Examples that were classified right, by the confusion matrix, else by the accuracy."""
    if row.confusion:
        diagonal = [line[index] for index, line in enumerate(row.confusion)]
        return sum(diagonal)
    accuracy = row.metrics.get(TEST_ACCURACY)
    if accuracy is None or not n:
        return None
    return round(accuracy * n)


def _name_classes(row: LedgerRow, view: View) -> list[str]:
    """The names of the classes in the order of the confusion matrix; numbers where none fit it."""
    n_classes = len(row.confusion)
    names = row.classes or view.document.data.classes
    if len(names) != n_classes:
        return [str(index) for index in range(n_classes)]
    return [str(name) for name in names]


def _describe_classes(confusion: ConfusionMatrix, classes: list[str]) -> list[ClassRow]:
    """Precision, recall and their harmonic mean (F1) of each class."""
    rows: list[ClassRow] = []
    for index, name in enumerate(classes):
        hits = confusion[index][index]
        support = sum(confusion[index])
        predicted = sum(line[index] for line in confusion)
        row: ClassRow = {
            "class": name,
            "support": support,
            "precision": _divide(hits, predicted),
            "recall": _divide(hits, support),
            "f1": _divide(2 * hits, predicted + support),
        }
        rows.append(row)
    return rows


def _divide(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _list_confusions(confusion: ConfusionMatrix, classes: list[str]) -> list[ConfusedPair]:
    """The pairs of classes that were confused most often."""
    pairs: list[ConfusedPair] = []
    for of, line in enumerate(confusion):
        for taken_for, count in enumerate(line):
            if of == taken_for or not count:
                continue
            pair: ConfusedPair = {
                "label": classes[of],
                "prediction": classes[taken_for],
                "count": count,
                "share": count / sum(line),
            }
            pairs.append(pair)
    return sorted(pairs, key=_order_of_pair)[:MOST_CONFUSIONS]


def _order_of_pair(pair: ConfusedPair) -> tuple[int, str, str]:
    return -pair["count"], pair["label"], pair["prediction"]
