"""What a study cannot show: sentences from the facts, the same on every page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dlsearch.confirmation.racing import ERROR_RATE
from dlsearch.report.facts.contents import (
    Accounting,
    ArmsFacts,
    Comparison,
    Confirmation,
    FinalistRow,
    Findings,
    MainScore,
    SealRow,
    TestFacts,
    find_winner,
)
from dlsearch.report.facts.intervals import ENOUGH_FOR_BOOTSTRAP
from dlsearch.report.facts.statistics import is_exhaustive
from dlsearch.report.formats import difference, listed, number, plural, probability, score
from dlsearch.report.study import TrialState

if TYPE_CHECKING:
    from dlsearch.report.study import Provenance, StudyDocument

#: Trials below which a search is said to be short, unless they are the whole space.
FEWEST_TRIALS = 10

#: Below this probability of a better mean, the winner is said to be uncertain.
CERTAIN = 0.95


def list_limits(findings: Findings, document: StudyDocument) -> list[str]:
    """What this study cannot show, each sentence from a fact of the record."""
    return [
        *_limit_confirmation(findings),
        *_limit_scores(findings),
        *_limit_search(findings),
        *_limit_outcomes(findings),
        *_limit_state(document),
        *_limit_attempts(findings),
        *_limit_options(findings),
        *_limit_test(findings),
        *_limit_data(findings),
        *_limit_repetition(document),
        *_list_contradictions(findings),
    ]


# -- the confirmation -----------------------------------------------------------------------------


def _limit_confirmation(findings: Findings) -> Iterator[str]:
    """How much the replicas show."""
    confirmation = findings["confirmation"]
    if confirmation is None:
        return
    winner = find_winner(confirmation)
    if winner is None:
        yield (
            "The confirmation over fresh seeds is not complete: the winner may be another"
            " configuration."
        )
        return
    yield from _limit_mean(winner)
    yield from _limit_selection(
        confirmation,
        findings["arms"],
        findings["objectives"][0]["percent"],
    )
    yield from _limit_seeds(confirmation)
    yield (
        "All replicas share one split of the data: the spread holds the seeds of training, not the"
        " choice of it."
    )


def _limit_mean(winner: FinalistRow) -> Iterator[str]:
    if winner["n"]:
        text = f"The winner's mean rests on {plural(winner['n'], 'seed')}"
        if winner["n"] < ENOUGH_FOR_BOOTSTRAP:
            text += (
                ": bootstrap intervals of so few values are too narrow; Student's, which are"
                " quoted, suppose normal values."
            )
        else:
            text += "."
        yield text
    if winner["why_not"]:
        yield f"There is no bootstrap interval of the winner's mean: {winner['why_not']}."


def _limit_selection(
    confirmation: Confirmation,
    arms: ArmsFacts | None,
    percent: bool,
) -> Iterator[str]:
    """What choosing the winner by the replicas does to its mean."""
    n_finalists = len(confirmation["finalists"])
    if n_finalists > 1 and arms is None:
        yield (
            f"The winner was chosen among {n_finalists} configurations by the same replicas that"
            " its mean is of, so that this mean is slightly optimistic as well, and so are the"
            " probabilities; they are not corrected for the number of comparisons."
        )
    against = confirmation["against_default"]
    chance = None if against is None else against["probability"]
    if against is not None and chance is not None and chance < CERTAIN:
        yield (
            "That the winner is better than the default configuration is not certain: the"
            f" probability is {probability(chance)}, the difference"
            f" {difference(against['mean'], percent)}."
        )


def _limit_seeds(confirmation: Confirmation) -> Iterator[str]:
    """Which finalists have fewer seeds, by racing or by failure."""
    dropped = [
        _word_dropped(finalist, finalist["dropped_after"])
        for finalist in confirmation["finalists"]
        if finalist["dropped_after"] is not None
    ]
    if dropped:
        yield (
            "Racing left out seeds that were unlikely to change the result (a chance of at most"
            f" {100 * ERROR_RATE:.0f} % in all): {listed(dropped)}; their means are of fewer seeds."
        )
    equal = [
        confirmation["finalists"][comparison["with"]]["name"]
        for comparison in confirmation["comparisons"]
        if _is_dropped_without_spread(confirmation, comparison)
    ]
    if equal:
        yield (
            f"Racing dropped {listed(equal)} on equal differences to the winner: its rule took what"
            " rounding left open of them for their spread, so that this chance means nothing. New"
            " studies conclude nothing from such differences."
        )
    failed = sum(finalist["failed"] for finalist in confirmation["finalists"])
    if failed:
        yield f"{plural(failed, 'replica')} did not complete; the means are of those that did."


def _word_dropped(finalist: FinalistRow, seeds: int) -> str:
    """When racing dropped a finalist, and what chance it had then."""
    text = f"{finalist['name']} after {plural(seeds, 'seed')}"
    if finalist["chance"] is None:
        return text
    return f"{text} (a chance of {probability(finalist['chance'])} to win)"


def _is_dropped_without_spread(confirmation: Confirmation, comparison: Comparison) -> bool:
    """Whether a finalist was dropped though its differences are equal, but for rounding."""
    other = confirmation["finalists"][comparison["with"]]
    return other["dropped_after"] is not None and not other["failed"] and comparison["sd"] == 0


# -- the search -----------------------------------------------------------------------------------


def _limit_scores(findings: Findings) -> Iterator[str]:
    """How much one training of each configuration shows."""
    is_confirmed = findings["confirmation"] is not None
    if findings["accounting"]["counts"][TrialState.COMPLETE] > 1:
        text = "Each configuration was trained with one seed in the search: "
        if not is_confirmed:
            text += "the spread between seeds is not measured, and "
        text += "the best score is the largest of several noisy ones, hence optimistic."
        yield text
    main = findings["test"]["main"]
    if not is_confirmed and main is not None:
        yield from _limit_retraining(main, findings["objectives"][0]["percent"])


def _limit_retraining(main: MainScore, percent: bool) -> Iterator[str]:
    """How the score of the winner changed where it was trained once more."""
    again = main["retrained_value"]
    before = main["search_value"]
    if again is None or before is None:
        return
    seed = "a fresh seed" if main["seed"] != main["trial_seed"] else "the same seed"
    yield (
        f"Trained again with {seed}, the winner scored"
        f" {score(again, percent)} on validation against"
        f" {score(before, percent)} in the search"
        f" ({difference(again - before, percent)}; one training, so that the difference has no"
        " interval)."
    )


def _limit_search(findings: Findings) -> Iterator[str]:
    """What the search space and the sampler leave open."""
    edges = [
        f"{edge['name']} = {number(edge['value'])} ({edge['side']} end)"
        for edge in findings["edges"]
    ]
    if edges:
        yield (
            f"The best value lies at the edge of its range for {listed(edges)}: a wider range may"
            " hold a better one."
        )
    n_trials = len(findings["trials"])
    if n_trials < FEWEST_TRIALS and not is_exhaustive(findings["study"].get("sampler")):
        yield (
            f"The search had {plural(n_trials, 'trial')}: which configuration won says little of"
            " what a longer search would find."
        )
    if not findings["course"]["independent"] and len(findings["trials"]) > 1:
        yield (
            "The sampler proposes trials from earlier results, so that trials are not independent:"
            " distributions and importances describe where it looked, and no expected-best curve is"
            " given."
        )


def _limit_options(findings: Findings) -> Iterator[str]:
    """That a search compares no options: those that others depend on, and config groups."""
    if findings["arms"] is not None:
        yield (
            "A difference between arms is of the option together with what its search chose: after"
            " another budget, or on another split, it may be another one."
        )
        if findings["test"]["main"] is not None:
            yield (
                "The test set was opened for the arm with the best mean alone: the claim is of"
                " validation scores, and the other arms have no test score."
            )
        return
    space = findings["study"].get("space") or []
    parents = {name for dim in space for name in (dim.get("when") or {})}
    for dim in space:
        is_option = bool(dim.get("is_group")) or dim["name"] in parents
        if is_option and len(dim.get("choices") or ()) > 1:
            yield (
                f"The search compares no options of {dim['name']}: they had unequal numbers of"
                f" trials, and other settings beside them. study.compare={dim['name']} gives each a"
                " search of its own."
            )


def _limit_outcomes(findings: Findings) -> Iterator[str]:
    """What the trials that are no results leave open."""
    counts = findings["accounting"]["counts"]
    pruned = counts[TrialState.PRUNED]
    if pruned == 1:
        yield (
            "1 trial was stopped early and stands with its last reported score; it might have"
            " caught up."
        )
    elif pruned:
        yield (
            f"{pruned} trials were stopped early and stand with their last reported score; some"
            " might have caught up."
        )
    failed = counts[TrialState.FAILED]
    if failed:
        yield (
            f"{plural(failed, 'trial')} failed: the regions of the space in which they lie are"
            " judged by fewer results."
        )
    infeasible = _count_infeasible(findings)
    if infeasible:
        yield (
            f"{plural(infeasible, 'completed trial')} violated a constraint: no such trial counts"
            " as a result or can win."
        )


def _count_infeasible(findings: Findings) -> int:
    with_values = [
        trial
        for trial in findings["trials"]
        if trial["state"] == TrialState.COMPLETE and trial["values"]
    ]
    return sum(not trial["scored"] for trial in with_values)


def _limit_state(document: StudyDocument) -> Iterator[str]:
    if document.state != "complete":
        yield "The study is not complete; its result may change when it goes on."


def _limit_attempts(findings: Findings) -> Iterator[str]:
    """What repeated attempts and different machines do to times and gradients."""
    accounting = findings["accounting"]
    retried = len(accounting["retried"])
    if retried:
        yield (
            f"{plural(retried, 'trial')} took more than one attempt; such a trial goes on from its"
            " last checkpoint, and its times include the part that was lost."
        )
    in_parts = _count_trained_in_parts(accounting)
    if in_parts:
        yield (
            f"{plural(in_parts, 'trial')} ran out of memory and trained each batch in parts from"
            " then on: the same gradient, but batch normalisation takes its statistics of each"
            " part."
        )
    n_devices = len(findings["compute"]["devices"])
    if n_devices > 1:
        yield (f"Trials ran on {n_devices} kinds of device or host, so that times do not compare.")


def _count_trained_in_parts(accounting: Accounting) -> int:
    """Trials that went on after an attempt ran out of memory."""
    count = 0
    for trial in accounting["retried"]:
        earlier_ends = trial["ends"][:-1]
        if "oom" in earlier_ends:
            count += 1
    return count


# -- the test set ---------------------------------------------------------------------------------


def _limit_test(findings: Findings) -> Iterator[str]:
    """How often the test set was opened, and what may have followed from it."""
    confirmation = findings["confirmation"]
    if confirmation is not None and confirmation["scoring_error"]:
        error = confirmation["scoring_error"].rstrip(".")
        yield f"The winner has no test score, since its scoring failed: {error}."
    yield from _limit_openings(findings["test"])
    yield from _limit_blindness(confirmation, findings["test"]["main"])
    yield from _limit_tested_trial(findings["test"]["main"], findings["winner"])
    yield from _limit_seal(findings["test"]["seals"])
    n_breaches = len(findings["breaches"])
    if n_breaches:
        ways = "in one way" if n_breaches == 1 else f"in {n_breaches} ways"
        yield (
            f"During the search the test set was reached for {ways} or more (section Test names"
            " what Python saw, each way once a training): scores of these trials may know it."
        )


def _limit_seal(seals: list[SealRow]) -> Iterator[str]:
    """What the seal did not hold."""
    by_hook = sum(row["trainings"] for row in seals if row["held"].startswith("audit hook"))
    if by_hook:
        yield (
            f"In {by_hook} of {sum(row['trainings'] for row in seals)} trainings Python's audit"
            " hook held the seal on the test set, which does not see what C++ code or a process"
            " that is started afresh reads."
        )
    linked = [row["held"] for row in seals if "another name" in row["held"]]
    if linked:
        yield (
            "Files that hold the test set have another name on this disk (hard links), under"
            " which a training could have read them."
        )


def _limit_openings(test: TestFacts) -> Iterator[str]:
    if test["opened"] > 1:
        text = f"The test set was opened {test['opened']} times"
        if test["unscored"]:
            text += f", {test['unscored']} of them without a result"
        if test["main"] is not None:
            text += "; what is quoted is the first evaluation after the last selection"
        yield f"{text}."
    elif test["unscored"]:
        yield "The test set was opened once, without a result."
    if test["main"] is not None and test["openings"] is None:
        yield "Openings of the test set that gave no score are not in the record."
    if test["in_store"] is not None and test["in_store"]["by_others"]:
        yield test["in_store"]["text"]


def _limit_blindness(confirmation: Confirmation | None, main: MainScore | None) -> Iterator[str]:
    """Whether the search went on when a test score was known."""
    if confirmation is not None and confirmation["rounds"] > 1:
        yield (
            "The study was extended after its test score was known and finalised"
            f" {confirmation['rounds']} times: a search that goes on after its test is no longer"
            " blind to it."
        )
    elif main is not None and main["delay"] is not None and main["delay"] < 0:
        yield (
            "Trials ended after the quoted test evaluation: the study went on when its test score"
            " was known."
        )


def _limit_tested_trial(main: MainScore | None, winner: int | None) -> Iterator[str]:
    tested = None if main is None else main["trial_number"]
    if tested is not None and winner is not None and tested != winner:
        yield (
            f"The test score is that of trial {tested}; the winner of the record is trial {winner}."
        )


# -- data and repetition --------------------------------------------------------------------------


def _limit_data(findings: Findings) -> Iterator[str]:
    data = findings["data"]
    if data is None:
        return
    overlap = data["overlap_content"]
    if overlap is None:
        yield "Whether an example stands in more than one split is not recorded."
    elif overlap:
        verb = "has" if overlap == 1 else "have"
        yield (
            f"{plural(overlap, 'held-out example')} {verb} a twin of the same content in another"
            " split, as the data set comes: scores on these are not of unseen examples."
        )


def _limit_repetition(document: StudyDocument) -> Iterator[str]:
    """What a repetition need not give again."""
    provenance = document.provenance
    yield from _limit_determinism(document, provenance)
    if provenance.dirty:
        yield "The code held uncommitted changes: the commit alone does not give back what ran."
    if not provenance.lock:
        yield (
            "No lock file is recorded: the versions of the packages are known only as far as they"
            " are listed."
        )


def _limit_determinism(document: StudyDocument, provenance: Provenance) -> Iterator[str]:
    is_deterministic = document.config_section("trainer").get("deterministic")
    if provenance.gpus and not is_deterministic:
        yield (
            "Deterministic operations were not asked for on the GPU: a training that is repeated"
            " need not give the same weights."
        )
    for operation in provenance.nondeterministic:
        yield (
            f"{operation} has no deterministic form on this device; its results may differ from run"
            " to run."
        )


def _list_contradictions(findings: Findings) -> Iterator[str]:
    for check in findings["checks"]:
        if not check["ok"]:
            yield f"The record contradicts itself: {check['check']} {check['found']}."
