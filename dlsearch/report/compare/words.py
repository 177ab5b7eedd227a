"""What a comparison comes to, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.compare.models import DataVerdict
from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.formats import difference, listed, number, plural, score

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlsearch.report.compare.models import (
        AccuracyDifference,
        ComparedPair,
        ComparedStudy,
        Comparison,
        ConfirmedMean,
        DataComparison,
        ObjectiveFacts,
        TestedDifference,
        Verdict,
    )

#: A smallest p above this is said.
COARSE_P = 0.01
#: Trainings of each study below which none is called better, whatever the test says.
FEWEST_TO_CALL = 5
_UNIT = " points"


def write_verdict(comparison: Comparison) -> Verdict:
    """The headline, the sentences below it, and the warnings."""
    verdict: Verdict = {
        "headline": "Scores on different data are not comparable",
        "sentences": [],
        "warnings": list(_warnings_of(comparison)),
    }
    if comparison["data"]["verdict"] is DataVerdict.DIFFERENT:
        return verdict
    confirmed = [pair for pair in comparison["pairs"] if pair["confirmed"] is not None]
    verdict["sentences"] = _sentences_of(comparison)
    if not confirmed:
        headline, sentence = _words_without_tests(comparison)
        verdict["headline"] = headline
        verdict["sentences"] = sentence + verdict["sentences"]
    elif len(comparison["pairs"]) == 1:
        verdict["headline"] = _headline_of_pair(
            confirmed[0], comparison["objective"], comparison["level"]
        )
    else:
        verdict["headline"] = _headline_of_many(comparison, confirmed)
    return verdict


def _sentences_of(comparison: Comparison) -> list[str]:
    """What was tested of one pair; of several pairs the table says the same, better."""
    if len(comparison["pairs"]) > 1:
        return []
    sentences: list[str] = []
    for pair in comparison["pairs"]:
        if pair["confirmed"] is not None:
            percent = comparison["objective"]["percent"]
            sentences.append(_confirmed_sentence(pair, pair["confirmed"], percent))
        if pair["test"] is not None:
            sentences.append(_accuracy_sentence(pair, pair["test"]))
    return sentences


def _words_without_tests(comparison: Comparison) -> tuple[str, list[str]]:
    """The headline where nothing was tested, and a sentence on the scores of the searches."""
    objective = comparison["objective"]
    found = [
        (study["best"]["value"], study["name"])
        for study in comparison["studies"]
        if study["best"] is not None
    ]
    if len(found) < 2:
        return "No study is told from another", []
    texts = [score(value, objective["percent"]) for value, _ in found]
    sentence = (
        f"Best scores of the searches: {listed(texts)}. The best of many scores is optimistic, so"
        " they carry no test."
    )
    if len({value for value, _ in found}) == 1:
        headline = f"The searches found the same best score, {texts[0]}, and nothing confirms it"
        return headline, [sentence]
    sign = 1 if objective["maximize"] else -1
    _, first = max(found, key=lambda each: sign * each[0])
    return f"{first} found the best score, and nothing confirms it", [sentence]


def _headline_of_pair(pair: ComparedPair, objective: ObjectiveFacts, level: float) -> str:
    better = pair["better"]
    confirmed = pair["confirmed"]
    assert confirmed is not None
    if pair["holm"] is None:
        return f"{better} scores better in every training by the same amount"
    if pair["holm"] >= level:
        return f"{pair['a']} and {pair['b']} are not told apart"
    other = pair["b"] if better == pair["a"] else pair["a"]
    size = difference(abs(confirmed["difference"]), objective["percent"]).lstrip("+")
    if not _has_enough(confirmed):
        trainings = plural(min(confirmed["n"]), "training")
        few = f"{trainings} each are too few to call it better"
        return f"{better} has the better mean by {size}; {few}"
    if not _tests_agree(confirmed, level):
        return f"{better} has the better mean by {size}; the tests disagree"
    return f"{better} is better than {other} by {size}"


def _is_better(pair: ComparedPair, level: float) -> bool:
    """Whether one of the two may be called better than the other."""
    confirmed = pair["confirmed"]
    holm = pair["holm"]
    if confirmed is None or holm is None or holm >= level:
        return False
    return _has_enough(confirmed) and _tests_agree(confirmed, level)


def _has_enough(confirmed: TestedDifference) -> bool:
    return min(confirmed["n"]) >= FEWEST_TO_CALL


def _tests_agree(confirmed: TestedDifference, level: float) -> bool:
    """Whether the permutation test finds a difference too, as far as so few values let it."""
    return confirmed["permutation_p"] <= max(level, confirmed["smallest_p"])


def _headline_of_many(comparison: Comparison, confirmed: Sequence[ComparedPair]) -> str:
    level = comparison["level"]
    distinct = [pair for pair in confirmed if _is_better(pair, level)]
    lead = _best_confirmed(comparison)
    beaten = [pair for pair in distinct if pair["better"] == lead]
    if len(beaten) == len(comparison["studies"]) - 1:
        return f"{lead} is better than every other study"
    if not distinct:
        return f"No pair is told apart; {lead} has the best mean"
    pairs = plural(len(distinct), "pair")
    return f"{pairs} of {len(comparison['pairs'])} told apart; {lead} has the best mean"


def _best_confirmed(comparison: Comparison) -> str:
    """The name of the study with the best confirmed mean; of equal ones the first by name."""
    sign = -1 if comparison["objective"]["maximize"] else 1
    means = _confirmed_means(comparison["studies"])
    _, name = min((sign * confirmed["mean"], name) for name, confirmed in means)
    return name


def _confirmed_means(studies: Sequence[ComparedStudy]) -> list[tuple[str, ConfirmedMean]]:
    return [(s["name"], s["confirmed"]) for s in studies if s["confirmed"] is not None]


def p_value(p: float | None) -> str:
    """``p = 0.032`` or ``p < 0.001``."""
    if p is None:
        return "p is not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _names_of(pair: ComparedPair) -> str:
    return f"{pair['a']} − {pair['b']}"


def _confirmed_sentence(pair: ComparedPair, found: TestedDifference, percent: bool) -> str:
    parts = [
        f"{_names_of(pair)} on {_trainings_in_words(found)}:"
        f" {difference(found['difference'], percent)}{_interval_in_words(found, percent)}",
        f"{found['test']}, {p_value(found['p'])}",
        f"permutation test {p_value(found['permutation_p'])}{_smallest_p_in_words(found)}",
    ]
    effect = ""
    if found["effect"] is not None:
        effect = f", Hedges' g {number(found['effect'], 3)}"
    return f"{'; '.join(parts)}{effect}."


def _trainings_in_words(found: TestedDifference) -> str:
    n, m = found["n"]
    if found["test"].startswith("paired"):
        return f"{n} seeds that they share"
    return f"{n} and {m} trainings"


def _interval_in_words(found: TestedDifference, percent: bool) -> str:
    quoted = quote_interval(found)
    if quoted is None:
        return ""
    low, high = (difference(end, percent) for end in quoted.ends)
    bare_low = low.removesuffix(_UNIT)
    return f", 95 % interval {bare_low} to {high} ({quoted.method})"


def _smallest_p_in_words(found: TestedDifference) -> str:
    if found["smallest_p"] <= COARSE_P:
        return ""
    return f" (with so few it cannot be below {found['smallest_p']:.3g})"


def _accuracy_sentence(pair: ComparedPair, found: AccuracyDifference) -> str:
    low = difference(found["low"], True).removesuffix(_UNIT)
    high = difference(found["high"], True)
    text = (
        f"Test accuracy of the kept models, {_names_of(pair)}:"
        f" {difference(found['difference'], True)}, 95 % interval {low} to {high} (Newcombe)"
    )
    exact = found["mcnemar"]
    if exact is not None:
        text += (
            f"; of the same examples {exact['only_a']} only {pair['a']} got right and"
            f" {exact['only_b']} only {pair['b']} (exact McNemar test, {p_value(exact['p'])})"
        )
    return f"{text}."


def _warnings_of(comparison: Comparison) -> Iterator[str]:
    yield from _data_warnings(comparison["data"])
    yield from _confirmation_warnings(comparison)
    yield from _study_warnings(comparison["studies"])


def _data_warnings(data: DataComparison) -> Iterator[str]:
    if data["verdict"] is DataVerdict.DIFFERENT:
        yield f"The studies were scored on different data: {data['notes'][0]}. Nothing is tested."
        return
    for note in data["notes"]:
        yield f"Data: {note}."
    if data["verdict"] is not DataVerdict.SPLIT:
        return
    if not data["same"]["val"]:
        yield "Validation scores come from different examples, so they are shown and not tested."
    if not data["same"]["test"]:
        yield "The test sets differ, so test accuracies are shown and not compared."


def _confirmation_warnings(comparison: Comparison) -> Iterator[str]:
    studies = comparison["studies"]
    unconfirmed = [study["name"] for study in studies if study["confirmed"] is None]
    if unconfirmed:
        yield (
            f"No winner trained again on fresh seeds in {listed(unconfirmed)}: a search's best"
            " score is optimistic."
        )
    for name, confirmed in _confirmed_means(studies):
        if quote_interval(confirmed) is None:
            yield f"No interval of {name}'s mean: {confirmed['why_not']}."
    for pair in comparison["pairs"]:
        tested = pair["confirmed"]
        if tested is not None and quote_interval(tested) is None:
            yield f"No interval of {_names_of(pair)}: {tested['why_not']}."


def _study_warnings(studies: Sequence[ComparedStudy]) -> Iterator[str]:
    failed = [study["name"] for study in studies if study["state"] == "failed"]
    if failed:
        yield f"No trial completed: {listed(failed)}."
    unfinished = [s["name"] for s in studies if s["state"] not in ("complete", "failed")]
    if unfinished:
        yield f"Not finished: {listed(unfinished)}."
    yield from _budget_warnings(studies)
    opened_again: list[str] = []
    for study in studies:
        test = study["test"]
        if test is not None and test["opened"] > 1:
            opened_again.append(study["name"])
    if opened_again:
        yield f"The test set was opened more than once in {listed(opened_again)}."


def _budget_warnings(studies: Sequence[ComparedStudy]) -> Iterator[str]:
    budgets = {study["trials"]["run"] for study in studies}
    if len(budgets) > 1:
        texts = [f"{study['name']} {study['trials']['run']}" for study in studies]
        yield f"The searches had different budgets in trials ({', '.join(texts)})."
