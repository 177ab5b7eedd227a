"""Running a whole study again from its report alone, in a storage of its own, and comparing.

With an adaptive sampler and several workers the order in which results arrive decides what is
proposed next, and what is pruned. So a replay takes the recorded parameters, trial by trial under
the same numbers (and so seeds), and stops each pruned trial where it was stopped. What remains to
be shown is that the numbers, the winner and its confirmation come out the same. Where proposals
depend on nothing but the study's seed (random sampling), they are drawn again too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.config.build import check_groups
from dlsearch.core import permission, provenance
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.regular import read_json
from dlsearch.core.names import is_name
from dlsearch.sampling.factory import build_sampler
from dlsearch.space.space import Space
from dlsearch.storage.database import Storage, StudyRow
from dlsearch.storage.studies import read_row
from dlsearch.study.documents import check_document, study_document
from dlsearch.study.study import REASON, Study
from dlsearch.tracking import layout
from dlsearch.training.inputs import changed
from dlsearch.verification.retrain import COMPARED, repeatable

#: Samplers whose proposals are a function of the study's seed and the trial's number.
INDEPENDENT = ("optuna.samplers.RandomSampler",)
_COMPARED_OF_CONFIGURATION = ("trial_number", "default", "params", "mean", "winner")
_COMPARED_OF_REPLICA = ("replica", "seed", "state", "value", "state_sha256")
_PRUNER = "dlsearch.sampling.factory.recorded"
#: What a study in a report must have to be run again.
_NEEDED = ("config", "options", "space", "sampler", "seed", "objectives")
_SHOWN_LETTERS = 60
#: What a report leaves out of a trial to run again where it is null or false.
_ABSENT: dict[str, Any] = {
    "reason": None,
    "values": None,
    "intermediate": [],
    "epochs": None,
    "best_epoch": None,
    "duplicate_of": None,
    "default": False,
    "enqueued": False,
    "infeasible": False,
    "resumed_epoch": None,
    "state_sha256": None,
    "metrics_sha256": None,
    "split_sha256": None,
    "inputs": None,
}


def load(path: Path) -> dict[str, Any]:
    """A ``report.json`` that carries enough to run its study again.

    Raises:
        ConfigError: It is none.
    """
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "report.json", f"{path} cannot be read: {str(error).splitlines()[0]}"
        ) from error
    study = report.get("study") if isinstance(report, dict) else None
    if not isinstance(study, dict) or report.get("schema") != 1:
        raise ConfigError("report.json", f"{path} is no report of a study")
    _check_study(path, report, study)
    _check_trials(path, report["replay"])
    return {**report, "replay": [_ABSENT | trial for trial in report["replay"]]}


def _check_study(path: Path, report: Mapping[str, Any], study: Mapping[str, Any]) -> None:
    """Refuse a report that lacks what its study is run from.

    Raises:
        ConfigError: It does.
    """
    lacking = [key for key in _NEEDED if key not in study]
    if lacking or "replay" not in report:
        raise ConfigError(
            "report.json",
            f"{path} lacks {', '.join(lacking or ['replay'])}",
            "dlsearch report NAME",
        )
    if not report["replay"]:
        raise ConfigError("report.json", f"{path} holds no trial to run again")
    if not is_name(study.get("name")):  # it becomes a folder's, and a word of a command
        name = str(study.get("name"))[:_SHOWN_LETTERS]
        raise ConfigError(
            "report.json",
            f"{path} names its study {name!r}: expected letters, digits, '.', '_' and '-'",
        )
    check_document(study, str(path))


def _check_trials(path: Path, rows: Any) -> None:
    """Refuse trials that are not numbered from 0, one after the other.

    Raises:
        ConfigError: They are not.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError("report.json", f"{path} lists no trials")
    if [row.get("number") for row in rows] != list(range(len(rows))):
        raise ConfigError(
            "report.json", f"the trials of {path} are not numbered from 0 to {len(rows) - 1}"
        )


def document_of(report: Mapping[str, Any], threads: int | None = None) -> dict[str, Any]:
    """The document of the study to run: the reported one, whose pruner stops as recorded.

    Args:
        report: As :func:`load` gives it.
        threads: CPU threads of each trial, in place of those that were recorded.
    """
    study = report["study"]
    config = json.loads(json.dumps(study["config"]))
    check_groups(config, study["options"])
    permission.require(config["allow_targets"])
    config["study"] |= {
        "timeout": None,
        "trial_timeout": None,
        "target": None,
        "storage": None,
        "enqueue": None,
    }
    stops = {
        str(t["number"]): t["epochs"] - 1
        for t in report["replay"]
        if t["state"] == "pruned" and t["epochs"]
    }
    here = provenance.collect(
        config=config,
        space=study["space"],
        data={},
        allow_targets=config["allow_targets"],
        threads=threads
        or (report["replay"][0]["inputs"]["threads"] if report["replay"][0]["inputs"] else None),
    )
    return {
        "schema": 1,
        "name": study["name"],
        "uuid": uuid.uuid4().hex,
        "replay_of": study["uuid"],
        "experiment": layout.experiment_name(
            config["tracking"]["project"], str(study["data"].get("name") or "data")
        ),
        "pruner": {"_target_": _PRUNER, "last_epochs": stops} if stops else None,
        "config": config,
        "allow_targets": config["allow_targets"],
        "default": None,
        "enqueue": [],
        "fixed": config,
        "provenance": here["provenance"],
        "threads": here["provenance"]["threads"],
        "sha": {**study["sha"], **provenance.origin(tuple(config["allow_targets"]))},
        **{
            key: study[key]
            for key in ("objectives", "directions", "seed", "options", "space", "sampler")
        },
        **{key: study[key] for key in ("overrides", "command", "data", "model")},
    }


