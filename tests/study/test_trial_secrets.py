"""Secrets of trials belong to the session of one study: its database has them masked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dlsearch.app.session import Session
from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import MASK, learn
from dlsearch.execution.clients.database import DatabaseClient
from dlsearch.execution.clients.database_files import DatabaseFiles
from dlsearch.execution.run_journals import folder_of
from dlsearch.planning.draft import Draft
from dlsearch.storage.studies import read_row
from dlsearch.study.trial_config import trial_config
from dlsearch.study.trial_secrets import NO_SECRETS, TrialSecrets
from tests.study.studies import draft, holder, opened

TRIALS = 4


def draft_with(token: str, option_token: str) -> Draft:
    """A study whose model, and one of whose optimizers, needs a token."""
    config = {"model": {"dropout": 0.1, "hub_token": token}, "optimizer": {"lr": 0.001}}
    options = {"optimizer": {"adam": {"lr": 0.001, "api_key": option_token}}}
    return draft(config=config, options=options)


def serve_claims(folder: Path, session: Session, given: Draft, both: threading.Barrier) -> Any:
    """Open a study, and prepare the processes of some of its trials: payloads and files."""
    learn(given.config)
    session.trial_secrets = TrialSecrets.from_config(given.config, given.options)
    both.wait()
    study = opened(folder, given)
    row = read_row(study.storage, study.name)
    assert row is not None
    configs, written = [], [row.document]
    paths = {"store": str(folder)}
    files = DatabaseFiles(DatabaseClient(study), folder, paths, session.trial_secrets)
    for _ in range(TRIALS):
        claim = study.claim(holder())
        assert claim is not None
        place = folder / folder_of(study.name, claim)
        place.mkdir(parents=True)
        both.wait()  # the other is in the middle of the same
        payload: Any = files.prepare(claim, [])
        configs.append(payload.cfg)
        written.append((place / "config.yaml").read_text())
    study.storage.close()
    return configs, written


def test_two_studies_at_once_have_different_secrets_under_one_path(tmp_path):
    names = ("first", "second")
    sessions = {name: Session() for name in names}
    drafts = {name: draft_with(f"canary-{name}-41d7", f"canary-{name}-option") for name in names}
    both = threading.Barrier(2, timeout=60)

    def run(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        return serve_claims(folder, sessions[name], drafts[name], both)

    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip(names, pool.map(run, names), strict=True))
    for name, (configs, written) in outcomes.items():
        assert [cfg["model"]["hub_token"] for cfg in configs] == [f"canary-{name}-41d7"] * TRIALS
        assert len(written) == TRIALS + 1
        assert all(MASK in text and "canary-" not in text for text in written)
        document = {"config": {"optimizer": MASK}, "options": {"optimizer": {"adam": {"k": MASK}}}}
        with pytest.raises(ConfigError, match="optimizer=adam"):
            sessions[name].trial_secrets.check_complete(document["config"], document["options"])


def test_an_option_of_a_group_brings_its_own_secret():
    given = draft_with("canary-model", "canary-option")
    secrets = TrialSecrets.from_config(given.config, given.options)
    masked = {
        "config": {**given.config, "model": {"dropout": 0.1, "hub_token": MASK}},
        "options": {"optimizer": {"adam": {"lr": 0.001, "api_key": MASK}}},
    }
    config = trial_config(masked, {"optimizer": "adam"}, seed=1, secrets=secrets)
    assert config["optimizer"] == {"lr": 0.001, "api_key": "canary-option"}
    assert config["model"]["hub_token"] == "canary-model"
    assert "canary" not in repr(secrets)
    assert "canary" not in repr(Session(trial_secrets=secrets))


def test_a_session_that_does_not_know_a_secret_says_which():
    masked = {"config": {"model": {"hub_token": MASK}}, "options": {}}
    with pytest.raises(ConfigError, match=r"model\.hub_token"):
        trial_config(masked, {}, seed=1)
    with pytest.raises(ConfigError, match=r"model\.hub_token"):
        NO_SECRETS.check_complete(masked["config"], masked["options"])
    NO_SECRETS.check_complete({"tracking": {"password": MASK}}, {})  # no trial is built from it
