"""The sentences of the report. They are facts in ``report.json``, so that every page says the same."""

from __future__ import annotations

from typing import Any

from dlsearch.report.formats import THIN, difference, listed, number, plural, score


def claim(f: dict[str, Any]) -> dict[str, Any]:
    """The first screen: what won, by how much, and how far to trust it.

    Returns:
        ``{"headline", "sentences", "gain"}``
    """
    objective = f["objectives"][0]
    by_number = {t["number"]: t for t in f["trials"]}
    sentences: list[str] = []
    gain = None
    if len(f["objectives"]) > 1:
        headline = _pareto_headline(f)
    elif f["winner"] is None:
        headline = "No trial was completed: the study has no result."
    else:
        best, default = by_number[f["winner"]], None if f["default"] is None else by_number[f["default"]]
        value = score(best["values"][0], objective["percent"])
        if default is not None and default["scored"]:
            gain = (best["values"][0] - default["values"][0]) * (1 if objective["maximize"] else -1)
        if default is not None and default["number"] == best["number"]:
            alone = sum(t["scored"] for t in f["trials"]) == 1
            headline = f"The default configuration reached {objective['name']} {value}" + (
                "; no other trial was completed." if alone else "; no other trial did better."
            )
        else:
            headline = f"Trial {best['number']} reached {objective['name']} {value}"
            if gain is not None and default is not None:
                was = score(default["values"][0], objective["percent"])
                if gain > 0:
                    amount = difference(gain, objective["percent"]).lstrip("+")
                    headline += f", {amount} better than the default configuration ({was})."
                else:
                    headline += f", no better than the default configuration ({was})."
            else:
                headline += "."
                if default is not None:
                    sentences.append(
                        f"The default configuration (trial {default['number']}) was {default['state']},"
                        " so that there is no gain to state."
                    )
                else:
                    sentences.append("The default configuration was not among the trials.")
        near = (f["resolution"] or {}).get("near") or []
        if f["resolution"]:
            r = f["resolution"]
            told = plural(len(near), "other completed trial") if near else "no other completed trial"
            told += f" {'lie' if len(near) > 1 else 'lies'} that close"
            sentences.append(
                f"By the sampling error of {r['n']:,} validation examples, scores less than"
                f" {100 * r['width']:.2f} points apart are not told apart at 95{THIN}%:"
                f" {told} to the best{_against(gain, r)}."
            )
    sentences += _test_sentences(f)
    sentences.append(_state(f))
    return {"headline": headline, "sentences": sentences, "gain": gain}


def _against(gain: float | None, resolution: dict[str, Any]) -> str:
    """How the gain over the default configuration stands to what the examples tell apart."""
    if not gain or gain < 0:
        return ""
    if gain < resolution["width"]:
        return ", and so does the default configuration"
    return ", and the gain over the default configuration is larger"


def _pareto_headline(f: dict[str, Any]) -> str:
    names = listed([f"{o['name']} ({'maximised' if o['maximize'] else 'minimised'})" for o in f["objectives"]])
    done = sum(t["scored"] for t in f["trials"])
    if not done:
        return "No trial was completed: the study has no result."
    front = len(f["pareto"])
    return f"{front} of {plural(done, 'completed trial')} {'is' if front == 1 else 'are'} Pareto-optimal in {names}."


def _test_sentences(f: dict[str, Any]) -> list[str]:
    rows, main = f["test"]["rows"], f["test"]["main"]
    if main is None:
        return ["The test set has not been evaluated."]
    subject = f"Trial {main['trial_number']}, trained again" + (
        f" with seed {main['seed']}," if main["seed"] is not None else ","
    )
    times = "once" if len(rows) == 1 else f"in the first of {len(rows)} evaluations"
    if main["accuracy"] is None:
        return [f"{subject} was scored on the test set {times}."]
    text = f"{subject} was scored {times} on the test set: accuracy {score(main['accuracy'], True)}"
    if main["wilson"]:
        low, high = main["wilson"]
        text += f" (95{THIN}% interval {100 * low:.2f} to {100 * high:.2f}{THIN}%, n = {main['n']:,})"
    return [text + "."]


def _state(f: dict[str, Any]) -> str:
    a, counts = f["accounting"], f["accounting"]["counts"]
    over = counts["complete"] + counts["pruned"] + counts["failed"]
    whole = f["study"].get("state") == "complete"
    name = {"complete": "complete", "running": "still running"}.get(str(f["study"].get("state")), "partial")
    stopped = "" if whole else f" The record holds what stood when it was read: {over} of {a['asked']} trials are over."
    parts = [f"{counts['complete']} completed", f"{counts['pruned']} pruned", f"{counts['failed']} failed"]
    return f"The study is {name}: {plural(a['asked'], 'trial')} asked, {listed(parts)}.{stopped}"


def limits(f: dict[str, Any]) -> list[str]:
    """What this study cannot tell, each sentence from a fact of the record."""
    out: list[str] = []
    a, counts, main = f["accounting"], f["accounting"]["counts"], f["test"]["main"]
    provenance = f["study"].get("provenance") or {}
    objective = f["objectives"][0]
    if counts["complete"] > 1:
        out.append(
            "Each configuration was trained with one seed in the search: the spread between seeds is not measured,"
            " and the best score is the largest of several noisy ones, hence optimistic."
        )
    if main and main["retrained_value"] is not None and main["search_value"] is not None:
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
    if len(f["compute"]["devices"]) > 1:
        out.append(
            f"Trials ran on {len(f['compute']['devices'])} kinds of device or host, so that times do not compare."
        )
    if len(f["test"]["rows"]) > 1:
        out.append(
            f"The test set was evaluated {len(f['test']['rows'])} times; what is quoted is the first evaluation after"
            " the selection."
        )
    if main and main["delay"] is not None and main["delay"] < 0:
        out.append("Trials ended after the quoted test evaluation: the study went on when its test score was known.")
    if main and f["winner"] is not None and main["trial_number"] != f["winner"]:
        out.append(
            f"The test score is that of trial {main['trial_number']}; the best trial of the record is {f['winner']}."
        )
    overlap = ((f["study"].get("data") or {}).get("overlap") or {}).get("content")
    if overlap:
        out.append(f"{plural(overlap, 'example')} with the same content stand in more than one split.")
    if provenance.get("dirty"):
        out.append("The code held uncommitted changes: the commit alone does not give back what ran.")
    if not provenance.get("lock"):
        out.append("No lock file is recorded: the versions of the packages are known only as far as they are listed.")
    out += [f"The record contradicts itself: {c['check']} {c['found']}." for c in f["checks"] if not c["ok"]]
    return out
