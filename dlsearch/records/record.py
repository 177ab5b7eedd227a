"""The record of a study, read from its storage alone.

What reports, ``trials``, and comparisons are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from dlsearch.confirmation.rounds import Rounds
from dlsearch.core.bounded import IN_DATABASE, parse_json
from dlsearch.records.attempts import attempt_record, iso_time, result_of_last, seconds_of
from dlsearch.records.confirmation import confirmation_record, find_winner
from dlsearch.records.models import (
    OpeningFacts,
    OpeningRecord,
    ScoredOpening,
    SlotRecord,
    StudyFacts,
    StudyRecord,
    TestSetOpening,
    TestSetRecord,
    TrainingRecord,
    TrialRecord,
)
from dlsearch.records.silence import silent_attempts
from dlsearch.storage.trial_index import is_feasible
from dlsearch.study.seen import SEEN
from dlsearch.study.states import (
    AttemptKind,
    AttemptState,
    FailureReason,
    RecordedTrialState,
    StudyState,
)
from dlsearch.study.study import DUPLICATE, REASON, Study

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlsearch.core.types import Params
    from dlsearch.storage.database import Attempt
    from dlsearch.storage.test_ledger import Ledger
    from dlsearch.study.seen import SeenJson, VerdictJson

#: The version of the record's form.
RECORD_SCHEMA = 1

STATES = {
    TrialState.COMPLETE: RecordedTrialState.COMPLETE,
    TrialState.PRUNED: RecordedTrialState.PRUNED,
    TrialState.FAIL: RecordedTrialState.FAILED,
    TrialState.RUNNING: RecordedTrialState.RUNNING,
    TrialState.WAITING: RecordedTrialState.WAITING,
}


def state_of(*, running: bool, finished: bool, completed: bool) -> StudyState:
    """The state of a study in a word.

    ``running``, ``partial`` (the same command goes on), ``complete`` or ``failed``.

    Args:
        running: Whether anybody is at work.
        finished: Whether nothing is left to do.
        completed: Whether a trial has completed; a study that is over without one has no result.
    """
    if running:
        return StudyState.RUNNING
    if not finished:
        return StudyState.PARTIAL
    return StudyState.COMPLETE if completed else StudyState.FAILED


def read_record(study: Study) -> StudyRecord:
    """Everything about a study (see ``docs/record.md``)."""
    row = study.row()
    attempts = study.leases.rows(kind=AttemptKind.TRIAL)
    trials = _trial_records(study, attempts)
    completed = any(each.state is RecordedTrialState.COMPLETE for each in trials)
    state = state_of(
        running=_is_any_at_work(study, trials, attempts),
        finished=row.finished or study.is_stopped_by_failures(),
        completed=completed,
    )
    ledger = study.ledger.rows()
    now = Rounds(study).last()
    return StudyRecord(
        schema=RECORD_SCHEMA,
        study=_study_facts(study, row, state, attempts),
        trials=trials,
        winner=find_winner(study, now),
        finalization=None if now is None else confirmation_record(study, now),
        test=[scored_opening(each) for each in ledger if each["document"]],
        openings=[_opening_record(each) for each in ledger],
        test_set=_test_set_record(study.ledger),
        pareto=study.front() if len(study.directions) > 1 else None,
    )


def _study_facts(
    study: Study,
    row: Any,
    state: StudyState,
    attempts: Sequence[Attempt],
) -> StudyFacts:
    document = study.document
    return StudyFacts(
        name=study.name,
        uuid=document["uuid"],
        directions=study.directions,
        objectives=document["objectives"],
        created=iso_time(row.created),
        state=state,
        seed=study.seed,
        n_trials=row.n_trials,
        timeout=document["config"]["study"]["timeout"],
        seconds=round(row.seconds, 3),
        slots=_slot_records(attempts),
        sampler=document["sampler"],
        pruner=document["pruner"],
        config=document["config"],
        overrides=document["overrides"],
        command=document["command"],
        space=document["space"],
        sha=document["sha"],
        provenance=document["provenance"],
        data=document["data"],
        model=document["model"],
        options=document["options"],
        sessions=document.get("sessions", []),
    )


def _slot_records(attempts: Sequence[Attempt]) -> list[SlotRecord]:
    """The slots that attempts ran in."""
    slots = {SlotRecord(each.worker, each.slot, each.device, each.host) for each in attempts}
    return sorted(slots)


def _is_any_at_work(
    study: Study,
    trials: Sequence[TrialRecord],
    attempts: Sequence[Attempt],
) -> bool:
    """Whether anybody is at work on a trial, as far as is known."""
    live = [each for each in attempts if each.state == AttemptState.RUNNING]
    silent = silent_attempts(study, live)
    at_work = {each.number for each in live if each.token not in silent}
    for trial in trials:
        if trial.state is RecordedTrialState.RUNNING and trial.number in at_work:
            return True
    return False


def _trial_records(study: Study, attempts: Sequence[Attempt]) -> list[TrialRecord]:
    by_number: dict[int, list[Attempt]] = {}
    for attempt in attempts:
        by_number.setdefault(attempt.number, []).append(attempt)
    records = []
    for trial in study.trials():
        its_attempts = by_number.get(trial.number, [])
        records.append(_trial_record(study, trial, its_attempts))
    return records


def _trial_record(study: Study, trial: FrozenTrial, attempts: Sequence[Attempt]) -> TrialRecord:
    is_failed = trial.state is TrialState.FAIL
    values = _values_of(trial)
    ended = attempts[-1].ended if attempts and trial.state.is_finished() else None
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        reason=_reason_of(trial) if is_failed else None,
        error=_last_error(attempts) if is_failed else None,
        params=_params_of(study, trial),
        value=values[0] if values else None,
        values=values,
        intermediate=[[step, value] for step, value in sorted(trial.intermediate_values.items())],
        started=iso_time(attempts[0].started) if attempts else None,
        ended=iso_time(ended),
        seconds=seconds_of(attempts) if attempts else None,
        seed=study.seed_of_trial(trial.number),
        duplicate_of=trial.user_attrs.get(DUPLICATE),
        default=bool(trial.user_attrs.get("default")),
        enqueued=bool(trial.user_attrs.get("enqueued")),
        training=TrainingRecord.from_result(result_of_last(attempts)),
        infeasible=None if is_feasible(trial) else True,
        seen=_seen_by_proposal(trial, attempts),
        verdict=_last_verdict(attempts),
        attempts=[attempt_record(each) for each in attempts],
    )


def _seen_by_proposal(trial: FrozenTrial, attempts: Sequence[Attempt]) -> SeenJson | None:
    """What the trial's proposal saw; None where that is not known."""
    seen: str | None = trial.user_attrs.get(SEEN)
    for attempt in attempts:
        seen = attempt.seen or seen
    return None if seen is None else parse_json(seen, IN_DATABASE)


