"""Opening a study: made from a draft, or resumed if it is still the same study."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.config.moved import with_current_names
from dlsearch.confirmation.rounds import SETTINGS
from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import mask
from dlsearch.planning.draft import Draft, digest
from dlsearch.storage.database import Storage, StudyRow
from dlsearch.storage.studies import budget_columns, read_row
from dlsearch.study.documents import study_document
from dlsearch.study.study import Study
from dlsearch.tracking import layout

#: The keys of a document that a digest is of; those of the data have no names in them.
_COMPARED = {
    "config": ("fixed",),
    "space": ("space", "options"),
    "sampler": ("sampler", "pruner"),
    "data": ("sha",),
}


def document_of(
    draft: Draft, described: dict[str, Any], provenance: dict[str, Any]
) -> dict[str, Any]:
    """All that a worker, a report or a repetition needs to know about a study.

    Args:
        draft: The study.
        described: What building it showed: ``data`` and ``model``.
        provenance: Where, with what, from which code; and the digests of the environment and the
            code.
    """
    study_config = draft.fixed()
    sampler = draft.config["sampler"]
    pruner = draft.config["pruner"]
    return {
        "schema": 1,
        "name": draft.name,
        "uuid": uuid.uuid4().hex,
        "experiment": layout.experiment_name(draft.config["tracking"]["project"], _task(draft)),
        "objectives": draft.objectives,
        "directions": draft.directions,
        "seed": draft.config["seed"],
        "config": mask(draft.config),
        "options": mask(draft.options),
        "space": draft.space.to_json(draft.defaults),
        "sampler": sampler,
        "pruner": pruner,
        "allow_targets": draft.config["allow_targets"],
        "overrides": mask(draft.overrides),
        "command": mask(draft.command),
        "default": draft.default,
        "enqueue": draft.enqueue,
        "data": described.get("data", {}),
        "model": described.get("model", {}),
        "provenance": provenance["provenance"],
        "threads": provenance["provenance"].get("threads"),
        "sha": {
            **provenance["sha"],
            "config": digest(study_config),
            "space": digest([draft.space.digest(), draft.options]),
            "sampler": digest([sampler, pruner]),
            "data": digest(described.get("data", {}).get("digests", {})),
        },
        "fixed": mask(study_config),
    }


def _task(draft: Draft) -> str:
    return f"{draft.choices.get('data') or 'data'}"


def drift(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two documents of one study: keys of the config, or whole parts."""
    parts = ("config", "space", "sampler", "data")
    unequal = [part for part in parts if old["sha"][part] != new["sha"][part]]
    if unequal and _is_of_earlier_version(old, new):
        # Its digests are of names that have moved since, or of fewer keys: the values are compared.
        old = with_current_names(old)
        unequal = [part for part in unequal if _is_unequal(part, old, new)]
    changed = []
    if "config" in unequal:
        changed += _differences(old["fixed"], new["fixed"]) or ["config"]
    changed += [part for part in unequal if part != "config"]
    changed += [part for part in ("objectives", "directions") if old[part] != new[part]]
    return changed


def _is_of_earlier_version(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a document names targets by earlier paths, or lacks keys that configs have now."""
    return with_current_names(old) != old or _key_paths(old["fixed"]) != _key_paths(new["fixed"])


def _key_paths(node: Any, prefix: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {prefix}
    nested = (_key_paths(value, f"{prefix}.{key}") for key, value in node.items())
    return {prefix}.union(*nested)


def _is_unequal(part: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a part has other values; a key that is not there has the value null."""
    return any(_differences(old[key], new[key]) for key in _COMPARED[part])


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}, key=str):
            found += _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        return found
    return [] if old == new else [prefix.rstrip(".")]


def check_drift(row: StudyRow, document: dict[str, Any], allow: bool) -> None:
    """Refuse to resume what is no longer the same study.

    Raises:
        ConfigError: It changed, and `allow` is false.
    """
    changed = drift(study_document(row.document), document)
    if changed and not allow:
        raise ConfigError(
            "study.name",
            f"study {row.name!r} exists with another {', '.join(changed[:6])}",
            "study.name=… starts a new one, study.allow_drift=true goes on all the same",
        )


