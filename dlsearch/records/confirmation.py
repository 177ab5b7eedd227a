"""The confirmation of a study: for the record, and for those who watch it run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.confirmation import racing
from dlsearch.confirmation.rounds import Round, end_of, result_of
from dlsearch.records.attempts import attempt_record, seconds_of
from dlsearch.records.models import (
    ConfigurationRecord,
    ConfirmationRecord,
    KeptRecord,
    ReplicaRecord,
    WinnerRecord,
)
from dlsearch.study.states import AttemptState, FailureReason, RecordedTrialState, StudyState
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.storage.database import Attempt
    from dlsearch.study.study import Study


def confirmation_record(study: Study, now: Round) -> ConfirmationRecord:
    """A round, whole. See ``docs/record.md``.

    Args:
        study: The open study.
        now: Its newest round.
    """
    document = now.document
    is_complete = now.finished and document["scored"]
    kept = _kept_replica(now)
    refit = None
    if now.refits:
        refit = _replica_record(None, document["refit_seed"], now.refits, study.max_attempts)
    return ConfirmationRecord(
        round=now.number,
        rounds=now.number,
        top=document["top"],
        seeds=document["seeds"],
        racing=document["racing"],
        refit=document["refit"],
        state=StudyState.COMPLETE if is_complete else StudyState.PARTIAL,
        configurations=_configuration_records(study, now),
        kept=kept,
        checkpoint=None if kept is None else f"{kept_folder(study, now)}/ckpt/best.ckpt",
        scoring_error=now.scoring_error,
        refit_run=refit,
        rule=document.get("rule"),
    )


def _kept_replica(now: Round) -> KeptRecord | None:
    """Which replica of the winner is kept; None while there is no winner."""
    race = now.race
    if not race.decided or race.winner is None or race.kept is None:
        return None
    return KeptRecord(now.field[race.winner].trial_number, race.kept)


def _configuration_records(study: Study, now: Round) -> list[ConfigurationRecord]:
    race = now.race
    records = []
    for index, finalist in enumerate(now.field):
        records.append(
            ConfigurationRecord(
                trial_number=finalist.trial_number,
                default=finalist.default,
                params=finalist.params,
                search_value=finalist.search_value,
                mean=racing.mean(now.values(index)),
                dropped_after=race.dropped.get(index),
                winner=race.decided and race.winner == index,
                replicas=_replica_records(study, now, index),
            )
        )
    return records


def _replica_records(study: Study, now: Round, index: int) -> list[ReplicaRecord]:
    """The trainings of a finalist that have begun."""
    records = []
    for replica, seed in enumerate(now.seeds):
        attempts = now.attempts.get(racing.Part(index, replica))
        if attempts is not None:
            records.append(_replica_record(replica, seed, attempts, study.max_attempts))
    return records


def _replica_record(
    replica: int | None,
    seed: int,
    attempts: list[Attempt],
    max_attempts: int,
) -> ReplicaRecord:
    result = result_of(attempts)
    end = end_of(attempts, max_attempts)
    is_complete = end is AttemptState.COMPLETE
    values = result.get("values") if is_complete else None
    inputs = result.get("inputs") or {}
    return ReplicaRecord(
        replica=replica,
        seed=seed,
        state=end or _state_without_end(attempts),
        reason=None if is_complete else _reason_of(result, end),
        error=None if is_complete else _last_error(attempts),
        value=values[0] if values else None,
        values=values,
        seconds=seconds_of(attempts),
        intermediate=result.get("history") or [],
        summary=result.get("summary", {}),
        epochs=result.get("epochs"),
        best_epoch=result.get("best_epoch"),
        state_sha256=result.get("state_sha256"),
        metrics_sha256=result.get("metrics_sha256"),
        split_sha256=result.get("split_sha256"),
        threads=inputs.get("threads"),
        attempts=[attempt_record(each) for each in attempts],
        seal=result.get("seal"),
        breaches=result.get("breaches") or None,
    )


def _state_without_end(attempts: list[Attempt]) -> RecordedTrialState:
    for attempt in attempts:
        if attempt.state == AttemptState.RUNNING:
            return RecordedTrialState.RUNNING
    return RecordedTrialState.WAITING


def _reason_of(result: Mapping[str, Any], end: AttemptState | None) -> str | None:
    """Why a training has no value."""
    if result.get("reason"):
        reason: str = result["reason"]
        return reason
    return FailureReason.LOST if end is AttemptState.LOST else None


def _last_error(attempts: list[Attempt]) -> str | None:
    for attempt in reversed(attempts):
        if attempt.error:
            return attempt.error
    return None


def kept_folder(study: Study, now: Round) -> str | None:
    """Where the model that is kept was trained, relative to the store.

    None while, or where, there is no winner.
    """
    winner = now.race.winner
    kept = now.race.kept
    if winner is None or kept is None:
        return None
    if end_of(now.refits, study.max_attempts) is AttemptState.COMPLETE:
        name = f"r{now.number}-refit"
    else:
        number = now.round_of(winner, kept)
        name = layout.replica_name(number, now.field[winner].trial_number, kept)
    return layout.confirm_folder(study.name, name)


def find_winner(study: Study, now: Round | None) -> WinnerRecord | None:
    """Who won: the confirmed winner, else the best of the search.

    None with several objectives or without a score.
    """
    best = study.best()
    if best is None:
        return None
    if now is not None and now.race.decided and now.race.winner is not None:
        finalist = now.field[now.race.winner]
        mean = racing.mean(now.values(now.race.winner))
        return WinnerRecord(
            number=finalist.trial_number,
            params=finalist.params,
            value=mean,
            values=[mean],
            search_value=finalist.search_value,
            confirmed=True,
            default=finalist.default,
        )
    return WinnerRecord(
        number=best.number,
        params=study.params_of(best),
        value=best.values[0],
        values=list(best.values),
        search_value=best.values[0],
        confirmed=False,
        default=bool(best.user_attrs.get("default")),
    )
