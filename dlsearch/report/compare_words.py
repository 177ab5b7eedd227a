"""What a comparison comes to, in sentences."""

from __future__ import annotations

from typing import Any

from dlsearch.report.formats import difference, listed, number, plural, score


def verdict(facts: dict[str, Any]) -> dict[str, Any]:
    """``{"headline", "sentences", "warnings"}``."""
    objective = facts["objective"]
    pairs, studies = facts["pairs"], facts["studies"]
    warnings = _warnings(facts)
    if facts["data"]["verdict"] == "different":
        return {"headline": "Scores on different data are not comparable", "sentences": [], "warnings": warnings}
    tested = [p for p in pairs if p["confirmed"] is not None]
    sentences = []
    if len(pairs) == 1:  # of several pairs the table says the same, better
        sentences = [_sentence(p, objective) for p in tested]
        sentences += [_tested(p) for p in pairs if p["test"] is not None]
    if not tested:
        headline = "No study is told from another"
        best = [s for s in studies if s["best"] is not None]
        if len(best) > 1:
            sign = 1 if objective["maximize"] else -1
            first = max(best, key=lambda s: sign * s["best"]["value"])
            values = [score(s["best"]["value"], objective["percent"]) for s in best]
            if len({s["best"]["value"] for s in best}) == 1:
                headline = f"The searches found the same best score, {values[0]}, and nothing confirms it"
            else:
                headline = f"{first['name']} found the best score, and nothing confirms it"
            sentences.insert(0, f"Best scores of the searches: {listed(values)}. The best of many scores is optimistic,"
                                " so they carry no test.")  # fmt: skip
        return {"headline": headline, "sentences": sentences, "warnings": warnings}
    if len(pairs) == 1:
        return {
            "headline": _headline(tested[0], objective, facts["level"]),
            "sentences": sentences,
            "warnings": warnings,
        }
    told = [p for p in tested if p["holm"] is not None and p["holm"] < facts["level"]]
    ranked = _ranked(studies, objective["maximize"])
    lead = ranked[0]["name"]
    beaten = [p for p in told if p["better"] == lead]
    if len(beaten) == len(studies) - 1:
        headline = f"{lead} is better than every other study"
    elif told:
        headline = f"{plural(len(told), 'pair')} of {len(pairs)} told apart; {lead} has the best mean"
    else:
        headline = f"No pair is told apart; {lead} has the best mean"
    return {"headline": headline, "sentences": sentences, "warnings": warnings}


def _ranked(studies: list[dict[str, Any]], maximize: bool) -> list[dict[str, Any]]:
    sign = -1 if maximize else 1
    done = [s for s in studies if s["confirmed"] is not None]
    return sorted(done, key=lambda s: (sign * s["confirmed"]["mean"], s["name"]))


def _headline(pair: dict[str, Any], objective: dict[str, Any], level: float) -> str:
    found, p = pair["confirmed"], pair["holm"]
    if p is None:
        return f"{pair['better']} scores better in every training by the same amount"
    other = pair["b"] if pair["better"] == pair["a"] else pair["a"]
    if p < level:
        return f"{pair['better']} is better than {other} by {_size(found['difference'], objective['percent'])}"
    return f"{pair['a']} and {pair['b']} are not told apart"


def _size(x: float, percent: bool) -> str:
    return difference(abs(x), percent).lstrip("+")


def p_value(p: float | None) -> str:
    """``p = 0.032`` or ``p < 0.001``."""
    return "p is not defined" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _sentence(pair: dict[str, Any], objective: dict[str, Any]) -> str:
    found, percent = pair["confirmed"], objective["percent"]
    n, m = found["n"]
    how = f"{n} seeds that they share" if found["test"].startswith("paired") else f"{n} and {m} trainings"
    effect = "" if found["effect"] is None else f", Hedges' g {number(found['effect'], 3)}"
    text = f"{pair['a']} − {pair['b']} on {how}: {difference(found['difference'], percent)}"
    if found["interval"] is not None:
        low, high = (difference(end, percent) for end in found["interval"])
        text += f", 95 % interval {low.removesuffix(' points')} to {high} ({found['method']})"
    text += f"; {found['test']}, {p_value(found['p'])}"
    least = f" (with so few it cannot be below {found['smallest_p']:.3g})" if found["smallest_p"] > 0.01 else ""
    return f"{text}; permutation test {p_value(found['permutation_p'])}{least}{effect}."


def _tested(pair: dict[str, Any]) -> str:
    found = pair["test"]
    text = (
        f"Test accuracy of the kept models, {pair['a']} − {pair['b']}: {difference(found['difference'], True)}, 95 %"
        f" interval {difference(found['low'], True).removesuffix(' points')} to {difference(found['high'], True)}"
        " (Newcombe)"
    )
    exact = found["mcnemar"]
    if exact is not None:
        text += (
            f"; of the same examples {exact['only_a']} only {pair['a']} got right and {exact['only_b']} only"
            f" {pair['b']} (exact McNemar test, {p_value(exact['p'])})"
        )
    return f"{text}."


def _intervals(facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Everything that an interval is given of, with its name."""
    means = [(f"{s['name']}'s mean", s["confirmed"]) for s in facts["studies"] if s["confirmed"] is not None]
    pairs = [(f"{p['a']} − {p['b']}", p["confirmed"]) for p in facts["pairs"] if p["confirmed"] is not None]
    return [*means, *pairs]


def _warnings(facts: dict[str, Any]) -> list[str]:
    out = []
    data = facts["data"]
    if data["verdict"] == "different":
        out.append(f"The studies were scored on different data: {data['notes'][0]}. Nothing is tested.")
    else:
        out += [f"Data: {note}." for note in data["notes"]]
        if data["verdict"] == "split" and not data["same"]["val"]:
            out.append("Validation scores come from different examples, so they are shown and not tested.")
        if data["verdict"] == "split" and not data["same"]["test"]:
            out.append("The test sets differ, so test accuracies are shown and not compared.")
    absent = [s["name"] for s in facts["studies"] if s["confirmed"] is None]
    if absent:
        out.append(f"No winner trained again on fresh seeds in {listed(absent)}: a search's best score is optimistic.")
    for name, found in _intervals(facts):
        if found["interval"] is None:
            out.append(f"No bootstrap interval of {name}: {found['why_not']}.")
    partial = [s["name"] for s in facts["studies"] if s["state"] != "complete"]
    if partial:
        out.append(f"Not finished: {listed(partial)}.")
    if len({s["trials"]["run"] for s in facts["studies"]}) > 1:
        counts = [f"{s['name']} {s['trials']['run']}" for s in facts["studies"]]
        out.append(f"The searches had different budgets in trials ({', '.join(counts)}).")
    again = [s["name"] for s in facts["studies"] if (s["test"] or {}).get("opened", 0) > 1]
    if again:
        out.append(f"The test set was opened more than once in {listed(again)}.")
    return out
