"""The ends of attempts: they are recorded, and their journals ended; some checkpoints go."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dlsearch.core.files.inside import OutsideError
from dlsearch.core.text import line_of_error
from dlsearch.execution import pending_results
from dlsearch.execution.backpressure import needed
from dlsearch.execution.outcome import failure
from dlsearch.execution.run_journals import Ends, JournalEnd
from dlsearch.execution.service import Service, is_of_one_attempt
from dlsearch.study.models import Ending, Result
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason

if TYPE_CHECKING:
    from pathlib import Path

    from dlsearch.execution.attempt import Running
    from dlsearch.study.models import Claim


class Closer:
    """Records how attempts ended.

    Args:
        service: What the parts of the worker share.
    """

    def __init__(self, service: Service) -> None:
        """Nothing has ended yet."""
        self._service = service
        self.journals = Ends(lambda why: service.back_pressure.note_disk_full(why))
        #: Called after an attempt has been closed.
        self.on_closed: Callable[[], None] = lambda: None

    def close(self, running: Running, end: Ending) -> None:
        """Record an end; while that cannot be, the attempt keeps its slot and its lease."""
        service = self._service
        claim = running.claim
        record = partial(
            pending_results.record_running,
            service.client,
            running,
            end,
        )
        try:
            is_accepted = service.try_now(record, None)
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            why = f"its result could not be recorded: {line_of_error(error)}"
            end = self.give_up(
                claim,
                why,
                error,
                for_good=end.result is not None,
            )
            is_accepted = True
        if is_accepted is None:
            return
        del service.running[running.slot.index]
        service.heartbeat.let_go(claim.token)
        self.on_closed()
        if end.reason is FailureReason.DISK:
            size = needed(service.folder_of(claim), _parameters_of(running.result))
            service.back_pressure.note_disk_full(end.error or "", size)
        if running.journal is not None:
            written = end if is_accepted else Ending(AttemptState.LOST, FailureReason.LOST)
            self.leave_journal(running.journal, claim, written)
            self.journals.write()
        if is_accepted:
            self._follow_up(claim, end)

    def close_ended(self) -> None:
        """Record the ends that could not be recorded before."""
        for running in list(self._service.running.values()):
            if running.end is not None:
                self.close(running, running.end)

    def _follow_up(self, claim: Claim, end: Ending) -> None:
        """Do what an accepted end makes due: close the round, and remove checkpoints."""
        if claim.kind == AttemptKind.TEST and end.state is not AttemptState.INTERRUPTED:
            self.close_round()
        if claim.kind == AttemptKind.TRIAL and end.result is not None:
            has_ended = partial(self._service.files.trial_has_ended, claim.number)
            # what is in the way now goes with the next trial, or by `dlsearch gc`, which names a
            # link
            with contextlib.suppress(OSError, OutsideError):
                self._service.insist(has_ended)

    def leave_journal(
        self,
        journal: Path | None,
        claim: Claim,
        end: Ending,
    ) -> None:
        """Have the journal of an attempt ended, when there is space for it."""
        if journal is not None:
            left = JournalEnd(
                journal,
                claim.attempt,
                end.state,
                end.reason,
                end.error,
            )
            self.journals.left.append(left)

    def give_up(
        self,
        claim: Claim,
        why: str,
        error: Exception,
        *,
        for_good: bool,
    ) -> Ending:
        """End an attempt whose own end cannot be recorded: as failed, with the cause alone.

        Where that cannot be written either, or is not `for_good`, it is lost: its trial is tried
        again, and has failed after as many losses as any. One that was not live any more was lost
        already.

        Raises:
            Exception: Not even that can be written: it is not this attempt.
        """
        service = self._service
        service.note_failure(claim, why, error)
        lost = Ending(AttemptState.LOST, FailureReason.LOST, why)
        if for_good:
            failed = failure(why)
            try:
                is_accepted = service.insist(partial(self._record, claim, failed))
            except Exception as again:
                if not is_of_one_attempt(again):
                    raise
            else:
                return failed if is_accepted else lost
        service.insist(partial(self._record, claim, lost))
        return lost

    def _record(self, claim: Claim, end: Ending) -> bool:
        return pending_results.record_end(
            self._service.client,
            claim,
            end,
            None,
        )

    def close_round(self) -> None:
        """Once a round is over: what it showed goes to its runs, and one checkpoint is kept."""
        self._service.insist(self._service.files.close_round)


def _parameters_of(result: Result | None) -> int | None:
    """How many parameters the net has, where its process said a number that counts something."""
    if result is None or result.n_params is None or not math.isfinite(result.n_params):
        return None
    return int(result.n_params)
