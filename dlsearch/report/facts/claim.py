"""The claim of the report: its sentences are facts in ``report.json``, the same on every page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlsearch.report.facts.arms_claim import write_arms_headline, write_arms_sentences
from dlsearch.report.facts.contents import (
    ArmsFacts,
    Claim,
    Comparison,
    Confirmation,
    FinalistRow,
    Findings,
    MainScore,
    ObjectiveRow,
    Resolution,
    TrialRow,
    find_winner,
)
from dlsearch.report.facts.intervals import quote_interval
from dlsearch.report.facts.kinds.registry import word_score
from dlsearch.report.formats import THIN, difference, interval, listed, plural, probability, score
from dlsearch.report.study import TrialState

if TYPE_CHECKING:
    from dlsearch.report.study import StudyDocument

_STATES_IN_WORDS = {
    "complete": "complete",
    "running": "still running",
    "failed": "over without a result",
}

#: Whatever the winner has that the default has not, it had a search besides.
_UNSEARCHED = (
    "The default configuration was not searched: the difference is the gain of the search, and of"
    " no single choice in it."
)

_NO_RESULT = "No trial was completed: the study has no result."


@dataclass
class _Outcome:
    """What won, the gain over the default configuration, and the sentences that follow."""

    headline: str
    gain: float | None = None
    sentences: list[str] = field(default_factory=list)


def write_claim(findings: Findings, document: StudyDocument) -> Claim:
    """The first screen: what won, by how much, and how far to trust it.

    The gain is one of means over the seeds where the winner was confirmed.
    """
    outcome = _describe_outcome(findings)
    sentences = [
        *outcome.sentences,
        _describe_test(findings),
        _describe_state(findings, document),
    ]
    return {"headline": outcome.headline, "sentences": sentences, "gain": outcome.gain}


def _describe_outcome(findings: Findings) -> _Outcome:
    if len(findings["objectives"]) > 1:
        return _Outcome(_describe_front(findings))
    confirmation = findings["confirmation"]
    arms = findings["arms"]
    if arms is not None:
        return _describe_comparison(findings, arms)
    winner = find_winner(confirmation)
    if confirmation is not None and winner is not None and winner["n"]:
        return _describe_confirmed(findings["objectives"][0], confirmation, winner)
    if findings["best"] is None:
        return _Outcome(_NO_RESULT)
    outcome = _describe_searched(findings, findings["best"])
    if confirmation is not None:
        done = sum(finalist["n"] for finalist in confirmation["finalists"])
        outcome.sentences.append(
            f"The confirmation over fresh seeds is not complete ({plural(done, 'training')} done):"
            " the score is the best of the search, hence optimistic."
        )
    return outcome


def _describe_comparison(findings: Findings, arms: ArmsFacts) -> _Outcome:
    """What came out of a comparison; it has no gain over a default configuration."""
    objective = findings["objectives"][0]
    confirmation = findings["confirmation"]
    headline = write_arms_headline(arms, confirmation, objective)
    outcome = _Outcome(headline)
    outcome.sentences += write_arms_sentences(arms, confirmation, objective)
    if confirmation is not None and find_winner(confirmation) is None:
        outcome.sentences.append("The confirmation over fresh seeds is not complete.")
    return outcome


def _describe_front(findings: Findings) -> str:
    """How many trials are Pareto-optimal, in the objectives of the study."""
    done = _count_scored(findings)
    if not done:
        return _NO_RESULT
    names = [
        f"{objective['name']} ({'maximised' if objective['maximize'] else 'minimised'})"
        for objective in findings["objectives"]
    ]
    front = len(findings["pareto"])
    verb = "is" if front == 1 else "are"
    trials = plural(done, "completed trial")
    return f"{front} of {trials} {verb} Pareto-optimal in {listed(names)}."


def _count_scored(findings: Findings) -> int:
    return sum(trial["scored"] for trial in findings["trials"])


# -- a winner that was confirmed ------------------------------------------------------------------


def _describe_confirmed(
    objective: ObjectiveRow,
    confirmation: Confirmation,
    winner: FinalistRow,
) -> _Outcome:
    """The winner of the confirmation, by its mean over fresh seeds."""
    reached = _word_mean(objective, winner)
    if winner["default"]:
        return _describe_default_winner(objective, confirmation, reached)
    outcome = _compare_with_default(
        objective,
        confirmation,
        winner,
        reached,
    )
    runner_up = _find_other_runner_up(confirmation)
    against = confirmation["against_runner_up"]
    if runner_up is not None and against is not None and against["mean"] is not None:
        other = f"the runner-up ({runner_up['name']})"
        outcome.sentences.append(_word_comparison(against, other, objective["percent"]))
    return outcome


def _word_mean(objective: ObjectiveRow, winner: FinalistRow) -> str:
    """What the winner reached, with its interval."""
    percent = objective["percent"]
    seeds = plural(winner["n"], "fresh seed")
    quoted = quote_interval(winner)
    mean = score(winner["mean"], percent)
    reached = f"reached {objective['name']} {mean}"
    if quoted is not None:
        extent = interval(quoted.ends, percent)
        return f"{reached} (95{THIN}% interval {extent}, {quoted.method}, n = {seeds})"
    return f"{reached} (mean of {seeds})"


def _describe_default_winner(
    objective: ObjectiveRow,
    confirmation: Confirmation,
    reached: str,
) -> _Outcome:
    """The default configuration won, so that there is no gain."""
    others = len(confirmation["finalists"]) - 1
    if others == 0:
        rest = "there was no other finalist."
    elif others == 1:
        rest = "the other finalist did no better."
    else:
        rest = f"none of the {others} other finalists did better."
    outcome = _Outcome(f"The default configuration {reached}; {rest}", gain=0.0)
    against = confirmation["against_runner_up"]
    if against is not None:
        name = confirmation["finalists"][against["with"]]["name"]
        outcome.sentences.append(_word_comparison(against, name, objective["percent"]))
    return outcome


def _compare_with_default(
    objective: ObjectiveRow,
    confirmation: Confirmation,
    winner: FinalistRow,
    reached: str,
) -> _Outcome:
    """The headline with the gain over the default configuration, where that was confirmed too."""
    name = _capitalise(winner["name"])
    subject = f"{name} {reached}"
    against = confirmation["against_default"]
    default_mean = None
    if confirmation["default"] is not None:
        default_mean = confirmation["finalists"][confirmation["default"]]["mean"]
    if against is None or against["mean"] is None or default_mean is None:
        no_gain = (
            "The default configuration was not confirmed beside it, so that there is no gain to"
            " state."
        )
        return _Outcome(f"{subject}.", sentences=[no_gain])
    percent = objective["percent"]
    gain = against["mean"]
    headline = subject + _word_confirmed_gain(against, default_mean, percent)
    comparison = _word_comparison(against, "the default configuration", percent)
    outcome = _Outcome(headline, gain=gain, sentences=[comparison])
    if gain > 0:
        outcome.sentences.append(_UNSEARCHED)
    return outcome


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]


def _word_gain(gain: float, default_value: float, percent: bool) -> str:
    """The end of a headline: by how much the winner is better than the default configuration."""
    default = f"the default configuration ({score(default_value, percent)})"
    if gain > 0:
        amount = difference(gain, percent).lstrip("+")
        return f", {amount} better than {default}."
    return f", no better than {default}."


def _word_confirmed_gain(against: Comparison, default_mean: float, percent: bool) -> str:
    """The same for means over seeds: whether their difference is told from none."""
    gain = against["mean"]
    quoted = quote_interval(against)
    assert gain is not None
    if gain <= 0 or quoted is None or quoted.ends[0] > 0:
        return _word_gain(gain, default_mean, percent)
    amount = difference(gain, percent).lstrip("+")
    default = f"the default configuration ({score(default_mean, percent)})"
    return f", on average {amount} better than {default}, which is not told from no difference."


def _find_other_runner_up(confirmation: Confirmation) -> FinalistRow | None:
    """The runner-up, unless it is the default configuration."""
    runner_up = confirmation["runner_up"]
    if runner_up is None or runner_up == confirmation["default"]:
        return None
    return confirmation["finalists"][runner_up]


def _word_comparison(comparison: Comparison, other: str, percent: bool) -> str:
    """One paired comparison in a sentence."""
    n = comparison["n"]
    if n == 0:
        return f"No seed was completed by both the winner and {other}."
    seeds = plural(n, "seed")
    text = f"Against {other} it is better on {comparison['better']} of {seeds}"
    text += f", by {difference(comparison['mean'], percent)} on average"
    quoted = quote_interval(comparison)
    if quoted is not None:
        low = difference(quoted.ends[0], percent, bare=True)
        high = difference(quoted.ends[1], percent)
        text += f" (95{THIN}% interval {low} to {high}, {quoted.method})"
    if comparison["probability"] is not None:
        chance = probability(comparison["probability"])
        text += f"; the probability that its mean is better is {chance}"
    return f"{text}."


# -- a winner of the search alone -----------------------------------------------------------------


def _describe_searched(findings: Findings, best_number: int) -> _Outcome:
    """The best trial of a search whose winner was not confirmed."""
    objective = findings["objectives"][0]
    best = _find_trial(findings, best_number)
    default = None if findings["default"] is None else _find_trial(findings, findings["default"])
    gain = _measure_gain(objective, best, default)
    value = score(best["values"][0], objective["percent"])
    reached = f"reached {objective['name']} {value}"
    if default is not None and default["number"] == best["number"]:
        alone = _count_scored(findings) == 1
        rest = "no other trial was completed." if alone else "no other trial did better."
        outcome = _Outcome(f"The default configuration {reached}; {rest}", gain)
    else:
        subject = f"Trial {best['number']} {reached}"
        outcome = _compare_with_default_trial(
            objective,
            subject,
            default,
            gain,
        )
    resolution = findings["resolution"]
    if resolution is not None:
        outcome.sentences.append(_word_resolution(resolution, gain))
    return outcome


def _find_trial(findings: Findings, number: int) -> TrialRow:
    by_number = {trial["number"]: trial for trial in findings["trials"]}
    return by_number[number]


def _measure_gain(
    objective: ObjectiveRow,
    best: TrialRow,
    default: TrialRow | None,
) -> float | None:
    if default is None or not default["scored"]:
        return None
    more = best["values"][0] - default["values"][0]
    return more if objective["maximize"] else -more


def _compare_with_default_trial(
    objective: ObjectiveRow,
    subject: str,
    default: TrialRow | None,
    gain: float | None,
) -> _Outcome:
    if default is None:
        missing = "The default configuration was not among the trials."
        return _Outcome(f"{subject}.", sentences=[missing])
    if gain is None:
        unscored = (
            f"The default configuration (trial {default['number']}) was {default['state']},"
            " so that there is no gain to state."
        )
        return _Outcome(f"{subject}.", sentences=[unscored])
    comparison = _word_gain(gain, default["values"][0], objective["percent"])
    outcome = _Outcome(f"{subject}{comparison}", gain)
    if gain > 0:
        outcome.sentences.append(_UNSEARCHED)
    return outcome


def _word_resolution(resolution: Resolution, gain: float | None) -> str:
    """Which scores the sampling error of the validation examples cannot distinguish."""
    near = len(resolution["near"])
    trials = plural(near, "other completed trial") if near else "no other completed trial"
    verb = "lie" if near > 1 else "lies"
    return (
        f"By the sampling error of {resolution['n']:,} validation examples, scores less than"
        f" {100 * resolution['width']:.2f} points apart are not told apart at 95{THIN}%:"
        f" {trials} {verb} that close to the best{_word_gain_within(gain, resolution)}."
    )


def _word_gain_within(gain: float | None, resolution: Resolution) -> str:
    """Whether the examples distinguish the gain over the default configuration."""
    if not gain or gain < 0:
        return ""
    if gain < resolution["width"]:
        return ", and so does the default configuration"
    return ", and the gain over the default configuration is larger"


# -- the test and the state of the study ----------------------------------------------------------


def _describe_test(findings: Findings) -> str:
    """What was scored on the test set, and in which of its openings."""
    main = findings["test"]["main"]
    if main is None:
        return "The test set has not been evaluated."
    subject = _name_tested_model(findings, main)
    opened = _count_openings(findings)
    times = "once" if opened == 1 else f"in one of {opened} openings of it"
    scored = word_score(main)
    if scored is None:
        return f"{subject} was scored on the test set {times}."
    return f"{subject} was scored on the test set, {times}: {scored}."


def _count_openings(findings: Findings) -> int:
    """How often the test set was opened: by all studies of the store, where that is known."""
    in_store = findings["test"]["in_store"]
    own = findings["test"]["opened"]
    return own if in_store is None else max(own, in_store["opened"])


def _name_tested_model(findings: Findings, main: MainScore) -> str:
    confirmation = findings["confirmation"]
    was_confirmed = confirmation is not None and confirmation["winner"] is not None
    if confirmation is not None and was_confirmed and main["replicas"]:
        kept = (confirmation["kept"] or {}).get("replica")
        return "The model that is kept" + ("" if kept is None else f" (replica {kept})")
    seed = "" if main["seed"] is None else f" with seed {main['seed']}"
    return f"Trial {main['trial_number']}, trained again{seed},"


def _describe_state(findings: Findings, document: StudyDocument) -> str:
    """How far the study is, and how many trials ended how."""
    accounting = findings["accounting"]
    counts = accounting["counts"]
    completed = counts[TrialState.COMPLETE]
    pruned = counts[TrialState.PRUNED]
    failed = counts[TrialState.FAILED]
    name = _STATES_IN_WORDS.get(str(document.state), "partial")
    parts = [
        f"{completed} completed",
        f"{pruned} pruned",
        f"{failed} failed",
    ]
    asked = plural(accounting["asked"], "trial")
    text = f"The study is {name}: {asked} asked, {listed(parts)}."
    if document.state not in ("complete", "failed"):
        over = completed + pruned + failed
        text += (
            f" The record holds what stood when it was read: {over} of {accounting['asked']}"
            " trials are over."
        )
    confirmation = findings["confirmation"]
    if confirmation is not None and confirmation["rounds"] > 1:
        text += f" It was extended: this is round {confirmation['round']} of its confirmation."
    return text
