"""Nothing that somebody else wrote runs, reads or writes outside: every input of the corpus, under the audit hook."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.security.foreign.checking import check, told
from tests.security.foreign.corpus import HAS_ONNX, INPUTS, QUICK
from tests.security.foreign.inputs.base import KINDS, OUT, THINGS, Input
from tests.security.foreign.runner import SECONDS, Runner

VERBS = {
    "run",
    "search",
    "plan",
    "worker",
    "studies",
    "status",
    "trials",
    "report",
    "predict",
    "export",
    "compare",
    "ensemble",
    "gc",
    "ui",
    "sync",
    "describe",
    "look",
    "lr-range",
    "verify",
    "reproduce",
    "doctor",
}


def test_the_corpus_is_large_and_balanced() -> None:
    names = Counter(each.name for each in INPUTS)
    assert not [name for name, count in names.items() if count > 3], (
        "the names say what the inputs are"
    )
    assert len(INPUTS) >= 250
    kinds = Counter(each.kind for each in INPUTS)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 5, kinds
    assert {each.thing for each in INPUTS} == set(THINGS)
    assert min(Counter(each.thing for each in INPUTS).values()) >= 4
    assert {each.verb for each in INPUTS} == VERBS


@pytest.mark.storm
@pytest.mark.parametrize("given", [pytest.param(each, id=each.id) for each in QUICK])
def test_nothing_happens_outside(given: Input, runner: Runner) -> None:
    check(given, runner)


#: Each verb with what is good: these end well, and touch nothing outside either.
GOOD = (
    ("plan", "-m"),
    ("studies",),
    ("status", "good"),
    ("trials", "good"),
    ("report", "good"),
    ("gc", "good"),
    ("predict", "good", "digit.npy"),
    ("predict", "exported", "digit.npy"),
    ("export", "good", "--out", "out/x"),
    ("sync",),
    ("look", "good", "--out", "out/x"),
    ("verify", "good/0"),
    ("ensemble", "good", "--top", "2", "--validation"),
    ("describe",),
    ("doctor",),
    ("worker", "study=good"),
    ("model.width=8", "trainer.max_epochs=1", "tracking.enabled=false"),
    ("reproduce", "record/report.json", "--store", "out/again"),
)


@pytest.mark.storm
@pytest.mark.parametrize("words", GOOD, ids=" ".join)
def test_what_is_good_works(words: tuple[str, ...], runner: Runner) -> None:
    runner.box.renew(runner.good)
    if words == ("sync",):
        runner.box.unship()
    outcome = runner.run(list(words), writable=[*OUT], seconds=3 * SECONDS)
    assert outcome.code == 0, told(outcome)
    assert not outcome.acts, told(outcome)


def test_onnx_is_there_where_it_is_developed() -> None:
    if not HAS_ONNX:
        pytest.skip("the extra onnx is not installed: its inputs are left out")
