"""The ensemble of a study: its trials, whether it has been scored, and its row in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.core.bounded import IN_DATABASE, load_yaml, parse_json
from dlsearch.core.errors import ConfigError
from dlsearch.core.files.inside import inside
from dlsearch.core.files.locks import exclusive_lock
from dlsearch.core.json_model import JsonModel
from dlsearch.study.kept_model import kept_model
from dlsearch.study.states import Direction, OpeningKind, RecordedTrialState, StudyState
from dlsearch.study.trial_config import trial_config
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree, JsonObject
    from dlsearch.records.models import ConfirmationRecord, StudyRecord, TrialRecord
    from dlsearch.study.study import Study

KIND = OpeningKind.ENSEMBLE


@dataclass(frozen=True)
class Member:
    """A trained net of a study.

    Args:
        name: ``trial 3``, or of what was kept ``kept model``.
        number: The trial; None where it is the default configuration, which no trial ran.
        value: Its objective in the search; of the kept model the mean over its replicas.
        config: What it was trained with, plain.
        checkpoint: Its weights.
        result: What its training said at its end: ``values``, ``best_epoch``, ``state_sha256`` and
            ``inputs``.
    """

    name: str
    number: int | None
    value: float | None
    config: ConfigTree
    checkpoint: Path
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Members:
    """The members of an ensemble.

    Args:
        chosen: The best trials whose checkpoints are in this store.
        absent: Numbers of better ones whose checkpoints are not.
    """

    chosen: list[Member]
    absent: list[int]


@dataclass(frozen=True)
class AskedEnsemble(JsonModel):
    """What is asked for.

    Args:
        top: How many trials.
        by: What is averaged: ``probabilities`` or ``logits``.
    """

    top: int
    by: str


@dataclass(frozen=True)
class Standing(JsonModel):
    """How far a study is: an ensemble is scored once for each.

    Args:
        round: The newest round of confirmation; None before the first.
        trials: How many trials are complete.
    """

    round: int | None
    trials: int

    @classmethod
    def of_record(cls, record: StudyRecord) -> Standing:
        """How far the study is by its record."""
        final = record.finalization
        complete = sum(trial.state is RecordedTrialState.COMPLETE for trial in record.trials)
        return cls(None if final is None else final.round, complete)


def find_members(
    study: Study,
    record: StudyRecord,
    store: Path,
    paths: Mapping[str, str],
    top: int,
) -> Members:
    """The best trials whose checkpoints are in this store.

    Trials that took over another's result are that other's.

    Args:
        study: The open study.
        record: Its record.
        store: This machine's store.
        paths: This machine's ``paths``.
        top: How many.

    Raises:
        ConfigError: There are fewer.
    """
    chosen: list[Member] = []
    absent: list[int] = []
    for trial in _rank_trials(study, record):
        if len(chosen) == top:
            break
        folder = layout.trial_folder(study.name, trial.number)
        checkpoint = inside(store, f"{folder}/ckpt/{layout.CHECKPOINT}")
        checkpoint = inside(store, layout.weights_beside(checkpoint))
        if not checkpoint.is_file():
            absent.append(trial.number)
            continue
        config = trial_config(
            study.document,
            trial.params,
            seed=trial.seed,
            paths=paths,
        )
        chosen.append(
            Member(
                name=f"trial {trial.number}",
                number=trial.number,
                value=trial.value,
                config=config,
                checkpoint=checkpoint,
                result=trial.to_json(),
            )
        )
    if len(chosen) < max(2, top):
        gone = ""
        if absent:
            numbers = ", ".join(map(str, absent))
            gone = f"; checkpoints of trials {numbers} are not in {store}"
        raise ConfigError(
            "--top",
            f"expected at most {len(chosen)}, "
            f"the trials of {study.name!r} that can take part{gone}",
        )
    return Members(chosen, absent)


def _rank_trials(study: Study, record: StudyRecord) -> list[TrialRecord]:
    """The trials that can take part, the best first."""
    is_maximized = study.directions[0] == Direction.MAXIMIZE

    def rank(trial: TrialRecord) -> tuple[float, int]:
        assert trial.value is not None
        return (-trial.value if is_maximized else trial.value), trial.number

    able = []
    for trial in record.trials:
        is_own_result = trial.duplicate_of is None and not trial.infeasible
        if trial.state is RecordedTrialState.COMPLETE and is_own_result:
            able.append(trial)
    return sorted(able, key=rank)


def check_study(study: Study, record: StudyRecord) -> None:
    """Refuse a study that has no ensemble.

    Raises:
        ConfigError: It is not over, or has several objectives.
    """
    if len(study.directions) > 1:
        raise ConfigError(
            "NAME", f"{study.name!r} has several objectives, and no one ranking of its trials"
        )
    hint = f"dlsearch status {study.name}"
    if record.study.state is StudyState.FAILED:
        raise ConfigError("NAME", f"no trial of {study.name!r} completed", hint)
    if record.study.state is not StudyState.COMPLETE:
        raise ConfigError("NAME", f"{study.name!r} is not finished", hint)


def find_single(
    study: Study,
    record: StudyRecord,
    store: Path,
    paths: Mapping[str, str],
    best: Member,
) -> Member:
    """What an ensemble is compared with: the model that the study kept, else its best trial's.

    Raises:
        ConfigError: The kept model is not in this store.
    """
    if not study.finalize:
        return best
    kept = kept_model(record.to_json(), store)
    assert record.finalization is not None
    config: Any = OmegaConf.to_container(load_yaml(kept.config), resolve=False)
    return Member(
        name="kept model",
        number=kept.number,
        value=kept.about["objective"]["value"],
        config={**config, "paths": dict(paths)},
        checkpoint=kept.checkpoint,
        result=_result_of_kept(record.finalization),
    )


def _result_of_kept(final: ConfirmationRecord) -> JsonObject:
    """What the training of the kept model said at its end."""
    refit = final.refit_run
    if refit is not None and refit.state == RecordedTrialState.COMPLETE:
        return refit.to_json()
    assert final.kept is not None
    winner = next(each for each in final.configurations if each.winner)
    kept = next(each for each in winner.replicas if each.replica == final.kept.replica)
    return kept.to_json()


def find_recorded(study: Study, record: StudyRecord, asked: AskedEnsemble) -> JsonObject | None:
    """The result of this ensemble, where it has been scored of the study as it is; else None.

    Args:
        study: The open study.
        record: Its record.
        asked: What is asked for now.

    Raises:
        ConfigError: Another ensemble has been scored: a second one would be chosen by the test set.
    """
    standing = Standing.of_record(record).to_json()
    for row in study.ledger.rows():
        if row["kind"] != KIND or not row["document"]:
            continue
        found = parse_json(row["document"], IN_DATABASE)["ensemble"]
        if found["standing"] != standing:
            continue
        if found["asked"] == asked.to_json():
            return {**found, "ledger_id": row["id"]}
        before = f"the top {found['asked']['top']} by {found['asked']['by']}"
        raise ConfigError(
            "NAME",
            f"the test set was opened for an ensemble of {study.name!r} already ({before}), "
            "and is opened for no other",
            "--validation compares ensembles without it",
        )
    return None


def ledger_document(
    found: Mapping[str, Any],
    record: StudyRecord,
    asked: AskedEnsemble,
) -> JsonObject:
    """The ledger's document: the figures of the weights that validation chose, and all else."""
    chosen = found["chosen"]
    metrics = {f"test/{name}": value for name, value in found["test"][chosen].items()}
    return {
        "metrics": metrics,
        "n": found["test"]["n"],
        "value": found["validation"][chosen].get(found["objective"]),
        "ensemble": {
            **found,
            "asked": asked.to_json(),
            "standing": Standing.of_record(record).to_json(),
        },
    }


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process scores an ensemble of a study; its death releases it.

    Raises:
        ConfigError: Another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    from filelock import Timeout

    lock = exclusive_lock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            "NAME", "another dlsearch ensemble of this study is at work", "wait for it"
        ) from None
    try:
        yield
    finally:
        lock.release()
