"""A whole small study, with any version of Optuna: storage, sampler, pruner, claims; its outcome.

    python tests/sampling/other_version.py URL [VERSION]

Given a version, Optuna says that it is that one, and every name that it does not promise is gone
for our code: what is imported, attributes of its objects, and its tables.
"""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from typing import Any

import optuna

from tests.versions import is_private, take_away_attributes, take_away_imports

#: Optuna's classes whose objects our code handles.
HANDLED: tuple[type, ...] = (
    optuna.Study,
    optuna.Trial,
    optuna.trial.FrozenTrial,
    optuna.samplers.TPESampler,
    optuna.samplers.RandomSampler,
    optuna.storages.RDBStorage,
    type(optuna.storages.get_storage("sqlite://")),
    optuna.pruners.HyperbandPruner,
    optuna.pruners.SuccessiveHalvingPruner,
)
#: What is not documented, although no underscore says so.
UNDOCUMENTED = ("engine", "scoped_session")
TABLES = re.compile(
    r"(?<![.\w])(studies|study_(directions|\w+_attributes)|trials|trial_(?!timeout_s)\w+)\b"
)


def take_away_tables(engine: Any) -> None:
    from sqlalchemy import event

    @event.listens_for(engine, "before_cursor_execute")
    def check(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if found := TABLES.search(statement):
            raise RuntimeError(f"the table {found[0]} is gone: {statement}")


def outcome(url: str, version: str | None) -> dict[str, Any]:
    """Claim, report, finish, release, lose and confirm; what is left of it."""
    from dlsearch.confirmation.rounds import Rounds
    from dlsearch.execution import checkpoint_retention
    from dlsearch.planning.open_study import document_of, open_study
    from dlsearch.records.record import read_record
    from dlsearch.records.status import read_status
    from dlsearch.storage.database import Storage
    from dlsearch.study.study import Study
    from tests.study.studies import complete, draft, failed, holder

    sampler = {
        "_target_": "optuna.samplers.TPESampler",
        "n_startup_trials": 4,
        "multivariate": True,
        "group": True,
    }
    pruner = {
        "_target_": "dlsearch.sampling.pruners.Hyperband",
        "min_resource": 1,
        "max_resource": 5,
    }
    given = draft(16, config={"sampler": sampler, "pruner": pruner})
    storage = Storage(url)
    if version is not None:
        take_away_tables(storage.engine)
    document = document_of(given, {}, {"provenance": {}, "sha": {"env": "e", "code": "c"}})
    study: Study = open_study(storage, given, document, lease_s=30.0)[0]
    again = None
    for step in range(60):
        claim = study.claim(holder())
        if claim is None:
            break
        if step == 3:
            assert study.release(claim)
            continue
        if step == 5:
            assert study.lose(claim, "its process died")
            continue
        if step == 7:
            again = claim.number
            assert study.finish(claim, failed("nan"))
            continue
        value = -abs(math.log10(claim.params["optimizer.lr"]) + 2.5) + claim.params["model.dropout"]
        verdicts = [study.report(claim, epoch, value - 1 / (epoch + 1)) for epoch in range(3)]
        pruned = any(verdicts)
        result = (
            {**complete(value), "state": "pruned", "values": None} if pruned else complete(value)
        )
        assert study.finish(claim, result)
        assert study.finish(claim, complete(9.0)) is (result == complete(9.0))
    assert again is not None
    status, record = read_status(study).to_json(), read_record(study).to_json()
    finalist = Rounds(study).claim(holder())
    assert finalist is not None
    left = {
        "best": status["best"],
        "counts": status["counts"],
        "winner": record["winner"],
        "trials": [
            [t["number"], t["state"], t["reason"], t["params"], t["value"]]
            for t in record["trials"]
        ],
        "attempts": [[a["state"] for a in t["attempts"]] for t in record["trials"]],
        "ranked": checkpoint_retention._ranked(study),
        "finalist": [finalist.finalist.trial_number, finalist.seed],
        "running": len(study.trials()) - sum(t.state.is_finished() for t in study.trials()),
    }
    storage.close()
    return left


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    url, version = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    if version is not None:
        optuna.__version__ = version
        take_away_imports("optuna")
        for kind in HANDLED:
            take_away_attributes(kind, lambda name: is_private(name) or name in UNDOCUMENTED)
    sys.stdout.write(json.dumps(outcome(url, version)))
