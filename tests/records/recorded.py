"""Studies without training whose records are the same whenever, and wherever, they are made."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlsearch.confirmation.rounds import Rounds
from dlsearch.study.models import ConfirmClaim
from dlsearch.study.study import Study
from dlsearch.tracking import layout
from tests.study.studies import complete, draft, failed, holder, opened

DOCUMENTS = Path(__file__).parent / "documents"
DEFAULTS = {"optimizer.lr": 0.001, "model.dropout": 0.0}
UUID = "0123456789abcdef0123456789abcdef"
EPOCH = 1_700_000_000.0  # seconds since 1970
CHOICES = ["optimizer.lr=choice(0.001, 0.01)", "model.dropout=choice(0.0, 0.5)"]


def trained(value: float, **more: Any) -> dict[str, Any]:
    """All that a training says at its end."""
    return {
        **complete(value),
        "best_epoch": 2,
        "best_step": 30,
        "n_params": 1234,
        "summary": {"val/accuracy": value, "val/loss": 1 - value},
        "seconds": 1.5,
        "history": [[0, 0.1], [1, value]],
        "peak_memory_mib": 12.5,
        "micro_batches": 2,
        "state_sha256": "ab" * 32,
        "metrics_sha256": "cd" * 32,
        "split_sha256": {"train": "ef", "val": "01"},
        "inputs": {"config": "23", "threads": 1},
        "resumed_epoch": None,
        "nondeterministic": ["an operation"],
        "breaches": [{"how": "file", "what": "test.npy", "stopped": True}],
        **more,
    }


def finish_study(study: Study, _store: Path) -> None:
    """Complete, pruned, failed and lost ones, duplicates, a given set and the default."""
    first = study.claim(holder())
    assert first is not None
    study.leases.renew({first.token}, {first.token: {"epoch": 1, "max_epochs": 5, "value": 0.3}})
    study.report(first, 0, 0.3)
    assert study.release(first)
    for number in range(8):
        claim = study.claim(holder(f"w{number % 2}", number % 2))
        if claim is None:
            break
        study.report(claim, 0, 0.2)
        study.report(claim, 1, 0.4 + claim.number / 100)
        if claim.number == 1:
            study.finish(claim, failed("nan"))
        elif claim.number == 2:
            pruned = trained(0.1, values=None, state="pruned", epochs=2, best_epoch=None)
            study.finish(claim, pruned)
        else:
            study.finish(claim, trained(0.5 + claim.number / 100))
    row = study.ledger.opened("ensemble", None, 7)
    metrics = {"test/accuracy": 0.75}
    study.ledger.scored(row, {"metrics": metrics, "n": 9, "ensemble": {"by": "logits"}})
    study.ledger.opened("confirm", 3, 8)
    study.settle(interrupted=False, confirmed=True)


def leave_running(study: Study, store: Path) -> None:
    """A trial that is at work, one whose end is not yet recorded, and one that waits again."""
    done = study.claim(holder())
    assert done is not None
    study.finish(done, complete(0.4))
    for slot in range(3):
        claim = study.claim(holder("w1", slot))
        assert claim is not None
        if slot == 0:
            progress = {"epoch": 3, "max_epochs": 5, "value": 0.6, "micro_batches": 2}
            study.leases.renew({claim.token}, {claim.token: progress})
        elif slot == 1:
            folder = store / layout.pending_folder(study.name)
            folder.mkdir(parents=True)
            (folder / f"{claim.token}.json").write_text("{}", encoding="utf-8")
        else:
            assert study.release(claim)


def search_and_confirm(study: Study, *, until: int | None = None) -> None:
    """Search, and train the finalists again, to the end or until a number of trainings.

    One replica fails, and racing drops a configuration.
    """
    while (trial := study.claim(holder())) is not None:
        study.finish(trial, trained((0.5, 0.7, 0.9, 0.6)[trial.number]))
    rounds = Rounds(study)
    count = 0
    while (claim := rounds.claim(holder())) is not None:
        count += 1
        if until is not None and count > until:
            progress = {"epoch": 1, "max_epochs": 5, "value": None}
            study.leases.renew({claim.token}, {claim.token: progress})
            return
        end_part(study, rounds, claim)
    study.settle(interrupted=False, confirmed=rounds.done())


def end_part(study: Study, rounds: Rounds, claim: ConfirmClaim) -> None:
    """End a part of the confirmation as its kind, its finalist and its seed have it."""
    if claim.kind == "test":
        row = study.ledger.opened("confirm", claim.finalist.trial_number, claim.seed)
        now = rounds.last()
        assert now is not None
        runs, _ = now.to_score(study.max_attempts)
        each = [{"test/accuracy": 0.75 + index / 100} for index in range(len(runs))]
        test = {"metrics": each[0], "n": 7, "first_layer": None, "each": each}
        assert rounds.score(claim, {"state": "complete", "test": test}, row)
    elif claim.kind == "refit":
        study.finish(claim, trained(0.5, values=None))
    elif claim.finalist.trial_number == 0 and claim.replica == 1:
        study.finish(claim, failed("oom"))
    else:
        base, step = {2: (0.80, 0.002), 1: (0.85, 0.001)}.get(
            claim.finalist.trial_number, (0.5, 0.001)
        )
        study.finish(claim, trained(base + step * (claim.replica or 0)))


def confirm_study(study: Study, _store: Path) -> None:
    """A study that is over and confirmed, with a training on train + validation."""
    search_and_confirm(study)


def leave_confirming(study: Study, _store: Path) -> None:
    """A study whose finalists are being trained again."""
    search_and_confirm(study, until=3)


def search_two_objectives(study: Study, _store: Path) -> None:
    """A study that has a front in place of a winner."""
    for values in ([0.9, 1.0], [0.8, 2.0], [0.7, 3.0], [0.9, 5.0]):
        claim = study.claim(holder())
        assert claim is not None
        study.finish(claim, {**complete(), "values": values})
    study.settle(interrupted=False, confirmed=True)


def fail_study(study: Study, _store: Path) -> None:
    """A study that is over, and of which no trial completed."""
    while (claim := study.claim(holder())) is not None:
        study.finish(claim, failed("exception"))
    study.settle(interrupted=False, confirmed=True)


STUDIES: dict[str, tuple[dict[str, Any], Callable[[Study, Path], None]]] = {
    "finished": (
        {
            "n_trials": 8,
            "space": CHOICES,
            "default": DEFAULTS,
            "enqueue": [{"optimizer.lr": 0.01, "model.dropout": 0.5}],
            "study": {"finalize": False},
        },
        finish_study,
    ),
    "running": ({"n_trials": 6, "space": CHOICES}, leave_running),
    "confirmed": (
        {
            "n_trials": 4,
            "default": DEFAULTS,
            "defaults": DEFAULTS,
            "study": {"confirm": {"top": 2, "seeds": 4, "racing": True, "refit": True}},
        },
        confirm_study,
    ),
    "confirming": (
        {
            "n_trials": 4,
            "default": DEFAULTS,
            "defaults": DEFAULTS,
            "study": {"confirm": {"top": 2, "seeds": 2, "racing": False, "refit": False}},
        },
        leave_confirming,
    ),
    "two_objectives": (
        {
            "n_trials": 4,
            "directions": ["maximize", "minimize"],
            "objectives": ["val/accuracy", "val/seconds"],
        },
        search_two_objectives,
    ),
    "failed": ({"n_trials": 2, "study": {"finalize": False}}, fail_study),
}


def make_study(name: str, folder: Path) -> Study:
    """The study of that name in :data:`STUDIES`, open, with all times and ids set to constants."""
    settings, run = STUDIES[name]
    changes = dict(settings)
    study = opened(folder, draft(changes.pop("n_trials"), **changes))
    run(study, folder)
    study.storage.close()
    with sqlite3.connect(folder / "dlsearch.db") as connection:
        _set_constants(connection)
    connection.close()
    return Study(study.storage, study.name)


def _set_constants(connection: sqlite3.Connection) -> None:
    (text,) = connection.execute("SELECT document FROM dlsearch_study").fetchone()
    document = json.dumps({**json.loads(text), "uuid": UUID})
    connection.execute(
        "UPDATE dlsearch_study SET created = ?, seconds = 12.3456, uuid = ?, document = ?",
        (EPOCH, UUID, document),
    )
    connection.execute("UPDATE dlsearch_attempt SET started = ? + 10 * id", (EPOCH,))
    connection.execute(
        "UPDATE dlsearch_attempt SET ended = started + 4.5 + id / 1000.0 WHERE ended IS NOT NULL"
    )
    connection.execute(
        "UPDATE dlsearch_test_evaluation SET opened = ? + 500 + id, study_uuid = ?", (EPOCH, UUID)
    )
    connection.commit()
