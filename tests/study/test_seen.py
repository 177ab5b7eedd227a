"""What a proposal saw, in few bytes and back."""

from __future__ import annotations

import random

import pytest

from dlsearch.study.seen import PrunerVerdict, SeenTrials, read_ranges, write_ranges
from dlsearch.study.states import AttemptState
from tests.study.studies import complete, draft, holder, opened


def test_numbers_are_ranges_and_come_back():
    assert write_ranges([]) == ""
    assert write_ranges([7, 3, 5, 6]) == "3,5-7"
    assert read_ranges("3,5-7", 8) == (3, 5, 6, 7)
    generator = random.Random(0)
    for _ in range(100):
        numbers = tuple(sorted(generator.sample(range(40), generator.randint(0, 40))))
        assert read_ranges(write_ranges(numbers), 40) == numbers


@pytest.mark.parametrize("text", ["8", "5-3", "3,3", "4-6,5", "a", "1-", "-1", "1,,2", None, 3])
def test_other_ranges_are_refused(text):
    with pytest.raises(ValueError, match=r"expected|invalid"):
        read_ranges(text, 8)


def test_what_was_seen_comes_back_from_json():
    seen = SeenTrials(
        9, running=(2, 3), proposing=(8,), waiting=(6, 7), released=(5,), steps={2: 0, 3: 4}
    )
    assert SeenTrials.from_json(seen.to_json(), 9) == seen
    assert (seen.ended_count, seen.settled_count) == (3, 6)
    verdict = PrunerVerdict(4, stop=True, seen=seen)
    assert PrunerVerdict.from_json(verdict.to_json(), 9) == verdict
    alone = PrunerVerdict(4, stop=False, seen=None)
    assert PrunerVerdict.from_json(alone.to_json(), 9) == alone


def test_a_claim_stores_which_trials_had_not_ended(tmp_path):
    given = {"optimizer.lr": 0.01, "model.dropout": 0.25}
    study = opened(tmp_path, draft(9, enqueue=[given, {**given, "optimizer.lr": 0.02}]))
    claims = [study.claim(holder()) for _ in range(4)]
    assert study.finish(claims[1], complete())
    assert study.release(claims[0])
    again = study.claim(holder())
    last = study.claim(holder())
    assert (again.number, last.number) == (0, 4)
    rows = {(row.number, row.attempt): row.seen for row in study.leases.rows()}
    assert rows[0, 1] == '{"trials":2,"waiting":"0-1"}'
    assert rows[1, 1] == '{"trials":2,"running":"0","waiting":"1"}'
    assert rows[3, 1] == '{"trials":4,"running":"0-2","proposing":"3"}'
    assert rows[0, 2] is None, "it has its parameters"
    assert rows[4, 1] == '{"trials":5,"running":"0,2-3","proposing":"4"}'
    study.storage.close()


def test_an_attempt_stores_the_last_verdict_and_what_was_compared(tmp_path):
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1}
    study = opened(tmp_path, draft(3, config={"pruner": pruner}))
    good, bad = study.claim(holder()), study.claim(holder())
    assert not study.report(bad, 0, 0.9)
    for epoch in range(5):
        assert not study.report(good, epoch, 0.5)
    assert study.finish(good, complete())
    assert study.report(bad, 1, 0.1) is False, "its best value counts"
    assert study.finish(bad, {"state": AttemptState.PRUNED})
    first, second = study.leases.rows()
    assert first.verdict == (
        '{"epoch":4,"stop":false,"seen":{"trials":2,"running":"0-1","steps":{"0":4,"1":0}}}'
    )
    assert second.verdict == (
        '{"epoch":1,"stop":false,"seen":{"trials":2,"running":"1","steps":{"1":1}}}'
    )
    study.storage.close()


def test_without_a_pruner_nothing_is_noted_of_verdicts(tmp_path):
    study = opened(tmp_path, draft(1))
    claim = study.claim(holder())
    assert not study.report(claim, 0, 0.5)
    assert study.finish(claim, complete())
    assert study.leases.rows()[0].verdict is None
    study.storage.close()
