"""Two studies of a comparison: their confirmed scores, and their test accuracies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.compare.models import DataVerdict
from dlsearch.report.compare.statistics import (
    adjust_holm,
    compare_paired,
    compare_welch,
    mcnemar_p,
    newcombe_interval,
)

if TYPE_CHECKING:
    from dlsearch.report.compare.models import (
        AccuracyDifference,
        ComparedPair,
        ComparedStudy,
        ConfirmedMean,
        DataComparison,
        DiscordantExamples,
        TestAccuracy,
        TestedDifference,
    )


def compare_pair(
    first: ComparedStudy,
    second: ComparedStudy,
    data: DataComparison,
    maximize: bool,
) -> ComparedPair:
    """Two studies, first minus second; what is tested depends on the data that they share."""
    same = data["same"]
    confirmed = None
    if same["val"] or data["verdict"] is DataVerdict.UNKNOWN:
        confirmed = _compare_confirmed(
            first["confirmed"], second["confirmed"], may_pair=same["val"]
        )
    return {
        "a": first["name"],
        "b": second["name"],
        "search": _search_difference(first, second),
        "confirmed": confirmed,
        "better": _name_of_better(
            first,
            second,
            confirmed,
            maximize,
        ),
        "holm": None,
        "test": _compare_accuracies(first["test"], second["test"]) if same["test"] else None,
    }


def _search_difference(first: ComparedStudy, second: ComparedStudy) -> float | None:
    if first["best"] is None or second["best"] is None:
        return None
    return first["best"]["value"] - second["best"]["value"]


def _name_of_better(
    first: ComparedStudy,
    second: ComparedStudy,
    confirmed: TestedDifference | None,
    maximize: bool,
) -> str | None:
    if confirmed is None or not confirmed["difference"]:
        return None
    first_is_better = (confirmed["difference"] > 0) is maximize
    return first["name"] if first_is_better else second["name"]


def _compare_confirmed(
    first: ConfirmedMean | None,
    second: ConfirmedMean | None,
    *,
    may_pair: bool,
) -> TestedDifference | None:
    """Pair by pair where all seeds of the smaller set have a partner, else as two samples.

    Pairing may not cost more than it gives.
    """
    if first is None or second is None or min(first["n"], second["n"]) < 2:
        return None
    of_first = dict(zip(first["seeds"], first["values"], strict=True))
    of_second = dict(zip(second["seeds"], second["values"], strict=True))
    common = [seed for seed in of_first if seed in of_second]
    smaller = min(len(of_first), len(of_second))
    all_have_partners = len(common) == smaller
    if may_pair and all_have_partners and smaller >= 2:
        return compare_paired(
            [of_first[seed] for seed in common],
            [of_second[seed] for seed in common],
        )
    return compare_welch(first["values"], second["values"])


def _compare_accuracies(
    first: TestAccuracy | None,
    second: TestAccuracy | None,
) -> AccuracyDifference | None:
    if first is None or second is None:
        return None
    low, high = newcombe_interval(
        first["right"],
        first["n"],
        second["right"],
        second["n"],
    )
    return {
        "difference": first["accuracy"] - second["accuracy"],
        "low": low,
        "high": high,
        "mcnemar": _discordant_examples(first, second),
    }


def _discordant_examples(first: TestAccuracy, second: TestAccuracy) -> DiscordantExamples | None:
    """Examples that only one model got right; None where not all errors are recorded."""
    if first["wrong"] is None or second["wrong"] is None or first["n"] != second["n"]:
        return None
    errors_of_first = set(first["wrong"])
    errors_of_second = set(second["wrong"])
    only_first = len(errors_of_second - errors_of_first)
    only_second = len(errors_of_first - errors_of_second)
    return {
        "only_a": only_first,
        "only_b": only_second,
        "p": mcnemar_p(only_first, only_second),
    }


def correct_for_many_pairs(pairs: list[ComparedPair]) -> None:
    """Holm's correction over all pairs that were tested; of one pair it is the p itself."""
    tested = [
        (pair, pair["confirmed"]["p"])
        for pair in pairs
        if pair["confirmed"] is not None and pair["confirmed"]["p"] is not None
    ]
    adjusted = adjust_holm([p for _, p in tested])
    for (pair, _), p in zip(tested, adjusted, strict=True):
        pair["holm"] = p
