"""What is written of a round, and when a round has all that is wanted."""

from __future__ import annotations

import json

import pytest

from dlsearch.confirmation.racing import FIRST_RULE, RULE
from dlsearch.confirmation.round_document import ConfirmSettings, WantedRound, rule_of
from dlsearch.study.models import Finalist

FINALISTS = [
    Finalist(4, False, {"optimizer.lr": 0.01}, 0.9),
    Finalist(None, True, {"optimizer.lr": 0.001}, None),
]


def document_of(*finalists, **settings):
    wanted = WantedRound(ConfirmSettings(**settings), list(finalists) or FINALISTS)
    seeds = [100 + replica for replica in range(wanted.settings.seeds)]
    return wanted.to_document(seeds, refit_seed=9)


def test_the_keys_are_written_as_they_always_were():
    assert json.dumps(document_of(seeds=2)) == (
        '{"top": 3, "seeds": [100, 101], "racing": true, "refit": false, "finalists": '
        '[{"trial_number": 4, "default": false, "params": {"optimizer.lr": 0.01}, '
        '"search_value": 0.9}, {"trial_number": null, "default": true, "params": '
        '{"optimizer.lr": 0.001}, "search_value": null}], "scored": false, "refit_seed": 9, "rule": 2}'
    )


def test_a_round_of_an_earlier_version_follows_the_first_rule():
    document = document_of()
    assert rule_of(document) == RULE
    del document["rule"]
    assert rule_of(document) == FIRST_RULE


@pytest.mark.parametrize("study", [{}, {"confirm": None}, {"confirm": {}}])
def test_a_study_that_says_nothing_has_the_defaults(study):
    assert ConfirmSettings.from_study(study) == ConfirmSettings(3, 5, True, False)


def test_a_study_says_what_it_says():
    given = {"confirm": {"seeds": 2, "refit": True}}
    assert ConfirmSettings.from_study(given) == ConfirmSettings(3, 2, True, True)


@pytest.mark.parametrize(
    ("changes", "asks_more"),
    [
        ({}, False),
        ({"top": 4}, True),
        ({"top": 2}, False),
        ({"seeds": 6}, True),
        ({"refit": True}, True),
        ({"racing": False}, False),
        ({"top": 2, "seeds": 6}, True),
    ],
)
def test_what_asks_for_more(changes, asks_more):
    assert ConfirmSettings(**changes).asks_more_than(ConfirmSettings()) is asks_more


@pytest.mark.parametrize(
    ("written", "is_covered"),
    [
        (document_of(seeds=3), True),
        (document_of(seeds=4), True),
        (document_of(seeds=2), False),
        (document_of(FINALISTS[0], seeds=3), False),
        (document_of(*FINALISTS, Finalist(7, False, {"optimizer.lr": 1.0}, 0.1), seeds=3), True),
        (document_of(seeds=3, refit=True), True),
    ],
)
def test_a_round_has_all_that_is_wanted(written, is_covered):
    wanted = WantedRound(ConfirmSettings(seeds=3), FINALISTS)
    assert wanted.is_covered_by(written) is is_covered


def test_a_round_without_the_refit_that_is_wanted_is_not_enough():
    wanted = WantedRound(ConfirmSettings(seeds=3, refit=True), FINALISTS)
    assert not wanted.is_covered_by(document_of(seeds=3))
    assert wanted.is_covered_by(document_of(seeds=3, refit=True))
