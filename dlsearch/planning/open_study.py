"""Opening a study: made from a draft, or resumed if it is still the same study."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from dlsearch.config.moved import with_current_names
from dlsearch.confirmation.round_document import ConfirmSettings
from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import mask
from dlsearch.planning.comparison import check_same_comparison, first_trials
from dlsearch.planning.draft import Draft, digest
from dlsearch.storage.database import Storage, StudyRow
from dlsearch.storage.studies import budget_columns, read_row
from dlsearch.study.documents import StudyDocument
from dlsearch.study.identical_failures import AFTER_ATTEMPT, newest_attempt
from dlsearch.study.study import Study
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

    from dlsearch.core.types import ConfigTree, JsonObject, Params

#: The parts of a document that have a digest which tells drift.
_DIGESTED = ("config", "space", "sampler", "data")


def document_of(
    draft: Draft,
    described: JsonObject,
    provenance: JsonObject,
) -> StudyDocument:
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
    data = described.get("data", {})
    origin = provenance["provenance"]
    plain = {
        "schema": 1,
        "name": draft.name,
        "uuid": uuid.uuid4().hex,
        "experiment": _experiment_of(draft),
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
        "data": data,
        "model": described.get("model", {}),
        "provenance": origin,
        "threads": origin.get("threads"),
        "sha": {
            **provenance["sha"],
            "config": digest(study_config),
            "space": digest([draft.space.digest(), draft.options]),
            "sampler": digest([sampler, pruner]),
            "data": digest(data.get("digests", {})),
        },
        "fixed": mask(study_config),
    }
    return StudyDocument.from_json(plain)


def _experiment_of(draft: Draft) -> str:
    project = draft.config["tracking"]["project"]
    data = draft.choices.get("data") or "data"
    return layout.experiment_name(project, f"{data}")


# -- drift -----------------------------------------------------------------------------------------
def drift(
    old: StudyDocument,
    new: StudyDocument,
) -> list[str]:
    """What changed between two documents of one study: keys of the config, or whole parts."""
    unequal = [part for part in _DIGESTED if old.digests[part] != new.digests[part]]
    if unequal and _is_of_earlier_version(old, new):
        # Its digests are of names that have moved since, or of fewer keys: the values are compared.
        old = _with_current_names(old)
        unequal = [part for part in unequal if _is_unequal(part, old, new)]
    changed = []
    for part in unequal:
        if part == "config":
            changed += _differences(old.fixed, new.fixed) or ["config"]
        else:
            changed.append(part)
    if old.objectives != new.objectives:
        changed.append("objectives")
    if old.directions != new.directions:
        changed.append("directions")
    return changed


def _with_current_names(document: StudyDocument) -> StudyDocument:
    """A document in which every target has its present path."""
    return StudyDocument.from_json(with_current_names(document.plain))


def _is_of_earlier_version(
    old: StudyDocument,
    new: StudyDocument,
) -> bool:
    """Whether a document names targets by earlier paths, or lacks keys that configs have now."""
    if with_current_names(old.plain) != old.plain:
        return True
    return _key_paths(old.fixed) != _key_paths(new.fixed)


def _key_paths(
    node: Any,
    prefix: str = "",
) -> set[str]:
    """The paths to the values of plain data."""
    if not isinstance(node, dict):
        return {prefix}
    paths = {prefix}
    for key, value in node.items():
        paths |= _key_paths(value, f"{prefix}.{key}")
    return paths


def _is_unequal(
    part: str,
    old: StudyDocument,
    new: StudyDocument,
) -> bool:
    """Whether a part has other values; a key that is not there has the value null."""
    return bool(_differences(_compared(part, old), _compared(part, new)))


def _compared(
    part: str,
    document: StudyDocument,
) -> Any:
    """What the digest of a part is of; that of the data is of no names, and has no parts."""
    if part == "config":
        return document.fixed
    if part == "space":
        return {"space": document.space, "options": document.plain["options"]}
    if part == "sampler":
        return {"sampler": document.sampler, "pruner": document.pruner}
    return document.digests


def _differences(
    old: Any,
    new: Any,
    prefix: str = "",
) -> list[str]:
    """The paths to the values in which two trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}, key=str):
            found += _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        return found
    if old == new:
        return []
    return [prefix.rstrip(".")]


def is_unchanged(row: StudyRow, draft: Draft) -> bool:
    """Whether a study has the config, the options and the space of a draft.

    Where its document is of an earlier version it counts as changed.
    """
    there = StudyDocument.from_text(row.document).digests
    config = digest(draft.fixed())
    space = digest([draft.space.digest(), draft.options])
    return bool(there["config"] == config and there["space"] == space)


def check_drift(
    row: StudyRow,
    document: StudyDocument,
    allow: bool,
) -> None:
    """Refuse to resume what is no longer the same study.

    Raises:
        ConfigError: It changed, and `allow` is false; or it compares something else.
    """
    old = StudyDocument.from_text(row.document)
    check_same_comparison(old, document)
    changed = drift(old, document)
    if changed and not allow:
        listed = ", ".join(changed[:6])
        raise ConfigError(
            "study.name",
            f"study {row.name!r} exists with another {listed}",
            "study.name=… starts a new one, study.allow_drift=true goes on all the same",
        )


