"""Studies without training, for tests of the search's bookkeeping."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dlsearch.planning.draft import Draft
from dlsearch.planning.open_study import document_of, open_study
from dlsearch.sampling.arms import Arms
from dlsearch.space.space import Space
from dlsearch.storage.attempts import Holder
from dlsearch.storage.database import Storage
from dlsearch.study.study import Study

CONFIG: dict[str, Any] = {
    "seed": 0,
    "allow_targets": [],
    "model": {"dropout": 0.1},
    "optimizer": {"lr": 0.001},
    "data": {"name": "none"},
    "trainer": {"max_epochs": 5, "accelerator": "cpu"},
    "worker": {"lease_s": 30.0, "threads": None},
    "tracking": {"project": "test", "enabled": False},
    "paths": {},
    "sampler": {"_target_": "optuna.samplers.RandomSampler"},
    "pruner": None,
}
STUDY = {
    "name": "s", "objective": "val/accuracy", "direction": "maximize", "n_trials": 10, "timeout": None,
    "trial_timeout": None, "target": None, "enqueue": None, "default_first": False, "allow_drift": False,
    "max_attempts": 3, "finalize": True,
    "confirm": {"top": 3, "seeds": 5, "racing": True, "refit": False}, "workers": None, "storage": None,
}  # fmt: skip
SPACE = ["optimizer.lr=tag(log, interval(1e-4, 1e-1))", "model.dropout=choice(0.0, 0.25, 0.5)"]


def draft(n_trials: int = 10, *, space: list[str] | None = None, **changes: Any) -> Draft:
    """A draft as the composed config would give it."""
    study = {**STUDY, "n_trials": n_trials, **changes.pop("study", {})}
    config = {**CONFIG, "study": study, **changes.pop("config", {})}
    found, _ = Space.from_sources(None, None, SPACE if space is None else space, groups=set())
    fields: dict[str, Any] = {
        "name": "s", "config": config, "options": {}, "space": found, "objectives": ["val/accuracy"],
        "directions": ["maximize"], "enqueue": [], "default": None, "choices": {"data": "none"}, "overrides": [],
    }  # fmt: skip
    made = Draft(**{**fields, **changes})
    made.arms = Arms.of_study(made.space, study)
    return made


@functools.cache
def _empty() -> bytes:
    """A database as the first start makes it: the tables are copied where it is not their making that is tested."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dlsearch.db")
        Storage(f"sqlite:///{path}").close()
        assert not Path(f"{path}-wal").exists(), (
            "the last connection has written everything into the file"
        )
        return path.read_bytes()


def opened(folder: Path, given: Draft | None = None, *, lease_s: float = 30.0) -> Study:
    """An open study on SQLite in `folder`."""
    given = given or draft()
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    database = folder / "dlsearch.db"
    if not database.exists():
        database.write_bytes(_empty())
    storage = Storage(f"sqlite:///{database}")
    return open_study(storage, given, document, lease_s=lease_s)[0]


def holder(worker: str = "w1", slot: int = 0) -> Holder:
    """Somebody who claims."""
    return Holder(worker, "host", 1, slot, f"cpu:{slot}")


def complete(value: float = 0.5) -> dict[str, Any]:
    """A result."""
    return {
        "state": "complete",
        "reason": None,
        "error": None,
        "values": [value],
        "epochs": 5,
        "summary": {},
    }


def failed(reason: str) -> dict[str, Any]:
    """A failure."""
    return {"state": "failed", "reason": reason, "error": reason, "values": None}


def nothing_is_left_of_a_result_that_fails(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every database: a result is written and told in one transaction, or not at all; and then it is told again."""
    claim = study.claim(holder())
    assert claim is not None
    with monkeypatch.context() as patch:
        patch.setattr(study, "_tell", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(OSError, match="gone"):
            study.finish(claim, complete(0.7))
    assert [a.state for a in study.leases.rows()] == ["running"]
    assert study.finish(claim, complete(0.7)) is True
    assert study.finish(claim, complete(0.8)) is False
    assert [t.value for t in study.trials()] == [0.7]


__all__ = [
    "complete",
    "draft",
    "failed",
    "holder",
    "nothing_is_left_of_a_result_that_fails",
    "opened",
]
