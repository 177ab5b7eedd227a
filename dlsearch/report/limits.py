"""What a study cannot tell: sentences from the facts, so that every page says the same."""

from __future__ import annotations

from typing import Any

from dlsearch.report.formats import difference, listed, number, plural, probability, score


def limits(f: dict[str, Any]) -> list[str]:
    """What this study cannot tell, each sentence from a fact of the record."""
    out: list[str] = []
    a, counts, main = f["accounting"], f["accounting"]["counts"], f["test"]["main"]
    provenance = f["study"].get("provenance") or {}
    objective = f["objectives"][0]
    c = f["confirmation"]
    if c is not None:
        out += _of_the_confirmation(f, c)
    if counts["complete"] > 1:
        out.append(
            "Each configuration was trained with one seed in the search"
            + (
                ": the best score is the largest of several noisy ones, hence optimistic."
                if c is not None
                else ": the spread between seeds is not measured, and the best score is the largest of several noisy"
                " ones, hence optimistic."
            )
        )
    if c is None and main and main["retrained_value"] is not None and main["search_value"] is not None:
        drop = main["retrained_value"] - main["search_value"]
        fresh = main["seed"] != main["trial_seed"]
        out.append(
            f"Trained again {'with a fresh seed' if fresh else 'with the same seed'}, the winner scored"
            f" {score(main['retrained_value'], objective['percent'])} on validation against"
            f" {score(main['search_value'], objective['percent'])} in the search"
            f" ({difference(drop, objective['percent'])}; one training, so that the difference has no interval)."
        )
    if f["edges"]:
        text = listed([f"{e['name']} = {number(e['value'])} ({e['side']} end)" for e in f["edges"]])
        out.append(f"The best value lies at the edge of its range for {text}: a wider range may hold a better one.")
    if not f["course"]["independent"] and len(f["trials"]) > 1:
        out.append(
            "The sampler proposes trials from earlier results, so that trials are not independent: distributions and"
            " importances describe where it looked, and no expected-best curve is given."
        )
    if counts["pruned"]:
        out.append(
            f"{plural(counts['pruned'], 'trial')} {'was' if counts['pruned'] == 1 else 'were'} stopped early and"
            " stand with their last reported score; some might have caught up."
        )
    if counts["failed"]:
        out.append(
            f"{plural(counts['failed'], 'trial')} failed: the regions"
            " of the space in which they lie are judged by fewer results."
        )
    if f["study"].get("state") != "complete":
        out.append("The study is not complete; its result may change when it goes on.")
    if a["retried"]:
        out.append(
            f"{plural(len(a['retried']), 'trial')} took more than one attempt; such a trial goes on from its last"
            " checkpoint, and its times include the part that was lost."
        )
    if parted := sum("oom" in each["ends"][:-1] for each in a["retried"]):
        out.append(
            f"{plural(parted, 'trial')} ran out of memory and trained each batch in parts from then on: the same"
            " gradient, but batch normalisation takes its statistics of each part."
        )
    if len(f["compute"]["devices"]) > 1:
        out.append(
            f"Trials ran on {len(f['compute']['devices'])} kinds of device or host, so that times do not compare."
        )
    out += _of_the_test(f)
    overlap = (f["data"] or {}).get("overlap_content")
    if overlap:
        out.append(
            f"{plural(overlap, 'held-out example')} {'has' if overlap == 1 else 'have'} a twin of the same content in"
            " another split, as the data set comes: scores on these are not of unseen examples."
        )
    if f["data"] is not None and overlap is None:
        out.append("Whether an example stands in more than one split is not recorded.")
    if provenance.get("gpus") and not (f["study"].get("config") or {}).get("trainer", {}).get("deterministic"):
        out.append(
            "Deterministic operations were not asked for on the GPU: a training that is repeated need not give the"
            " same weights."
        )
    for op in provenance.get("nondeterministic") or []:
        out.append(f"{op} has no deterministic form on this device; its results may differ from run to run.")
    if provenance.get("dirty"):
        out.append("The code held uncommitted changes: the commit alone does not give back what ran.")
    if not provenance.get("lock"):
        out.append("No lock file is recorded: the versions of the packages are known only as far as they are listed.")
    out += [f"The record contradicts itself: {c['check']} {c['found']}." for c in f["checks"] if not c["ok"]]
    return out


def _of_the_confirmation(f: dict[str, Any], c: dict[str, Any]) -> list[str]:
    """How far the replicas carry."""
    out: list[str] = []
    rate = f["objectives"][0]["percent"]
    if c["winner"] is None:
        return ["The confirmation over fresh seeds is not complete: the winner may be another configuration."]
    row = c["finalists"][c["winner"]]
    if row["n"]:
        out.append(
            f"The winner's mean rests on {plural(row['n'], 'seed')}"
            + (
                ": bootstrap intervals of so few values are too narrow; Student's, beside them, suppose normal values."
                if row["n"] < 20
                else "."
            )
        )
    if row["why_not"]:
        out.append(f"There is no bootstrap interval of the winner's mean: {row['why_not']}.")
    if len(c["finalists"]) > 1:
        out.append(
            f"The winner was chosen among {len(c['finalists'])} configurations by the same replicas that its mean is"
            " of, so that this mean is slightly optimistic as well, and so are the probabilities; they are not"
            " corrected for the number of comparisons."
        )
    against = c["against_default"]
    if against is not None and against["probability"] is not None and against["probability"] < 0.95:
        out.append(
            "That the winner is better than the default configuration is not certain: the probability is"
            f" {probability(against['probability'])}, the difference {difference(against['mean'], rate)}."
        )
    dropped = [r for r in c["finalists"] if r["dropped_after"] is not None]
    if dropped:
        names = listed([f"{r['name']} after {plural(r['dropped_after'], 'seed')}" for r in dropped])
        out.append(f"Racing left out seeds that could not change the result: {names}; their means are of fewer seeds.")
    failed = sum(r["failed"] for r in c["finalists"])
    if failed:
        out.append(f"{plural(failed, 'replica')} did not complete; the means are of those that did.")
    out.append(
        "All replicas share one split of the data: the spread holds the seeds of training, not the choice of it."
    )
    return out


def _of_the_test(f: dict[str, Any]) -> list[str]:
    """How often the test set was opened, and what may have followed from it."""
    out: list[str] = []
    test, main, c = f["test"], f["test"]["main"], f["confirmation"]
    if test["opened"] > 1:
        text = f"The test set was opened {test['opened']} times"
        if test["unscored"]:
            text += f", {test['unscored']} of them without a result"
        if main:
            text += "; what is quoted is the first evaluation after the last selection"
        out.append(text + ".")
    elif test["unscored"]:
        out.append("The test set was opened once, without a result.")
    if main and test["openings"] is None:
        out.append("Openings of the test set that gave no score are not in the record.")
    if c is not None and c["rounds"] > 1:
        out.append(
            f"The study was extended after its test score was known and finalised {c['rounds']} times: a search that"
            " goes on after its test is no longer blind to it."
        )
    elif main and main["delay"] is not None and main["delay"] < 0:
        out.append("Trials ended after the quoted test evaluation: the study went on when its test score was known.")
    if main and main["trial_number"] is not None and f["winner"] is not None and main["trial_number"] != f["winner"]:
        out.append(
            f"The test score is that of trial {main['trial_number']}; the winner of the record is trial {f['winner']}."
        )
    if f["breaches"]:
        n = len(f["breaches"])
        times = "once" if n == 1 else f"{n} times"
        out.append(
            f"During the search the test set was reached for {times} (section Test names each):"
            " scores of these trials may know it."
        )
    return out
