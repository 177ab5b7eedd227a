"""What the process of an attempt says to its worker, and what it is answered."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from dlsearch.core.text import line_of_error
from dlsearch.execution import pending_results
from dlsearch.execution.messages import Began, Done, Report, Unseal, Verdict, message_of
from dlsearch.execution.outcome import FENCED, UNRECORDED, failure
from dlsearch.execution.service import Service, is_of_one_attempt
from dlsearch.study.models import ConfirmClaim, Result

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject
    from dlsearch.execution.attempt import Running
    from dlsearch.execution.messages import Message


class Conversation:
    """Takes the messages of attempts: reports, the opening of the test set, and results.

    Args:
        service: What the parts of the worker share.
    """

    def __init__(self, service: Service) -> None:
        """Nothing is said yet."""
        self._service = service

    def hear(self, running: Running) -> bool:
        """Take one message of a trial and answer it; False where there are no more.

        What cannot be understood or recorded is this attempt's failure, and ends no other.
        """
        try:
            found = running.child.channel.receive()
            if found is not None and running.killed_for not in (FENCED, UNRECORDED):
                self._answer(running, message_of(found))
        except Exception as error:
            if not is_of_one_attempt(error):
                raise
            running.unreported = []
            why = f"what it reported could not be recorded: {line_of_error(error)}"
            self._service.note_failure(running.claim, why, error)
            running.result = failure(why).result
            running.kill(UNRECORDED)
            return False
        return found is not None

    def _answer(self, running: Running, message: Message | None) -> None:
        match message:
            case Report():
                verdict = Verdict(prune=self._take_report(running, message))
                self._send(running, verdict.to_json())
            case Began():
                running.progress |= vars(message)
            case Unseal():
                self._open_test_ledger(running)
                self._send(running, {})
            case Done():
                self._take_result(running, message.result)

    def _take_report(self, running: Running, report: Report) -> bool:
        """Report an epoch; the pruner's verdict."""
        epoch = report.epoch
        value = report.metrics.get(self._service.facts.objectives[0])
        running.progress |= {"epoch": epoch + 1, "value": value}
        if value is None:
            return False
        running.history.append([epoch, value])
        running.unreported.append((epoch, value))
        ask = partial(
            pending_results.report_epochs,
            self._service.client,
            running,
        )
        return self._service.try_now(ask, False)

    def _open_test_ledger(self, running: Running) -> None:
        claim = running.claim
        assert isinstance(claim, ConfirmClaim)
        open_ledger = partial(self._service.client.open_test_ledger, claim)
        running.ledger_row = self._service.insist(open_ledger)

    def _take_result(self, running: Running, found: JsonObject) -> None:
        """Keep the result that a process sent; something else is a failure of the attempt."""
        try:
            running.result = Result.from_json(found)
        except (KeyError, TypeError, ValueError) as error:
            why = f"its result could not be understood: {line_of_error(error)}"
            self._service.note_failure(running.claim, why, error)
            running.result = failure(why).result

    @staticmethod
    def _send(running: Running, answer: JsonObject) -> None:
        with contextlib.suppress(OSError):  # it has ended
            running.child.channel.send(answer)
