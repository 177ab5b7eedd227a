"""Free slots and the claims for them.

When to ask for one, and when there is nothing left to wait for.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from dlsearch.core.files.disk import is_full
from dlsearch.core.machine.processes import ProcessIdentity
from dlsearch.execution.backpressure import TRIES
from dlsearch.execution.claimer import Claimer, Wanted
from dlsearch.execution.service import Service, is_outage
from dlsearch.storage.availability import Outage, line_of, to_stderr
from dlsearch.study.models import Ending
from dlsearch.study.states import AttemptKind, AttemptState, FailureReason

if TYPE_CHECKING:
    from dlsearch.execution.claimer import Answer
    from dlsearch.execution.resources.capacity import Cards
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.storage.attempts import Holder
    from dlsearch.study.client import ClaimRequest
    from dlsearch.study.models import Claim

#: After a claim that found nothing the next one waits so long, seconds.
IDLE_S = 0.25
#: What the selector says of the claimer.
ANSWER = "answer"


class SlotFiller:
    """Gives free slots work.

    Args:
        service: What the parts of the worker share.
        selector: Becomes readable when a claim is answered.
        slots: This machine's.
        limits: What is asked for a slot, with the worker's own deadline and target; the slot is
            filled in.
        cards: How many of the slots of each GPU are open; None opens all.
        start: Starts a claim's process; False where the trial was given back instead.
    """

    def __init__(
        self,
        service: Service,
        selector: selectors.BaseSelector,
        slots: list[Slot],
        *,
        limits: ClaimRequest,
        cards: Cards | None,
        start: Callable[[Claim, Holder, Slot], bool],
    ) -> None:
        """Nothing is claimed yet."""
        self._service = service
        self._selector = selector
        self._slots = slots
        self._limits = limits
        self._cards = cards
        self._start = start
        self.claimer = Claimer(service.client, service.heartbeat)
        self._known_budget = service.client.known_budget()
        self._idle_until = 0.0
        self._full_disk_claims = 0
        # The claimer's connection may fail where the worker's does not: a server has only so many.
        self._outage = Outage(service.patience_s, self._say_of_outage)
        self._only_claims_fail = False
        self._unwanted: Claim | None = None  # claimed too late, and not given back yet
        self._has_closed = False  # an attempt, since the last claim was asked for
        self._others_ran = True  # when the last claim was asked for, as far as is known

    def attempt_closed(self) -> None:
        """Note that an attempt has ended here: there may be something to claim again."""
        self._idle_until = 0.0
        self._has_closed = True

    def fill_free_slots(self) -> bool:
        """Give free slots work.

        True while there is some, or others' trials are worth waiting for.
        """
        if self.claimer.busy:
            return True
        answer = self.claimer.take()
        if answer is not None and not self._take_up(answer):
            return True
        slot = self._free_slot()
        if slot is not None:
            if self._must_wait():
                return True
            if time.monotonic() >= self._idle_until:
                self._ask_for(slot)
                return True
        if self._service.running or self._others_run():
            self._others_ran = True
            return True
        # what they left, or was reaped of them, may wait since the last claim looked
        if self._others_ran:
            self._others_ran = False
            self._idle_until = 0.0
            return self.fill_free_slots()
        return False

    def abandon(self) -> None:
        """Want no claim any more."""
        self.claimer.abandon()

    def close(self) -> None:
        """End the thread that claims."""
        if self.claimer.started:
            self._selector.unregister(self.claimer)
        self.claimer.close()

    def has_given_claim_back(self) -> bool:
        """Give back what is claimed, or is being claimed; False where that is not done yet."""
        if not self._has_released_answer():
            return False
        if not self.claimer.busy:
            return self._has_forgotten_unheard()
        token = self.claimer.token
        if token is None:
            return False
        withdraw = partial(self._service.client.withdraw, token)
        return self._service.try_now(withdraw, False)

    def _has_released_answer(self) -> bool:
        """Release a claim that came too late; False where the database cannot be reached."""
        answer = self.claimer.take()
        if answer is not None and answer.claim is not None:
            self._unwanted = answer.claim
        if self._unwanted is None:
            return True
        release = partial(self._service.client.release, self._unwanted)
        was_live = self._service.try_now(release, None)
        if was_live is None:
            return False
        self._unwanted = None
        return True

    def _has_forgotten_unheard(self) -> bool:
        """Remove attempts of which nothing was heard; False where the database is away."""
        unheard = self.claimer.unheard()
        if not unheard:
            return True

        def forget() -> bool:
            self._service.client.forget_unconfirmed(unheard)
            return True

        return self._service.try_now(forget, False)

    def keep_claim(self) -> None:
        """Keep in the store what could not be given back: the next worker of it does.

        Raises:
            OSError: It cannot be written.
        """
        pending = self._service.pending
        answer = self.claimer.take()
        if answer is not None and answer.claim is not None:
            self._unwanted = answer.claim
        if self._unwanted is not None:
            interrupted = Ending(AttemptState.INTERRUPTED, FailureReason.INTERRUPTED)
            pending.keep(self._unwanted, interrupted)
            self._unwanted = None
        tokens = self.claimer.unheard()
        if self.claimer.token is not None:
            tokens.add(self.claimer.token)
        pending.keep_opened(tokens)

    # -- asking -----------------------------------------------------------------------------------
    def _free_slot(self) -> Slot | None:
        for slot in self._slots:
            if slot.index not in self._service.running and self._is_open(slot):
                return slot
        return None

    def _is_open(self, slot: Slot) -> bool:
        """Whether the slot's card has memory for one more trial."""
        if self._cards is None:
            return True
        return len(self._service.sharing_device_of(slot)) < self._cards.limit(slot.device)

    def _must_wait(self) -> bool:
        """Whether disk or database must be waited for before anything is claimed."""
        back_pressure = self._service.back_pressure
        if not back_pressure.has_space() and not self._is_time_over():
            return True
        return not back_pressure.outage.due() or not self._outage.due()

    def _is_time_over(self) -> bool:
        """Whether no trial may be claimed any more, as far as is known without the database."""
        now = time.time()
        deadline = self._limits.deadline
        if deadline is not None and now >= deadline:
            return True
        return self._known_budget.is_time_over(now)

    def _ask_for(self, slot: Slot) -> None:
        holder = replace(
            self._limits.holder,
            pid=os.getpid(),
            slot=slot.index,
            device=slot.device,
            process=ProcessIdentity.of(),
        )
        if not self.claimer.started:
            self.claimer.start()
            self._selector.register(
                self.claimer,
                selectors.EVENT_READ,
                (None, ANSWER),
            )
        kinds = [each.claim.kind for each in self._service.running.values()]
        no_trial_runs = AttemptKind.TRIAL not in kinds
        self._has_closed = False
        request = replace(self._limits, holder=holder, confirm=no_trial_runs)
        self.claimer.ask(Wanted(slot, request))

    def _others_run(self) -> bool:
        """Whether any attempt is live: one that another worker may yet lose."""
        client = self._service.client
        return self._service.try_now(lambda: bool(client.live_attempts()), True)

    # -- answers ----------------------------------------------------------------------------------
    def _take_up(self, answer: Answer) -> bool:
        """Start what was claimed; False where the database, or its disk, is to be waited for.

        Raises:
            DatabaseAwayError: The database could not be reached for too long.
            Exception: Why the claim failed, where that was something else.
        """
        if answer.error is not None:
            self._wait_after(answer.error)
            return False
        self._outage.over()
        self._full_disk_claims = 0
        self._known_budget = answer.budget or self._known_budget
        if answer.claim is None:
            # What has ended here since it was asked may have left something to do: it is asked
            # again at once.
            self._idle_until = 0.0 if self._has_closed else time.monotonic() + IDLE_S
            return True
        self._others_ran = True
        return self._start(
            answer.claim,
            answer.wanted.request.holder,
            answer.wanted.slot,
        )

    def _wait_after(self, error: Exception) -> None:
        """Note why a claim failed, where that passes.

        Raises:
            DatabaseAwayError: The database could not be reached for too long.
            Exception: `error`, where it does not pass.
        """
        if is_outage(error):
            self._service.client.note_outage()
            self._others_run()  # whether this thread's connection fails, too
            self._only_claims_fail = not self._service.back_pressure.outage.now
            self._outage.seen(error)
        elif is_full(error) and self._full_disk_claims + 1 < TRIES:
            self._full_disk_claims += 1
            self._service.back_pressure.note_disk_full(line_of(error))
        else:
            raise error

    def _say_of_outage(self, line: str) -> None:
        if self._only_claims_fail:  # else it has been said
            to_stderr(line)
