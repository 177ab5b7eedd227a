"""What is looked at before a trial is trained again, and how results are compared."""

from __future__ import annotations

import copy
import json

import pytest

from dlsearch.core import provenance
from dlsearch.core.errors import ConfigError
from dlsearch.study.trial_config import trial_config
from dlsearch.training import inputs
from dlsearch.verification import report_file as reports
from dlsearch.verification import reproduce
from dlsearch.verification.retrain import compare, repeatable, sample

DOCUMENT = {
    "config": {"seed": 7, "optimizer": {"lr": 0.1, "momentum": 0.9}, "trainer": {"accelerator": "cpu"}, "paths": {},
               "worker": {"threads": 1}},
    "fixed": {"seed": 7, "optimizer": {"lr": 0.1, "momentum": 0.9}, "trainer": {"accelerator": "cpu"}},
    "options": {}, "provenance": {"threads": 1, "python": "3.11.1", "installed": {"torch": "2.8.0", "numpy": "2.0"},
                                  "code": {"dlsearch/a.py": "aa", "mine/b.py": "bb"}},
    "sha": {"env": "E", "code": "C"},
}  # fmt: skip
SPLITS = {"train": "t", "val": "v"}


def trained(params=None, seed=11, threads=1):
    """A trial's row, its inputs as its process would have met them."""
    params = {"optimizer.lr": 0.03} if params is None else params
    payload = {
        "cfg": trial_config(DOCUMENT, params, seed=seed, paths={"store": "/somewhere"}),
        "params": params,
        "origin": {"env": "E", "code": "C"},
    }
    found = {**inputs.met(payload), "threads": threads}
    found["sha256"] = provenance.digest({k: v for k, v in found.items() if k != "sha256"})
    return {
        "number": 3,
        "params": params,
        "seed": seed,
        "inputs": found,
        "split_sha256": dict(SPLITS),
    }


def named(found):
    return [each.input for each in found]


def tampered(document=DOCUMENT, trial=None, seed=11):
    trial = trial or trained()
    return named(
        inputs.tampered(document, trial, trial_config(document, trial["params"], seed=seed))
    )


def changed(**parts):
    document = copy.deepcopy(DOCUMENT)
    for path, value in parts.items():
        *parents, last = path.split("__")
        node = document
        for part in parents:
            node = node[part]
        node[last] = value
    return document


def test_a_record_that_nobody_touched():
    assert tampered() == []
    assert (
        tampered(changed(config__paths={"store": "/elsewhere"}, config__worker={"threads": 4}))
        == []
    )


@pytest.mark.parametrize(("document", "name"), [
    (changed(config__optimizer__momentum=0.8), "optimizer.momentum"),
    (changed(config__optimizer__momentum=0.8, fixed__optimizer__momentum=0.8), "config"),
    (changed(config__extra={"a": 1}), "config"),
])  # fmt: skip
def test_a_config_value_that_was_changed_in_the_record(document, name):
    assert tampered(document) == [name]


def test_a_searched_value_that_was_changed_in_the_record():
    trial = trained()
    trial["params"] = {"optimizer.lr": 0.04}
    assert tampered(trial=trial) == ["optimizer.lr"]


def test_a_seed_that_was_changed_in_the_record():
    assert tampered(seed=12) == ["seed"]


@pytest.mark.parametrize(("key", "value", "name"), [
    ("threads", 2, "threads"), ("env", "F", "env"), ("code", "D", "code"), ("capability", "NONE", "inputs"),
])  # fmt: skip
def test_inputs_that_were_changed_in_the_record(key, value, name):
    trial = trained()
    trial["inputs"][key] = value
    assert tampered(trial=trial) == [name]


def here(trial, **changes):
    same = {
        key: trial["inputs"][key]
        for key in ("threads", "capability", "device", "deterministic", "env", "code")
    }
    of = DOCUMENT["provenance"]
    found = {
        **same,
        "python": "3.11.1",
        "installed": of["installed"],
        "files": of["code"],
        "splits": dict(SPLITS),
    }
    return {**found, **changes}


