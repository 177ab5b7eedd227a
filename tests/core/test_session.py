"""One process, one current session; another one knows and grants nothing of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dlsearch.core import masking, permission
from dlsearch.core.environment import note_named
from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import MASK
from dlsearch.core.secrets import Secrets
from dlsearch.core.session import Session, current_session, use_session

SECRET = "canary-of-one-session"


def test_secrets_of_one_session_are_not_anothers() -> None:
    masking.learn({"hub_token": SECRET})
    with use_session(Session()):
        assert masking.mask_known(SECRET) == SECRET
        masking.learn({"hub_token": "canary-of-another"})
        assert masking.mask_known("canary-of-another") == MASK
    assert masking.mask_known(f"{SECRET} canary-of-another") == f"{MASK} canary-of-another"


def test_permissions_of_one_session_are_not_anothers(tmp_path: Path) -> None:
    with use_session(Session()) as inner:
        permission.grant(["theirs"], [tmp_path])
        assert inner.permissions.packages == permission.granted() == ("theirs",)
        assert permission.folders() == (tmp_path,)
    assert permission.granted() == ("tests",)
    assert permission.folders() == ()
    with pytest.raises(ConfigError, match="theirs"):
        permission.require(["theirs"])


def test_a_package_covers_what_is_below_it_and_nothing_beside_it() -> None:
    permission.grant(["mine"])
    permission.require(["mine", "mine.nets"])
    with pytest.raises(ConfigError, match="mine_too"):
        permission.require(["mine_too"])


def test_what_cannot_be_granted_changes_nothing() -> None:
    permission.grant(["mine"])
    with pytest.raises(ConfigError, match="subprocess"):
        permission.grant(["mine", "subprocess"])
    assert permission.granted() == ("mine",)


def test_the_session_that_was_there_comes_back_after_an_error() -> None:
    before = current_session()
    with pytest.raises(RuntimeError, match="within"), use_session(Session()):
        raise RuntimeError("within")
    assert current_session() is before


def test_threads_share_the_session() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(masking.mask_text(SECRET)))
    masking.learn({"hub_token": SECRET})
    thread.start()
    thread.join()
    assert found == [MASK]


def test_a_value_that_a_config_reads_is_learned_by_the_current_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THEIRS", SECRET)
    with use_session(Session()):
        note_named(["${oc.env:THEIRS}"])
        assert masking.mask_known(SECRET) == MASK
    assert masking.mask_known(SECRET) == SECRET


def test_secrets_that_are_not_the_sessions_learn_what_a_config_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THEIRS", SECRET)
    secrets = Secrets()
    secrets.learn({"model": {"source": "${oc.env:THEIRS}"}})
    assert secrets.mask_known(SECRET) == MASK
