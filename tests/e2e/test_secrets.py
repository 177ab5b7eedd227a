"""Canary secrets, put in wherever a secret can stand; looked for wherever a study writes or says something."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from dlsearch.core import masking

#: Where a secret stands, and the secret.
CANARIES = {
    "an argument of the user's model": "canary-argument-5f2d",
    "a nested mapping of credentials": "canary-nested-81c7",
    "an environment variable": "canary-environment-d03b",
    "an environment variable that the config names": "canary-interpolated-77ae",
    "a URL's password": "canary-url-9e14",
    "a YAML of the user's": "canary-yaml-4b60",
    "a key of a service": "canary-service-3c9a",
    "a source's name and password": "canary-dsn-e6f1",
}
MODEL = """
import base64, hashlib, logging, sys, torch, urllib.parse
class Net(torch.nn.Module):
    def __init__(self, in_shape, num_classes, hub_token, source, credentials, other, api_key, openai_key,
                 database_dsn, width=8):
        super().__init__()
        layers = torch.nn.Flatten(), torch.nn.LazyLinear(width), torch.nn.Linear(width, num_classes)
        self.net = torch.nn.Sequential(*layers)
        self.net(torch.zeros(2, *in_shape))
        self.said = f"{hub_token} {source} {credentials} {other} {api_key} {openai_key} {database_dsn}"
        self.steps = 0
    def forward(self, x):
        self.steps += 1
        if self.steps == 1:
            print("digest", hashlib.sha256(self.said.encode()).hexdigest())
            print("on the way out:", self.said, flush=True)
            print("and on the other:", self.said, file=sys.stderr, flush=True)
            for piece in self.said:
                print(piece, end="", flush=True)
            print(" was said piece by piece")
            print(*(base64.b64encode(b"u:" + each.encode()).decode() for each in self.said.split()))
            print(self.said.encode().hex(), urllib.parse.quote(self.said, safe=""))
            logging.getLogger("pytorch_lightning").error("logged: %s", self.said)
            sys.stdout.buffer.write(b"bytes: " + self.said.encode())
        if self.net[1].out_features == 13 and self.steps > 2:
            raise RuntimeError(f"cannot reach the hub with {self.said}")
        return self.net(x)
"""
YAML = """
_target_: theirs.Net
in_shape: ${data.shape}
num_classes: ${data.num_classes}
hub_token: ???
source: ???
credentials: {user: somebody, password: canary-nested-81c7}
other: ${oc.env:THEIR_THING}
openai_key: canary-service-3c9a
database_dsn: canary-dsn-e6f1
api_key: canary-yaml-4b60
width: 8
"""


@pytest.fixture(scope="module")
def study(place, warm, forks):
    """A study whose user's model prints its secrets, and fails with them in its message."""
    site = place("secrets", cold=True)
    (site.folder / "theirs.py").write_text(MODEL)
    (site.folder / "conf/model").mkdir(parents=True)
    (site.folder / "conf/model/theirs.yaml").write_text(YAML)
    subprocess.run(["git", "init", "-q"], cwd=site.folder, check=True)
    words = ["--config-dir", "conf", "-m", "model=theirs", "allow_targets=[theirs]", "study.name=secrets",
             "model.hub_token=canary-argument-5f2d", "model.source=https://me:canary-url-9e14@host.invalid/x",
             "study.n_trials=3", "model.width=choice(8,13)", "study.enqueue=[{model.width: 13}]", "space=none",
             "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.train_size=128", "data.val_size=64",
             "study.confirm={top: 1, seeds: 1}", "tracking.system_metrics_s=null"]  # fmt: skip
    env = {"HUB_API_KEY": "canary-environment-d03b", "THEIR_THING": "canary-interpolated-77ae"}
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    line = path.read_text(errors="replace")
                    # what the user typed is the user's
                    if "canary-" in line and "study.name=secrets" not in line:
                        seen.add(line)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = site.run(*words, env=env)
    finally:
        over.set()
        watcher.join()
    site.warm, site.forks = warm, forks  # none of which knows a secret
    verbs = {
        verb: site.run(*verb.split())
        for verb in (
            "status secrets --json",
            "trials secrets --json",
            "status secrets",
            "trials secrets",
        )
    }
    return site, said, seen, verbs


def _leaks(data: bytes | str) -> list[str]:
    text = data if isinstance(data, bytes) else data.encode()
    return [
        where
        for where, secret in CANARIES.items()
        if any(form in text for form in _forms(secret.encode()))
    ]


