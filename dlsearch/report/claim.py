"""The claim of the report: its sentences are facts in ``report.json``, so that every page says the same."""

from __future__ import annotations

from typing import Any

from dlsearch.report.formats import THIN, difference, interval, listed, plural, probability, score


def claim(f: dict[str, Any]) -> dict[str, Any]:
    """The first screen: what won, by how much, and how far to trust it.

    Returns:
        ``{"headline", "sentences", "gain"}``; ``gain`` over the default configuration is positive where the winner is
        better, of means over the seeds where the winner was confirmed.
    """
    c = f["confirmation"]
    gain: float | None
    sentences: list[str]
    if len(f["objectives"]) > 1:
        headline, gain, sentences = _pareto_headline(f), None, []
    elif c is not None and c["winner"] is not None and c["finalists"][c["winner"]]["n"]:
        headline, gain, sentences = _confirmed(f, c)
    elif f["best"] is None:
        headline, gain, sentences = "No trial was completed: the study has no result.", None, []
    else:
        headline, gain, sentences = _searched(f)
        if c is not None:
            done = sum(row["n"] for row in c["finalists"])
            sentences.append(
                f"The confirmation over fresh seeds is not complete ({plural(done, 'training')} done): the score is"
                " the best of the search, hence optimistic."
            )
    sentences += _test_sentences(f)
    sentences.append(_state(f))
    return {"headline": headline, "sentences": sentences, "gain": gain}


def _confirmed(f: dict[str, Any], c: dict[str, Any]) -> tuple[str, float | None, list[str]]:
    """The winner of the confirmation, by its mean over fresh seeds."""
    objective = f["objectives"][0]
    rate = objective["percent"]
    row = c["finalists"][c["winner"]]
    n = plural(row["n"], "fresh seed")
    extent = interval(row["interval"] or row["student"], rate)
    reached = f"reached {objective['name']} {score(row['mean'], rate)}"
    reached += f" (95{THIN}% interval {extent}, n = {n})" if extent else f" (mean of {n})"
    sentences: list[str] = []
    against, default = c["against_default"], None if c["default"] is None else c["finalists"][c["default"]]
    if row["default"]:
        others = len(c["finalists"]) - 1
        rest = {0: "there was no other finalist.", 1: "the other finalist did no better."}
        headline = f"The default configuration {reached}; " + rest.get(
            others, f"none of the {others} other finalists did better."
        )
        if c["against_runner_up"]:
            sentences.append(_comparison(c["against_runner_up"], c["finalists"][c["runner_up"]]["name"], rate))
        return headline, 0.0, sentences
    headline = f"{row['name'][0].upper()}{row['name'][1:]} {reached}"
    gain = None
    if against is None or default is None or default["mean"] is None or against["mean"] is None:
        headline += "."
        sentences.append("The default configuration was not confirmed beside it, so that there is no gain to state.")
    else:
        gain = against["mean"]
        amount = difference(abs(gain), rate).lstrip("+")
        was = f"({score(default['mean'], rate)})"
        if gain > 0:
            headline += f", {amount} better than the default configuration {was}."
        else:
            headline += f", no better than the default configuration {was}."
        sentences.append(_comparison(against, "the default configuration", rate))
    runner = None if c["runner_up"] in (None, c["default"]) else c["finalists"][c["runner_up"]]
    if runner and c["against_runner_up"]["mean"] is not None:
        sentences.append(_comparison(c["against_runner_up"], f"the runner-up ({runner['name']})", rate))
    return headline, gain, sentences


def _comparison(found: dict[str, Any], other: str, rate: bool) -> str:
    """One paired comparison in a sentence."""
    if found["n"] == 0:
        return f"No seed was completed by both the winner and {other}."
    text = f"Against {other} it is better on {found['better']} of {plural(found['n'], 'seed')}"
    amount = difference(found["mean"], rate)
    extent = found["interval"] or found["student"]
    text += f", by {amount} on average"
    if extent:
        text += f" (95{THIN}% interval {difference(extent[0], rate, bare=True)} to {difference(extent[1], rate)})"
    if found["probability"] is not None:
        text += f"; the probability that its mean is better is {probability(found['probability'])}"
    return text + "."


def _searched(f: dict[str, Any]) -> tuple[str, float | None, list[str]]:
    """The best trial of a search whose winner was not confirmed."""
    objective = f["objectives"][0]
    by_number = {t["number"]: t for t in f["trials"]}
    sentences: list[str] = []
    gain = None
    best, default = by_number[f["best"]], None if f["default"] is None else by_number[f["default"]]
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
    return headline, gain, sentences


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
    _rows, main = f["test"]["rows"], f["test"]["main"]
    if main is None:
        return ["The test set has not been evaluated."]
    over = next((m for m in main["over_seeds"] if m["metric"] == "test/accuracy"), None)
    c = f["confirmation"]
    if c is not None and c["winner"] is not None and main["replicas"]:
        kept = (c["kept"] or {}).get("replica")
        subject = "The model that is kept" + (f" (replica {kept})" if kept is not None else "")
    else:
        subject = f"Trial {main['trial_number']}, trained again" + (
            f" with seed {main['seed']}," if main["seed"] is not None else ","
        )
    opened = f["test"]["opened"]
    times = "once" if opened == 1 else f"in one of {opened} openings of it"
    if main["accuracy"] is None:
        return [f"{subject} was scored on the test set {times}."]
    text = f"{subject} was scored on the test set, {times}: accuracy {score(main['accuracy'], True)}"
    if main["wilson"]:
        text += f" (95{THIN}% interval {interval(main['wilson'], True)}, n = {main['n']:,} examples)"
    if over and over["n"] > 1:
        text += f"; over its {over['n']} seeds the winner reached {score(over['mean'], True)} on average"
    return [text + "."]


def _state(f: dict[str, Any]) -> str:
    a, counts = f["accounting"], f["accounting"]["counts"]
    over = counts["complete"] + counts["pruned"] + counts["failed"]
    whole = f["study"].get("state") == "complete"
    name = {"complete": "complete", "running": "still running"}.get(str(f["study"].get("state")), "partial")
    stopped = "" if whole else f" The record holds what stood when it was read: {over} of {a['asked']} trials are over."
    c = f["confirmation"]
    if c is not None and c["rounds"] > 1:
        stopped += f" It was extended: this is round {c['round']} of its confirmation."
    parts = [f"{counts['complete']} completed", f"{counts['pruned']} pruned", f"{counts['failed']} failed"]
    return f"The study is {name}: {plural(a['asked'], 'trial')} asked, {listed(parts)}.{stopped}"
