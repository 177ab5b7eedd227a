"""The claim of a comparison: one sentence over its arms, and what it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.formats import THIN, difference, interval, listed, p_value, plural, score

if TYPE_CHECKING:
    from dlsearch.report.facts.contents import (
        ArmPair,
        ArmsFacts,
        Confirmation,
        FinalistRow,
        ObjectiveRow,
    )
    from dlsearch.report.facts.intervals import Interval

#: Pairs that are told in sentences; the table has all.
MOST_SENTENCES = 6
_LEVEL = 0.05


def write_arms_headline(
    arms: ArmsFacts,
    confirmation: Confirmation | None,
    objective: ObjectiveRow,
) -> str:
    """What came out of the comparison, in one sentence."""
    key = arms["key"]
    if confirmation is None:
        return f"The options of {key} were searched, and not confirmed: nothing is claimed of them."
    if not arms["pairs"]:
        return f"Fewer than two options of {key} were confirmed: there is nothing to compare."
    if len(arms["arms"]) == 2:  # one pair is the whole of it
        return _word_only_pair(
            arms,
            arms["pairs"][0],
            confirmation,
            objective,
        )
    return _word_best(arms, confirmation, objective)


def write_arms_sentences(
    arms: ArmsFacts,
    confirmation: Confirmation | None,
    objective: ObjectiveRow,
) -> list[str]:
    """What the headline rests on: the budgets, the seeds, and with several arms their pairs."""
    sentences = [_word_budget(arms)]
    missing = [row["option"] for row in arms["arms"] if row["finalist"] is None]
    if confirmation is not None and missing:
        sentences.append(f"No trial of {listed(missing)} was completed: it is not compared.")
    if confirmation is None or not arms["pairs"]:
        return sentences
    seeds = plural(len(confirmation["seeds"]), "fresh seed")
    sentences.append(
        f"The best that each search found was trained again on the same {seeds};"
        " what differs between the arms is the option and whatever its search chose with it."
    )
    if len(arms["arms"]) > 2:  # one pair stands in the headline
        sentences += _word_pairs(arms, objective["percent"])
    return sentences


def _word_budget(arms: ArmsFacts) -> str:
    each = plural(arms["asked"], "trial")
    count = len(arms["arms"])
    text = f"Each of the {count} options of {arms['key']} had a search of its own of {each}"
    short = [row for row in arms["arms"] if row["ended"] < arms["asked"]]
    if not short:
        return f"{text}."
    ended = [f"{row['option']} {row['ended']}" for row in arms["arms"]]
    return f"{text}; the budgets are not spent yet ({listed(ended)} trials are over)."


def _word_only_pair(
    arms: ArmsFacts,
    pair: ArmPair,
    confirmation: Confirmation,
    objective: ObjectiveRow,
) -> str:
    percent = objective["percent"]
    better = _finalist_of(arms, confirmation, pair["of"])
    worse = _finalist_of(arms, confirmation, pair["with"])
    names = [f"{arms['key']}={arms['arms'][pair[side]]['option']}" for side in ("of", "with")]
    reached = f"{names[0]} reached {objective['name']} {score(better['mean'], percent)}"
    value = score(worse["mean"], percent)
    other = f"{names[1]} {value}"
    basis = _word_basis(pair, percent)
    if not pair["mean"]:
        return f"{reached}, {other}: no difference on average ({basis})."
    amount = difference(pair["mean"], percent).lstrip("+")
    if _is_clear(pair):
        return f"{reached}, {amount} better than {names[1]} ({value}; {basis})."
    return f"{reached}, {other}: {amount} apart, which may be chance ({basis})."


def _word_best(
    arms: ArmsFacts,
    confirmation: Confirmation,
    objective: ObjectiveRow,
) -> str:
    """The option with the best mean, and whether it is clear of all others."""
    percent = objective["percent"]
    best = _find_best(arms, confirmation, objective)
    row = _finalist_of(arms, confirmation, best)
    option = arms["arms"][best]["option"]
    extent = interval(quoted_interval(row), percent)
    seeds = plural(row["n"], "fresh seed")
    spread = f" (95{THIN}% interval {extent}, n = {seeds})" if extent else f" (mean of {seeds})"
    text = (
        f"Of {len(arms['arms'])} options of {arms['key']}, {option} has the best mean,"
        f" {objective['name']} {score(row['mean'], percent)}{spread}"
    )
    others = [pair for pair in arms["pairs"] if best in (pair["of"], pair["with"])]
    unclear = [_other_of(pair, best) for pair in others if not _is_clear(pair)]
    if not unclear:
        return f"{text}, better than each of the others."
    names = [arms["arms"][place]["option"] for place in sorted(unclear)]
    return f"{text}; its lead over {listed(names)} may be chance."


def _other_of(pair: ArmPair, place: int) -> int:
    return pair["with"] if pair["of"] == place else pair["of"]


def _find_best(
    arms: ArmsFacts,
    confirmation: Confirmation,
    objective: ObjectiveRow,
) -> int:
    sign = 1.0 if objective["maximize"] else -1.0

    def rank(place: int) -> float:
        mean = _finalist_of(arms, confirmation, place)["mean"]
        return sign * (mean or 0.0)

    scored = [
        place
        for place, row in enumerate(arms["arms"])
        if row["finalist"] is not None
        and _finalist_of(arms, confirmation, place)["mean"] is not None
    ]
    return max(scored, key=rank)


def _word_pairs(arms: ArmsFacts, percent: bool) -> list[str]:
    """The pairs with their corrected p values; those that do not fit stand in the table."""
    count = len(arms["pairs"])
    sentences = [
        f"p values are of paired t tests, two-sided, corrected for {plural(count, 'pair')} by Holm."
    ]
    for pair in arms["pairs"][:MOST_SENTENCES]:
        better = arms["arms"][pair["of"]]["option"]
        worse = arms["arms"][pair["with"]]["option"]
        amount = difference(pair["mean"], percent)
        basis = _word_basis(pair, percent)
        p = "" if pair["holm"] is None else f", p {_equals(p_value(pair['holm']))}"
        sentences.append(f"{better} against {worse}: {amount} ({basis}{p}).")
    return sentences


def _word_basis(pair: ArmPair, percent: bool) -> str:
    """The interval of a paired difference and what it is of."""
    seeds = f"n = {plural(pair['n'], 'seed')}, paired"
    extent = quoted_interval(pair)
    if extent is None:
        return seeds
    low = difference(extent[0], percent, bare=True)
    high = difference(extent[1], percent)
    return f"95{THIN}% interval {low} to {high}, {seeds}"


def _equals(text: str) -> str:
    """A number after its name: ``= 0.02``, ``< 0.001``."""
    return text if text.startswith("<") else f"= {text}"


def quoted_interval(estimate: FinalistRow | ArmPair) -> Interval | None:
    """The interval that is quoted; None where the values have no spread."""
    quoted = quote_interval(estimate)
    return None if quoted is None else quoted.ends


def _is_clear(pair: ArmPair) -> bool:
    """Whether a difference is more than chance may give, all pairs considered."""
    return pair["holm"] is not None and pair["holm"] < _LEVEL


def _finalist_of(
    arms: ArmsFacts,
    confirmation: Confirmation,
    place: int,
) -> FinalistRow:
    finalist = arms["arms"][place]["finalist"]
    assert finalist is not None
    return confirmation["finalists"][finalist]