@functools.cache
def _forms(secret: bytes) -> list[bytes]:
    """What no sink may hold: the secret, and what of it stands in base64 wherever it begins, and in hex."""
    within = [base64.b64encode(b"u" * at + secret + b"v")[4 : len(secret)] for at in range(3)]
    return [secret, *within, secret.hex().encode(), quote(secret).replace("-", "%2D").encode()]


def _files(site, *patterns):
    found = [path for pattern in patterns for path in site.store.glob(pattern) if path.is_file()]
    assert found, patterns
    return found


@pytest.mark.storm
def test_it_ran_and_met_the_secrets(study):
    site, _, _, _ = study
    states = site.states()
    assert states["COMPLETE"] >= 1
    assert states["FAIL"] >= 1
    log = "".join(path.read_text() for path in _files(site, "studies/secrets/**/worker.a*.log"))
    assert "on the way out: ***" in log
    assert "cannot reach the hub with ***" in log
    assert "was said piece by piece" in log
    assert "logged: ***" in log
    assert "bytes: ***" in log


@pytest.mark.storm
def test_the_trials_had_the_secrets_themselves(study):
    site, _, _, _ = study
    credentials = {"user": "somebody", "password": "canary-nested-81c7"}
    said = (
        f"canary-argument-5f2d https://me:canary-url-9e14@host.invalid/x {credentials} "
        "canary-interpolated-77ae canary-yaml-4b60 canary-service-3c9a canary-dsn-e6f1"
    )
    digest = hashlib.sha256(said.encode()).hexdigest()
    texts = [path.read_text() for path in _files(site, "studies/secrets/**/worker.a*.log")]
    assert sum(f"digest {digest}" in text for text in texts) >= 4  # three trials and a confirmation
    assert not any(
        line.startswith("digest") and digest not in line
        for text in texts
        for line in text.splitlines()
    )


@pytest.mark.storm
def test_a_worker_that_does_not_know_them_says_so(study):
    site, _, _, _ = study
    said = site.run("worker", "study=secrets", code=2)
    assert "model.hub_token" in said
    assert "oc.env" in said


SINKS = {
    "the study's database": ["dlsearch.db*"],
    "MLflow's database": ["mlflow.db*"],
    "the journals": ["**/*.jsonl"],
    "the logs": ["**/*.log"],
    "the configs": ["**/config.yaml"],
    "the tracebacks": ["**/traceback.txt"],
    "the checkpoints": ["**/*.ckpt"],
    "MLflow's artifacts": ["artifacts/**/*"],
    "the report as JSON": ["studies/secrets/report/report.json"],
    "the report as a page": [
        "studies/secrets/report/index.html",
        "studies/secrets/report/report.md",
    ],
}


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.storm
def test_no_secret_reaches(study, sink):
    site, _, _, _ = study
    leaks = {
        str(path.relative_to(site.store)): _leaks(path.read_bytes())
        for path in _files(site, *SINKS[sink])
    }
    assert {path: found for path, found in leaks.items() if found} == {}


@pytest.mark.storm
def test_nor_any_other_file_of_the_store(study):
    site, _, _, _ = study
    assert [path for path in _files(site, "**/*") if _leaks(path.read_bytes())] == []


@pytest.mark.storm
def test_nor_the_terminal(study):
    _, said, _, verbs = study
    assert _leaks(said) == []
    assert {verb: _leaks(text) for verb, text in verbs.items() if _leaks(text)} == {}
    assert json.loads(verbs["trials secrets --json"])


@pytest.mark.storm
def test_nor_the_command_line_of_a_process_of_ours(study):
    assert study[2] == set()


@pytest.mark.storm
def test_nor_a_column_of_the_database_in_another_form(study):
    site, _, _, _ = study
    with closing(sqlite3.connect(site.store / "dlsearch.db")) as connection:
        assert _leaks("\n".join(connection.iterdump())) == []


def test_what_was_learned_is_replaced_anywhere():
    masking.learn({"a": {"hub_token": "abcdef12"}, "uri": "postgresql://me:pw-123456@host/db"})
    assert masking.mask_text("ValueError: abcdef12 at pw-123456") == "ValueError: *** at ***"
    assert masking.mask({"note": "abcdef12"}) == {"note": "***"}
    assert masking.mask_code("x = 'abcdef12'") == "x = '***'"


@pytest.mark.parametrize(
    "harmless", [{"n_tokens": "twelve hundred"}, {"token": "abc"}, {"token_mixer": "attention"}]
)
def test_what_is_no_secret_is_not_learned(harmless):
    masking.learn(harmless)
    for value in harmless.values():
        assert masking.mask_text(f"say {value}") == f"say {value}"


def test_the_environment_is_learned(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "abcdef12")
    masking.learn_environment()
    assert masking.mask_text("it was abcdef12") == "it was ***"
