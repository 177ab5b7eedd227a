"""The command that trains the winner again is one that Hydra reads back to the same values."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dlsearch.report.facts.command import hydra_value, reproduce
from dlsearch.report.load import view


@pytest.mark.parametrize(
    "value",
    [
        *(0.1, 1e-05, 3, True, None, [1, 2], ["a b", 0.5], {"a": 1}),
        *("relu", "1e-3", "true", "null", "a b", "a,b", "it's", "end\\", "\\'", "x=1", "", "ü"),
    ],
)
def test_hydra_reads_the_value_back(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    read = override.value()
    plain = getattr(read, "text", read)
    if isinstance(plain, list):
        plain = [getattr(v, "text", v) for v in plain]
    assert plain == value


def test_the_winner_is_trained_by_what_is_no_search(record: dict[str, Any]) -> None:
    command = reproduce(view(record))["winner"]
    assert command is not None
    words = shlex.split(command)
    winner = record["trials"][record["winner"]["number"]]
    assert words[:2] == ["dlsearch", "experiment=quickstart"]
    final = record["finalization"]
    assert words[-1] == f"seed={final['seeds'][final['kept']['replica']]}"
    assert f"optimizer.lr={winner['params']['optimizer.lr']!r}" in words
    assert sum(w.startswith("model=") for w in words) == 1
    assert not any(w.startswith("study.") for w in words)
    assert "worker.threads=1" in words


def test_it_names_the_files_the_goal_and_the_threads_that_the_study_had(
    record: dict[str, Any],
) -> None:
    study = record["study"]
    typed = [
        "experiment=quickstart",
        "study.objective=val_acc",
        "study.n_trials=3",
        "pruner=median",
        "pruner.x=1",
    ]
    typed += ["sampler.seed=1", "+task.depth=choice(1,2)"]
    study["overrides"] = typed
    study["command"] = shlex.join(
        ["dlsearch", "--config-dir", "my conf", "-cd=other", "-m", *typed]
    )
    study["space"].append({"name": "task.depth", "added": True})
    final = record["finalization"]
    winner = next(each for each in final["configurations"] if each["winner"])
    winner["params"]["task.depth"] = 2
    kept = next(r for r in winner["replicas"] if r["replica"] == final["kept"]["replica"])
    kept["threads"] = 3
    command = reproduce(view(record))["winner"]
    assert command is not None
    words = shlex.split(command)
    assert words[:6] == [
        "dlsearch", "--config-dir", "my conf", "-cd=other", "experiment=quickstart", "study.objective=val_acc",
    ]  # fmt: skip
    assert "++task.depth=2" in words
    assert words[-2:] == ["worker.threads=3", f"seed={kept['seed']}"]
    assert not any(w.startswith(("pruner", "sampler", "study.n")) for w in words)


def test_the_whole_study_is_repeated_into_a_store_of_its_own(record: dict[str, Any]) -> None:
    assert shlex.split(reproduce(view(record))["again"])[-2:] == ["--store", "again"]


def test_verbs_look_where_the_study_is(record: dict[str, Any]) -> None:
    record["study"]["overrides"] += ["paths.store=my runs", "study.storage=sqlite:///s.db"]
    commands = reproduce(view(record))
    again = shlex.split(commands["again"])
    assert again[-3:] == ["--store", "again", "paths.store=my runs"]
    for key in ("verify", "predict"):
        words = shlex.split(commands[key] or "")
        assert words[-2:] == ["paths.store=my runs", "study.storage=sqlite:///s.db"]


def test_a_record_without_a_command_names_no_files(record: dict[str, Any]) -> None:
    record["study"].pop("command")
    commands = reproduce(view(record))
    assert commands["study"] is None
    words = shlex.split(commands["winner"] or "")
    assert words[:2] == ["dlsearch", "experiment=quickstart"]