def _last_verdict(attempts: Sequence[Attempt]) -> VerdictJson | None:
    """The pruner's last verdict; None where that is not known."""
    for attempt in reversed(attempts):
        if attempt.verdict:
            return parse_json(attempt.verdict, IN_DATABASE)
    return None


def _values_of(trial: FrozenTrial) -> list[float] | None:
    """What a trial scored; None unless it is complete."""
    if trial.state is not TrialState.COMPLETE or not trial.values:
        return None
    return list(trial.values)


def _reason_of(trial: FrozenTrial) -> str:
    reason: str = trial.user_attrs.get(REASON) or FailureReason.EXCEPTION
    return reason


def _last_error(attempts: Sequence[Attempt]) -> str | None:
    for attempt in reversed(attempts):
        if attempt.error:
            return attempt.error
    return None


def _params_of(study: Study, trial: FrozenTrial) -> Params:
    """Searched values of a trial; of one that waits those that it was given."""
    fixed = trial.system_attrs.get("fixed_params", {})
    return study.params_of(trial) or study.space.decode(fixed)


def _opening_facts(row: Mapping[str, Any]) -> OpeningFacts:
    return OpeningFacts(
        ledger_id=row["id"],
        kind=row["kind"],
        trial_number=row["number"],
        seed=row["seed"],
        evaluated_at=iso_time(row["opened"]),
    )


def _opening_record(row: Mapping[str, Any]) -> OpeningRecord:
    document = parse_json(row["document"] or "{}", IN_DATABASE)
    return OpeningRecord(
        opening=_opening_facts(row),
        round=document.get("round"),
        scored=bool(row["document"]),
        test_digest=row["test_digest"],
    )


def _test_set_record(ledger: Ledger) -> TestSetRecord | None:
    """The test split of a study, with its openings by all studies of the storage."""
    rows = ledger.rows_of_test_set()
    if rows is None or ledger.test_digest is None:
        return None
    openings = [
        TestSetOpening(
            ledger_id=row["id"],
            study=row["study"] or None,
            is_own=bool(row["is_own"]),
            kind=row["kind"],
            evaluated_at=iso_time(row["opened"]),
        )
        for row in rows
    ]
    return TestSetRecord(ledger.test_digest, openings)


def scored_opening(row: Mapping[str, Any]) -> ScoredOpening:
    """What the test set showed, of a row of the ledger that has a document."""
    return ScoredOpening(_opening_facts(row), parse_json(row["document"], IN_DATABASE))
