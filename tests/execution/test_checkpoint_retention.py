"""Which checkpoints stay: never fewer than the winner's and what is in use, never more than was asked for."""

from __future__ import annotations

import json

import pytest

from dlsearch.execution import checkpoint_retention
from dlsearch.execution.checkpoint_retention import Keeper, KeepSettings, plan, remove
from tests.study.studies import complete, draft, failed, holder, opened

SIZE = 1000


def train(study, store, result):
    """A trial with its files: the best checkpoint has become the previous one."""
    claim = study.claim(holder())
    ckpt = store / f"studies/s/t{claim.number:05d}/ckpt"
    ckpt.mkdir(parents=True)
    (ckpt / "last.ckpt").write_bytes(bytes(SIZE))
    (ckpt / "best.ckpt").write_bytes(bytes(SIZE))
    (ckpt / "previous.ckpt").hardlink_to(ckpt / "best.ckpt")
    if result is not None:
        assert study.finish(claim, result)
    return claim


@pytest.fixture
def study(tmp_path):
    given = draft(9, study={"finalize": False, "keep": {"top_k": 2, "max_gib": None}})
    study = opened(tmp_path, given)
    yield study
    study.storage.close()


@pytest.fixture
def trained(study, tmp_path):
    """Six that ended, one that runs, one that waits to go on."""
    for value in (0.1, 0.9, 0.3, 0.8, 0.2):
        train(study, tmp_path, complete(value))
    train(study, tmp_path, failed("nan"))
    train(study, tmp_path, None)
    waiting = train(study, tmp_path, None)
    study.release(waiting)
    (tmp_path / "studies/s/t00000/ckpt/last.part99").write_bytes(bytes(10))
    (tmp_path / "studies/s/t00000/journal.a1.jsonl").touch()
    return study


def left(store):
    found = {}
    for path in sorted(store.glob("studies/s/t*/ckpt/*")):
        found.setdefault(int(path.parent.parent.name[1:]), set()).add(path.name)
    return found


ALL = {"last.ckpt", "best.ckpt", "previous.ckpt"}


def test_the_best_stay_and_what_may_go_on_keeps_everything(trained, tmp_path):
    going = plan(trained, tmp_path)
    everything = left(tmp_path)
    assert left(tmp_path) == everything, "a plan removes nothing"
    assert remove(going) == sum(each.size for each in going)
    assert left(tmp_path) == {1: {"best.ckpt"}, 3: {"best.ckpt"}, 6: ALL, 7: ALL}
    assert (tmp_path / "studies/s/t00000/journal.a1.jsonl").exists()
    assert plan(trained, tmp_path) == []


def test_what_a_file_under_two_names_gives_back_is_counted_once(trained, tmp_path):
    sizes = {
        str(each.path.relative_to(tmp_path / "studies/s")): each.size
        for each in plan(trained, tmp_path)
    }
    assert sizes["t00001/ckpt/last.ckpt"] == SIZE
    assert sizes["t00001/ckpt/previous.ckpt"] == 0, "best.ckpt stays, and is the same file"
    assert sizes["t00000/ckpt/best.ckpt"] + sizes["t00000/ckpt/previous.ckpt"] == SIZE


def test_a_cap_takes_the_worst_first_and_never_the_winner(trained, tmp_path):
    def kept(**given):
        gone = {each.path for each in plan(trained, tmp_path, given)}
        return [n for n in range(6) if tmp_path / f"studies/s/t{n:05d}/ckpt/best.ckpt" not in gone]

    running = 4 * SIZE  # of the two that may go on
    assert kept(top_k=None) == [0, 1, 2, 3, 4]
    assert kept(top_k=None, max_gib=(running + 3 * SIZE) / 2**30) == [1, 2, 3]
    assert kept(max_gib=(running + SIZE) / 2**30) == [1]
    assert kept(max_gib=0.0) == [1]
    assert kept(top_k=1) == [1]


def test_a_worker_keeps_them_in_bounds_as_trials_end(study, tmp_path):
    keeper = Keeper(study, tmp_path)
    for value, expected in ((0.5, {0}), (0.9, {0, 1}), (0.7, {1, 2}), (0.1, {1, 2}), (0.8, {1, 4})):
        claim = train(study, tmp_path, complete(value))
        keeper.ended(claim.number)
        assert left(tmp_path) == {number: {"best.ckpt"} for number in expected}
    claim = train(study, tmp_path, failed("nan"))
    keeper.ended(claim.number)
    assert set(left(tmp_path)) == {1, 4}
    claim = train(study, tmp_path, complete(0.99))
    Keeper(study, tmp_path).ended(claim.number)  # another worker, which knows of no earlier one
    assert set(left(tmp_path)) == {1, 6}


def test_all_stay_where_that_is_wanted(tmp_path):
    study = opened(
        tmp_path, draft(3, study={"finalize": False, "keep": {"top_k": None, "max_gib": None}})
    )
    keeper = Keeper(study, tmp_path)
    for value in (0.5, 0.9, 0.1):
        keeper.ended(train(study, tmp_path, complete(value)).number)
    assert left(tmp_path) == {n: {"best.ckpt"} for n in range(3)}
    study.storage.close()


def test_the_verb_says_what_would_go_and_then_removes_it(trained, tmp_path, capsys):
    from dlsearch.cli.commands.gc import gc
    from dlsearch.cli.main import guarded

    trained.storage.close()
    where = [f"paths.store={tmp_path}"]
    before = left(tmp_path)
    assert gc(["s", "--dry-run", "--top-k", "1", *where]) == 0
    said = capsys.readouterr().out
    assert "would remove studies/s/t00003/ckpt/best.ckpt (1000 B): not among the 1 best" in said
    assert said.splitlines()[-1].startswith("would remove 18 files, ")
    assert left(tmp_path) == before
    assert gc(["--json", *where]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["removed"] is True
    assert {
        "study": "s",
        "path": "studies/s/t00000/ckpt/last.part99",
        "bytes": 10,
        "why": "the trial has ended",
    } in (document["files"])
    assert set(left(tmp_path)) == {1, 3, 6, 7}
    for words in (["absent"], ["s", "--top-k", "0"], ["s", "--max-gib", "-1"]):
        assert guarded(lambda words=words: gc([*words, *where])) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_settings_of_an_older_study_are_the_defaults(study):
    del study.document["config"]["study"]["keep"]
    assert checkpoint_retention.settings(study) == KeepSettings(10, None)
    assert checkpoint_retention.settings(study, {"max_gib": 2.0}) == KeepSettings(10, 2.0)
