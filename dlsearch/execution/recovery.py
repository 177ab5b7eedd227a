"""What other workers left.

Results that wait in the store, attempts of the dead, and journals without an end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsearch.core.machine.processes import ProcessState, state_of

if TYPE_CHECKING:
    from dlsearch.execution.run_journals import Ends
    from dlsearch.execution.service import Service


class Recovery:
    """Ends what the dead held.

    Args:
        service: What the parts of the worker share.
        journals: Ends journals.
    """

    def __init__(self, service: Service, journals: Ends) -> None:
        """Nothing is recovered yet."""
        self._service = service
        self._journals = journals

    def begin(self) -> None:
        """Record what an earlier worker of this store kept, and end what is left of dead ones."""
        service = self._service
        service.pending.write_kept(service.client)
        self._reap_dead_neighbours()
        self._end_journals_of_the_dead()

    def reap(self) -> None:
        """End the attempts of dead workers, and those beyond their lease."""
        self._reap_dead_neighbours()
        if self._service.client.is_overdue():
            self._service.client.reap()
            # All of this machine's, whenever they were lost: who reaped them may not have heard
            # that it is recorded.
            self._end_journals_of_the_dead()

    def _reap_dead_neighbours(self) -> None:
        """End the attempts of workers that are seen to be dead: they need no lease to run out."""
        client = self._service.client
        dead: set[str] = set()
        for attempt in client.live_attempts():
            if state_of(attempt.process) is ProcessState.DEAD:
                dead.add(attempt.worker)
        for worker in dead:
            lost = client.reap(worker)
            self._journals.end_all(self._service.files.open_journals(lost))

    def _end_journals_of_the_dead(self) -> None:
        self._journals.end_all(self._service.files.open_journals_of_the_dead())