@pytest.mark.parametrize(("changes", "names"), [
    ({}, []),
    ({"threads": 2}, ["threads"]),
    ({"capability": "AVX2!"}, ["capability"]),
    ({"device": "a GPU"}, ["device"]),
    ({"deterministic": "warn"}, ["deterministic"]),
    ({"env": "F", "installed": {"torch": "2.9.0", "numpy": "2.0", "x": "1"}}, ["package torch", "package x"]),
    ({"env": "F", "python": "3.12.0"}, ["python"]),
    ({"env": "F"}, ["environment"]),
    ({"code": "D", "files": {"dlsearch/a.py": "aa", "mine/b.py": "bc"}}, ["code mine/b.py"]),
    ({"code": "D", "files": {"dlsearch/a.py": "aa"}}, ["code mine/b.py"]),
    ({"code": "D"}, ["code"]),
    ({"splits": {"train": "t", "val": "w"}}, ["data val"]),
    ({"splits": None}, []),
])  # fmt: skip
def test_every_input_that_differs_here_is_named(changes, names):
    trial = trained()
    found = inputs.differences(DOCUMENT["provenance"], trial, here(trial, **changes))
    assert named(found) == names
    assert all(json.dumps(each.to_json()) and ": recorded " in str(each) for each in found)


def row(number, state="complete", *, resumed=None, duplicate_of=None, reason=None, digest="d"):
    return {
        "number": number, "state": state, "reason": reason, "duplicate_of": duplicate_of, "resumed_epoch": resumed,
        "state_sha256": digest, "inputs": {},
    }  # fmt: skip


def test_a_sample_holds_every_kind_that_there_is():
    rows = [row(n) for n in range(40)]
    rows[17] = row(17, resumed=3)
    rows[20], rows[21] = row(20, "pruned"), row(21, "pruned")
    rows[30] = row(30, "failed", reason="nan")
    for seed in range(5):
        drawn = sample(rows, 4, seed)
        assert {17, 30} <= set(drawn)
        assert {20, 21} & set(drawn)
        assert drawn == sample(rows, 4, seed) == sorted(set(drawn))
    assert sample(rows, 10, 0) != sample(rows, 10, 1)
    assert sample(rows, 100, 0) == list(range(40))


@pytest.mark.parametrize(("trial", "why"), [
    (row(1, duplicate_of=0), "trial 0"), (row(1, "running"), "running"), (row(1, "waiting"), "waiting"),
    (row(1, "failed", reason="lost"), "lost"), (row(1, digest=None), "no digests"),
])  # fmt: skip
def test_what_cannot_be_repeated_says_why(trial, why):
    assert why in repeatable(trial)
    assert sample([trial, row(2)], 5, 0) == [2]


RESULT = {
    "state": "complete", "reason": None, "values": [0.5], "epochs": 2, "best_epoch": 1, "state_sha256": "a",
    "metrics_sha256": "b", "split_sha256": {"train": "t"}, "intermediate": [[0, 0.25], [1, 0.5]], "seconds": 3.0,
}  # fmt: skip


def test_results_are_compared_without_their_times():
    assert compare(RESULT, {**RESULT, "seconds": 9.0}) == []


@pytest.mark.parametrize(
    "key", ["state", "values", "epochs", "best_epoch", "state_sha256", "metrics_sha256"]
)
def test_whatever_differs_is_named(key):
    (found,) = compare(RESULT, {**RESULT, key: "other"})
    assert (found.what, found.recorded, found.again) == (key, RESULT[key], "other")


def test_where_it_began_is_named():
    again = {**RESULT, "state_sha256": "c", "intermediate": [[0, 0.25], [1, 0.4]], "values": [0.4]}
    assert [each.what for each in compare(RESULT, again)] == [
        "values",
        "state_sha256",
        "objective after epoch 1",
    ]