def open_replay(storage: Storage, report: Mapping[str, Any], threads: int | None = None) -> Study:
    """Make the study, all its trials waiting; or go on with it.

    A trial that failed for a reason outside of it (lost, out of memory, timeout) is taken over as
    failed.

    Raises:
        ConfigError: The storage has another study of that name.
    """
    name = report["study"]["name"]
    rows = report["replay"]
    with storage.lock(name):
        row = read_row(storage, name)
        if row is not None:
            if study_document(row.document).get("replay_of") != report["study"]["uuid"]:
                raise ConfigError(
                    "--store", f"has a study {name!r} already", "name an empty folder"
                )
            return Study(storage, name)
        document = document_of(report, threads)
        space = Space.from_json(document["space"])
        study = optuna.create_study(
            study_name=name,
            storage=storage.optuna,
            directions=document["directions"],
            load_if_exists=True,
        )
        for trial in rows[len(study.get_trials(deepcopy=False)) :]:
            study.add_trial(_waiting(space, trial))
        with storage.begin() as connection:
            connection.execute(
                sa.insert(StudyRow).values(
                    name=name,
                    uuid=document["uuid"],
                    created=time.time(),
                    n_trials=len(rows),
                    seconds=0.0,
                    finished=False,
                    document=json.dumps(document),
                )
            )
    return Study(storage, name)


def _waiting(space: Space, trial: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    marks = {key: True for key in ("default", "enqueued") if trial[key]}
    if repeatable(trial) is not None and trial["duplicate_of"] is None:
        reason = trial["reason"] or trial["state"]
        return optuna.create_trial(state=TrialState.FAIL, user_attrs={**marks, REASON: reason})
    fixed = {"fixed_params": space.encode(trial["params"])}
    violated = {"recorded": 1.0} if trial["infeasible"] else None
    return optuna.create_trial(
        state=TrialState.WAITING,
        system_attrs=fixed,
        user_attrs=marks,
        constraints=violated,
    )


def proposals(report: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Draw the proposals again; those that differ.

    None where proposals are no function of the study's seed alone.
    """
    study = report["study"]
    if study["sampler"].get("_target_") not in INDEPENDENT:
        return None
    space = Space.from_json(study["space"])
    drawn = optuna.create_study(directions=study["directions"])
    found = []
    for trial in report["replay"]:
        drawn.sampler = build_sampler(
            study["sampler"],
            space=space,
            study_seed=study["seed"],
            number=trial["number"],
            directions=study["directions"],
        )
        params = space.suggest(drawn.ask(), study["config"])
        given = trial["default"] or trial["enqueued"]
        if not given and json.loads(json.dumps(params)) != trial["params"]:
            found.append({"number": trial["number"], "recorded": trial["params"], "again": params})
    return found


def compare(report: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What came out the same: ``trials``, ``winner`` and ``confirmed``, each with what differs.

    Args:
        report: The ``report.json`` that was run again.
        record: The record of the study that ran.
    """
    again = {trial["number"]: trial for trial in record["trials"]}
    trials = []
    for then in report["replay"]:
        now = again.get(then["number"])
        reason = repeatable(then)
        entry = {
            "number": then["number"],
            "state": then["state"],
            "verdict": "equal",
            "differs": [],
        }
        if reason is not None and then["duplicate_of"] is None:
            entry |= {"verdict": "skipped", "why": reason}
        elif now is None:
            entry |= {"verdict": "missing"}
        else:
            keys = (
                ("params", "intermediate", *COMPARED)
                if then["duplicate_of"] is None
                else ("params", "values")
            )
            entry["differs"] = [
                {"what": key, "recorded": then[key], "again": now[key]}
                for key in keys
                if then[key] != now[key]
            ]
            entry["verdict"] = "different" if entry["differs"] else "equal"
        trials.append(entry)
    return {
        "trials": trials,
        "winner": _winner(report, record),
        "confirmed": _confirmed(report, record),
    }


def _winner(report: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    then = report["again"]["winner"]
    now = record["winner"]
    keys = ("number", "params", "value")
    pair = [None if each is None else {key: each.get(key) for key in keys} for each in (then, now)]
    return {"recorded": pair[0], "again": pair[1], "equal": pair[0] == pair[1]}


def _confirmed(report: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The confirmation's configurations: params, means, and the weights of every replica."""
    then = _outline(report["again"].get("finalization"))
    now = _outline(record.get("finalization"))
    if then is None and now is None:
        return None
    same = then is not None and now is not None and then == now
    differs = [] if same or not then or not now else changed({"all": then}, {"all": now})
    return {
        "recorded": then,
        "again": now,
        "equal": same,
        "differs": [each.input for each in differs],
    }


def _outline(finalization: Mapping[str, Any] | None) -> list[dict[str, Any]] | None:
    """What of a confirmation must come out the same; None without one."""
    if not finalization:
        return None
    outline = []
    for each in finalization["configurations"]:
        compared = {key: each.get(key) for key in _COMPARED_OF_CONFIGURATION}
        compared["replicas"] = [
            {key: replica.get(key) for key in _COMPARED_OF_REPLICA}
            for replica in each.get("replicas", [])
        ]
        outline.append(compared)
    return outline