def open_study(
    storage: Storage,
    draft: Draft,
    document: dict[str, Any],
    *,
    lease_s: float,
) -> tuple[Study, bool]:
    """Create the study, or resume it.

    Returns:
        The study, and whether it existed.

    Raises:
        ConfigError: It exists and is not the same.
    """
    written: list[str] = []  # what was sent: it may stand although nobody heard of it

    def create_or_extend() -> bool:
        with storage.lock(draft.name):
            row = read_row(storage, draft.name)
            if row is None:
                with storage.transaction():
                    _create(storage, draft, document)
                return False
            if study_document(row.document)["uuid"] == document["uuid"]:
                return False
            if row.document not in written:
                check_drift(row, document, bool(draft.study["allow_drift"]))
                _extend(storage, row, draft, document, written)
            return True

    try:
        resumed = storage.surely(create_or_extend)
    finally:
        storage.fresh()  # of a transaction that failed something may stand in Optuna's cache
    return storage.surely(lambda: Study(storage, draft.name, lease_s=lease_s)), resumed


def _create(storage: Storage, draft: Draft, document: dict[str, Any]) -> None:
    """Make the study, whole: with Optuna's, and what is to be run first."""
    known = {each.study_name for each in storage.rdb.get_all_studies()}
    if draft.name not in known:
        study = optuna.create_study(
            study_name=draft.name,
            storage=storage.fresh(),
            directions=draft.directions,  # type: ignore[arg-type]
        )
    else:
        study = optuna.load_study(study_name=draft.name, storage=storage.fresh())
        if study.get_trials(deepcopy=False):
            raise ConfigError(
                "study.name",
                f"the storage has a study {draft.name!r} that dlsearch did not make",
                "study.name=…",
            )
    first = [draft.default] if draft.default is not None else []
    for params in [*first, *draft.enqueue]:
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                system_attrs={"fixed_params": draft.space.encode(params)},
                user_attrs={"default": True}
                if first and params is first[0]
                else {"enqueued": True},
            )
        )
    with storage.begin() as connection:
        connection.execute(
            sa.insert(StudyRow).values(
                name=draft.name,
                uuid=document["uuid"],
                created=time.time(),
                seconds=0.0,
                finished=False,
                document=json.dumps(document),
                **budget_columns(draft.study, 0.0, storage.now(connection)),
            )
        )


def _extend(
    storage: Storage,
    row: StudyRow,
    draft: Draft,
    document: dict[str, Any],
    written: list[str],
) -> None:
    """Take over the new budgets; a larger one reopens a finished study."""
    old = study_document(row.document)
    n_trials = max(draft.study["n_trials"], 1)
    # Budgets and what was allowed to drift are the newest session's; identity and origin stay the
    # first's.
    document = {
        **document,
        "uuid": old["uuid"],
        "default": old["default"],
        "sessions": [*old.get("sessions", [])],
    }
    document["sessions"].append(
        {"command": document["command"], "n_trials": n_trials, "drift": drift(old, document)}
    )
    more = n_trials > row.n_trials or _confirms_more(
        old["config"]["study"], document["config"]["study"]
    )
    text = json.dumps(document)
    written.append(text)
    with storage.begin() as connection:
        columns = budget_columns(draft.study, row.seconds, storage.now(connection))
        connection.execute(
            sa.update(StudyRow)
            .where(StudyRow.name == row.name)
            .values(document=text, finished=row.finished and not more, **columns)
        )


def _confirms_more(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether more is confirmed than before: at all, more finalists, more seeds, or the refit."""
    before, now = ({**SETTINGS, **(each.get("confirm") or {})} for each in (old, new))
    return bool(new["finalize"]) and (
        not old["finalize"]
        or any(int(now[key]) > int(before[key]) for key in ("top", "seeds", "refit"))
    )
