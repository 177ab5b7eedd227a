"""``study.confirm`` is one name for the confirmation: how it is done, or a word for whether."""

from __future__ import annotations

import pytest

from dlsearch.app.phrases import format_trainings
from dlsearch.confirmation.round_document import ConfirmSettings
from dlsearch.core.errors import ConfigError
from dlsearch.planning.confirm_setting import settle_confirmation

WHOLE = {"top": 3, "seeds": 5, "racing": True, "refit": False}


@pytest.mark.parametrize(
    ("given", "finalize", "settled"),
    [
        (False, True, (WHOLE, False)),
        (True, False, (WHOLE, True)),
        ({"seeds": 2}, True, ({**WHOLE, "seeds": 2}, True)),
        ({"seeds": 2}, False, ({**WHOLE, "seeds": 2}, False)),
    ],
)
def test_the_word_goes_before_the_former_name(given, finalize, settled):
    study = {"confirm": given, "finalize": finalize}
    settle_confirmation(study)
    assert (study["confirm"], study["finalize"]) == settled


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"sedes": 2}, "study.confirm.sedes"),
        ({"racing": "perhaps"}, "study.confirm.racing"),
        ("perhaps", "study.confirm"),
        (5, "study.confirm"),
        (None, "study.confirm"),
    ],
)
def test_anything_else_is_refused_with_the_key(given, key):
    with pytest.raises(ConfigError) as error:
        settle_confirmation({"confirm": given, "finalize": True})
    assert error.value.key == key


def test_a_search_says_how_many_confirmation_runs_there_are_at_most():
    most = ConfirmSettings().count_most_trainings()
    assert format_trainings("6 trials", most) == "6 trials + up to 20 confirmation runs"
    assert format_trainings("6 trials", 0) == "6 trials"
    assert ConfirmSettings(top=1, seeds=2, refit=True).count_most_trainings() == 5