# -- opening ---------------------------------------------------------------------------------------
def open_study(
    storage: Storage,
    draft: Draft,
    document: StudyDocument,
    *,
    lease_s: float,
) -> tuple[Study, bool]:
    """Create the study, or resume it.

    Returns:
        The study, and whether it existed.

    Raises:
        ConfigError: It exists and is not the same.
    """
    opening = _Opening(storage, draft, document)
    try:
        resumed = storage.surely(opening.create_or_extend)
    finally:
        storage.fresh()  # of a transaction that failed something may stand in Optuna's cache
    study = storage.surely(lambda: Study(storage, draft.name, lease_s=lease_s))
    return study, resumed


@dataclass
class _Opening:
    """The opening of a study, which may be tried several times.

    Args:
        storage: The open storage.
        draft: The study.
        document: Its document.
        sent: Documents that were sent: one may stand although nobody heard of it.
    """

    storage: Storage
    draft: Draft
    document: StudyDocument
    sent: list[str] = field(default_factory=list)

    def create_or_extend(self) -> bool:
        """Create the study, or take over the new budgets; whether it existed."""
        draft = self.draft
        with self.storage.lock(draft.name):
            row = read_row(self.storage, draft.name)
            if row is None:
                with self.storage.transaction():
                    self._create()
                return False
            known = StudyDocument.from_text(row.document)
            if known.uuid == self.document.uuid:
                return False
            if row.document not in self.sent:
                check_drift(row, self.document, bool(draft.study["allow_drift"]))
                self._extend(row, known)
            return True

    def _create(self) -> None:
        """Make the study, whole: with Optuna's, and what is to be run first."""
        draft = self.draft
        study = self._open_optuna()
        for first in first_trials(draft):
            study.add_trial(self._waiting(first.params, first.origin))
        with self.storage.begin() as connection:
            row = sa.insert(StudyRow).values(
                name=draft.name,
                uuid=self.document.uuid,
                created=time.time(),
                seconds=0.0,
                finished=False,
                document=json.dumps(self.document.plain),
                **self._budget_columns(connection, seconds=0.0),
            )
            connection.execute(row)

    def _open_optuna(self) -> optuna.Study:
        """Optuna's study, which has no trials yet."""
        name = self.draft.name
        known = {each.study_name for each in self.storage.rdb.get_all_studies()}
        if name not in known:
            return optuna.create_study(
                study_name=name,
                storage=self.storage.fresh(),
                directions=self.draft.directions,  # type: ignore[arg-type]
            )
        study = optuna.load_study(study_name=name, storage=self.storage.fresh())
        if study.get_trials(deepcopy=False):
            raise ConfigError(
                "study.name",
                f"the storage has a study {name!r} that dlsearch did not make",
                "study.name=…",
            )
        return study

    def _waiting(
        self,
        params: Params,
        origin: str,
    ) -> optuna.trial.FrozenTrial:
        """A trial that waits with given parameters; `origin` says where they are from."""
        return optuna.create_trial(
            state=TrialState.WAITING,
            system_attrs={"fixed_params": self.draft.space.encode(params)},
            user_attrs={origin: True},
        )

    def _budget_columns(
        self,
        connection: Connection,
        seconds: float,
    ) -> Mapping[str, Any]:
        """The columns of the row that say what may be spent.

        Args:
            connection: Tells the time.
            seconds: What has been spent.
        """
        now = self.storage.now(connection)
        settings = {**self.draft.study, "n_trials": self.draft.total_trials}
        return budget_columns(settings, seconds, now)

    def _extend(
        self,
        row: StudyRow,
        old: StudyDocument,
    ) -> None:
        """Take over the new budgets; a larger one reopens a finished study."""
        new = self.document
        n_trials = self.draft.total_trials
        session = {
            "command": new.plain["command"],
            "n_trials": n_trials,
            "drift": drift(old, new),
            AFTER_ATTEMPT: newest_attempt(self.storage, row.name),
        }
        # Budgets and what was allowed to drift are the newest session's; identity and origin stay
        # the first's.
        extended = {
            **new.plain,
            "uuid": old.uuid,
            "default": old.plain["default"],
            "sessions": [*old.sessions, session],
        }
        asks_more = n_trials > row.n_trials or _confirms_more(
            old.study_settings,
            new.study_settings,
        )
        text = json.dumps(extended)
        self.sent.append(text)
        with self.storage.begin() as connection:
            change = (
                sa.update(StudyRow)
                .where(StudyRow.name == row.name)
                .values(
                    document=text,
                    finished=row.finished and not asks_more,
                    **self._budget_columns(connection, row.seconds),
                )
            )
            connection.execute(change)


def _confirms_more(
    old: ConfigTree,
    new: ConfigTree,
) -> bool:
    """Whether more is confirmed than before: at all, more finalists, more seeds, or the refit."""
    if not new["finalize"]:
        return False
    if not old["finalize"]:
        return True
    wanted = ConfirmSettings.from_study(new)
    return wanted.asks_more_than(ConfirmSettings.from_study(old))
