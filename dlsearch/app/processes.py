"""The processes beside a search: the warm fork server, the shipper, and the launcher's engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dlsearch.execution.processes.forkserver import ForkServer
from dlsearch.execution.processes.preload import preload
from dlsearch.execution.processes.signals import interrupt_on_stop

if TYPE_CHECKING:
    from types import TracebackType

    from dlsearch.app.prepare import Prepared
    from dlsearch.app.session import Session
    from dlsearch.tracking.handle import Shipper


class SearchProcesses:
    """Started early, as they import for seconds; ended with the search, however it ends.

    The shipper outlives the search where something is to be shipped: the report comes last.

    Args:
        prepared: The search.
        session: Forgets the warm fork server in the end.
    """

    def __init__(self, prepared: Prepared, session: Session) -> None:
        """Nothing is started yet."""
        self._prepared = prepared
        self._session = session
        self.server: ForkServer
        self.shipper: Shipper | None = None

    def __enter__(self) -> SearchProcesses:
        """Start the fork server, and a shipper that imports mlflow while cores are idle."""
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            interrupt_on_stop()  # Ray handles SIGTERM too: the launcher was connected before
        self.server = ForkServer.start(preload(self._prepared.draft.representatives()))
        uri = self._prepared.tracking_uri
        if uri is not None:
            from dlsearch.tracking.handle import Shipper

            self.shipper = Shipper(self._prepared.store, uri, wait=True)
        return self

    def start_shipping(self) -> None:
        """Have the shipper send the journals of the study, which is open now."""
        if self.shipper is None:
            return
        from dlsearch.tracking import layout
        from dlsearch.tracking.destination import remember

        store = self._prepared.store
        remember(store, store / layout.study_folder(self._prepared.draft.name), self.shipper.uri)
        self.shipper.go()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End them; a shipper only where it was never asked to send anything."""
        self._session.warm_server = None
        self._prepared.launcher.close()
        if self.shipper is not None and self.shipper.waits:
            self.shipper.dismiss()
        self.server.stop()