# -- a study from its report ------------------------------------------------------------------------------------
def report_file(tmp_path, **changes):
    study = {
        "config": {},
        "options": {},
        "space": [],
        "sampler": {},
        "seed": 0,
        "objectives": ["a"],
    }
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": 1, "study": study, "replay": [{}], **changes}))
    return path


@pytest.mark.parametrize(("changes", "said"), [
    ({"schema": 2}, "is no report of a study"),
    ({"study": None}, "is no report of a study"),
    ({"study": {"config": {}}}, "lacks options, space, sampler, seed, objectives"),
    ({"replay": []}, "holds no trial to run again"),
])  # fmt: skip
def test_a_file_that_is_no_whole_report(tmp_path, changes, said):
    with pytest.raises(ConfigError, match=r"^report\.json: ") as error:
        reports.load(report_file(tmp_path, **changes))
    assert said in str(error.value)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        reports.load(tmp_path / "broken.json")


def confirmation(mean, digest="a"):
    replica = {"replica": 0, "seed": 5, "state": "complete", "value": mean, "state_sha256": digest}
    return {"configurations": [{"trial_number": 0, "default": False, "params": {}, "mean": mean, "winner": True,
                                "replicas": [replica]}]}  # fmt: skip


@pytest.mark.parametrize(("now", "equal"), [
    (confirmation(0.5), True), (confirmation(0.25), False), (confirmation(0.5, "b"), False), (None, False),
])  # fmt: skip
def test_confirmed_means_and_weights_are_compared(now, equal):
    winner = {"number": 0, "params": {}, "value": 0.5}
    report = {"replay": [], "again": {"winner": winner, "finalization": confirmation(0.5)}}
    found = reproduce.compare(
        report, {"trials": [], "winner": winner, "finalization": now}
    ).to_json()
    assert found["winner"]["equal"] is True
    assert found["confirmed"]["equal"] is equal
    found = reproduce.compare(
        report, {"trials": [], "winner": {**winner, "number": 1}, "finalization": now}
    ).to_json()
    assert found["winner"]["equal"] is False


def test_no_confirmation_is_no_difference():
    found = reproduce.compare(
        {"replay": [], "again": {"winner": None}}, {"trials": [], "winner": None}
    ).to_json()
    assert (found["confirmed"], found["winner"]["equal"]) == (None, True)


@pytest.mark.parametrize(("change", "verdict", "what"), [
    ({}, "equal", []),
    ({"values": [0.4]}, "different", ["values"]),
    ({"state_sha256": "x"}, "different", ["state_sha256"]),
    ({"params": {"optimizer.lr": 0.1}}, "different", ["params"]),
    ({"intermediate": [[0, 0.3], [1, 0.5]]}, "different", ["intermediate"]),
    ({"number": 8}, "missing", []),
])  # fmt: skip
def test_the_trials_of_two_studies_are_compared_one_by_one(change, verdict, what):
    then = {**trained(), **RESULT, "duplicate_of": None, "resumed_epoch": None}
    record = {"trials": [{**then, **change}], "winner": None}
    (found,) = reproduce.compare({"replay": [then], "again": {"winner": None}}, record).trials
    assert (found.number, found.verdict, [each.what for each in found.differs]) == (
        3,
        verdict,
        what,
    )


def test_what_could_not_be_repeated_is_told_and_a_duplicate_compared_by_its_value():
    lost = {
        **trained(),
        **RESULT,
        "duplicate_of": None,
        "resumed_epoch": None,
        "state": "failed",
        "reason": "lost",
    }
    twin = {
        **trained(),
        **RESULT,
        "number": 4,
        "duplicate_of": 3,
        "inputs": None,
        "state_sha256": None,
    }
    report = {"replay": [lost, twin], "again": {"winner": None}}
    record = {"trials": [lost, {**twin, "epochs": None}], "winner": None}
    found = reproduce.compare(report, record).trials
    assert [each.verdict for each in found] == ["skipped", "equal"]
    assert "lost" in found[0].why
