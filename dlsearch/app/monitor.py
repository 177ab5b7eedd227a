"""Following a study while workers serve it.

What is new is logged, and written to the study's own run.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

from dlsearch.app.phrases import (
    describe_best,
    describe_confirmed_winner,
    describe_failures,
    describe_missing_result,
    describe_replica_end,
    describe_test,
    describe_trial_end,
    explain_missing_score,
    format_count,
    format_duration,
    format_trainings,
)
from dlsearch.app.study_log import StudyEvent, StudyLog
from dlsearch.confirmation.round_document import ConfirmSettings
from dlsearch.execution import run_journals
from dlsearch.records.status import read_status
from dlsearch.storage.availability import is_away
from dlsearch.study.states import AttemptKind, StudyState

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from dlsearch.app.study_run import StudyRun
    from dlsearch.app.view import ShowStatus, View
    from dlsearch.records.status import ConfirmationProgress, EndedReplica, Status
    from dlsearch.study.study import Study

REAP_SECONDS = 2.0
TABLE_SECONDS = 0.5
LINES_SECONDS = 0.3
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class StudyEnd:
    """How a study ended, as far as the command's exit code goes.

    Args:
        failed: Whether it is over, and no trial completed.
        unscored: Why the winner has no test score.
    """

    failed: bool
    unscored: str | None


class Monitor:
    """Follows a study from the process that opened it.

    Args:
        study: The open study.
        store: The store.
        run: The study's own run.
        view: Shows the table, where it has one.
        total_slots: Slots that serve the study, for the share in use; None where nobody knows.
    """

    def __init__(
        self,
        study: Study,
        store: Path,
        run: StudyRun,
        view: View,
        *,
        total_slots: int | None,
    ) -> None:
        """What has ended so far is not news."""
        self.study = study
        self.log = StudyLog(study.name, study.document["uuid"])
        self._store = store
        self._run = run
        self._view = view
        self._total_slots = total_slots
        self._started = time.monotonic()
        self._reaped = self._started
        ended = [trial for trial in study.trials() if trial.state.is_finished()]
        self._seen = {trial.number for trial in ended}
        self._seen_at_start = len(self._seen)
        self._seen_replicas: set[_ReplicaId] = set()
        confirmation = read_status(study).confirmation
        if confirmation is not None:
            for each in confirmation.replicas:
                self._seen_replicas.add(_id_of(confirmation, each))

    def announce(
        self,
        notices: Sequence[str],
        *,
        resumed: bool,
        seal: str | None = None,
    ) -> None:
        """Say what begins.

        Args:
            notices: What a user should know.
            resumed: Whether the study existed.
            seal: Who holds the seal on the test set here; None where nobody looked.
        """
        n_trials = self.study.row().n_trials
        if resumed:
            what = f"resumed, {self._seen_at_start} of {n_trials} trials are there"
        else:
            what = format_count(n_trials, "trial")
        what = format_trainings(what, self._count_confirmations())
        slots = ""
        if self._total_slots:
            slots = f", {format_count(self._total_slots, 'slot')}"
        held = "" if seal is None else f", seal: {seal}"
        event = StudyEvent.RESUMED if resumed else StudyEvent.BEGAN
        self.log.note(event, f"study {self.study.name}: {what}{slots}{held}")
        for notice in notices:
            self.log.note(StudyEvent.NOTICE, f"note: {notice}")

    def _count_confirmations(self) -> int:
        """How many trainings confirm the best at most, of a study that is not over; else 0."""
        if not self.study.confirms or self.study.budget().finished:
            return 0
        settings = ConfirmSettings.from_study(self.study.typed.study_settings)
        arms = self.study.arms
        return settings.count_most_trainings(None if arms is None else len(arms))

    def watch(self, stop: threading.Event, guard: AbstractContextManager[Any]) -> None:
        """Follow the study until `stop`; the body of a thread.

        Args:
            stop: Set when the workers have ended.
            guard: Held while the storage is read.
        """
        if self._view.has_live_table:
            with self._view.live_table() as show:
                while not stop.wait(TABLE_SECONDS):
                    with guard:
                        self.follow(show)
        else:
            while not stop.wait(LINES_SECONDS):
                with guard:
                    self.follow()
        with guard:
            self.follow()

    def follow(self, show: ShowStatus | None = None) -> None:
        """Look once. While the database cannot be reached nothing happens: the workers say so.

        Args:
            show: Shows the status in a table.
        """
        try:
            status = self._look()
        except Exception as error:
            if not is_away(error):
                raise
            self.study.leases.broken()
            return
        if show is not None:
            show(status, self._total_slots, self._seconds_left(status))

    def _look(self) -> Status:
        """Log what is new since the last look; returns the status."""
        self._reap_overdue_attempts()
        # first, so that the best of the status is no worse than one that is logged here
        trials = self.study.trials()
        status = read_status(self.study)
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._seen:
                self._note_trial(trial, status)
        if status.confirmation is not None:
            self._note_replicas(status.confirmation)
        return status

    def _note_replicas(self, confirmation: ConfirmationProgress) -> None:
        """Log the trainings of the confirmation that have ended since the last look."""
        for replica in confirmation.replicas:
            its_id = _id_of(confirmation, replica)
            if its_id in self._seen_replicas:
                continue
            self._seen_replicas.add(its_id)
            self.log.note(
                StudyEvent.REPLICA_ENDED,
                describe_replica_end(replica, confirmation),
                trial=replica.trial_number,
                replica=replica.replica,
            )

    def _note_trial(self, trial: FrozenTrial, status: Status) -> None:
        attempts = self.study.leases.rows(kind=AttemptKind.TRIAL, number=trial.number)
        last = attempts[-1] if attempts else None  # one that took over another's result has none
        self._seen.add(trial.number)
        hours = (time.monotonic() - self._started) / SECONDS_PER_HOUR
        self._run.note_trial_end(trial.number, status, self._newly_ended / hours)
        self.log.note(
            StudyEvent.TRIAL_ENDED,
            describe_trial_end(trial, status, last.error if last else None),
            trial=trial.number,
            attempt=last.attempt if last else None,
            worker=last.worker if last else None,
        )

    @property
    def _newly_ended(self) -> int:
        return len(self._seen) - self._seen_at_start

    def _reap_overdue_attempts(self) -> None:
        """End attempts that outlived their leases: the worker that would may be the silent one."""
        if time.monotonic() <= self._reaped + REAP_SECONDS:
            return
        self._reaped = time.monotonic()
        try:
            if self.study.leases.overdue():
                for end in run_journals.left_open(self.study, self._store, self.study.reap()):
                    run_journals.write_end(end)
        except (sa.exc.SQLAlchemyError, OSError, StorageInternalError) as error:
            if is_away(error):
                raise
            # The disk is full, say: the next look tries again.

    def _seconds_left(self, status: Status) -> float | None:
        if not self._newly_ended:
            return None
        seconds_per_trial = (time.monotonic() - self._started) / self._newly_ended
        return seconds_per_trial * (status.n_trials - status.count_ended())

    def conclude(self, *, interrupted: bool) -> StudyEnd:
        """Say how the study ended; and end the journals of those who died before they could."""
        with suppress(OSError):  # the disk is full: the next worker does it
            of_the_dead = run_journals.of_the_dead(self.study)
            for end in run_journals.left_open(self.study, self._store, of_the_dead):
                run_journals.write_end(end)
        status = read_status(self.study)
        failed = status.state is StudyState.FAILED and not interrupted
        unscored = explain_missing_score(status)
        self._say_end(status, interrupted=interrupted)
        for line in _result_lines(status, failed=failed, unscored=unscored):
            self.log.note(StudyEvent.RESULT, line)
        return StudyEnd(failed, unscored)

    def _say_end(self, status: Status, *, interrupted: bool) -> None:
        if interrupted:
            done = f"{status.count_ended()} of {status.n_trials} trials are done"
            self.log.note(StudyEvent.INTERRUPTED, f"interrupted: {done}; the same command goes on")
            return
        total = format_count(sum(status.counts.values()), "trial")
        parts = [f"{count} {state}" for state, count in status.counts.items() if count]
        counts = ", ".join(parts)
        duration = format_duration(time.monotonic() - self._started)
        self.log.note(
            StudyEvent.ENDED,
            f"study {self.study.name}: {total} ({counts}) in {duration}",
        )


def _result_lines(
    status: Status,
    *,
    failed: bool,
    unscored: str | None,
) -> list[str]:
    lines = []
    if failed:
        lines.append(describe_missing_result(status))
    lines += describe_failures(status)
    if status.best is not None:
        lines.append(describe_best(status))
    confirmed = describe_confirmed_winner(status)
    if confirmed is not None:
        lines.append(confirmed)
    if unscored is not None:
        lines.append(unscored)
    if status.test:
        lines.append(describe_test(status.test[-1], status))
    return lines


@dataclass(frozen=True)
class _ReplicaId:
    """What tells the trainings of all rounds of confirmation apart.

    Args:
        round: The round.
        trial_number: The finalist's trial; None for the default configuration that none ran.
        replica: Which of its trainings.
    """

    round: int
    trial_number: int | None
    replica: int


def _id_of(confirmation: ConfirmationProgress, replica: EndedReplica) -> _ReplicaId:
    return _ReplicaId(confirmation.round, replica.trial_number, replica.replica)
