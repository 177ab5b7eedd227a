"""The log of a study: a record for each change of its state, with its ids.

The records go to the logger ``dlsearch.search``. The terminal is one handler of it. Other handlers,
of a service or of a user's configuration of ``logging``, get the same records, with the attributes
``event``, ``study``, ``study_uuid`` and, where they are known, ``trial``, ``attempt``, ``replica``
and ``worker``.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from dlsearch.core.masking import mask_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlsearch.app.view import View

logger = logging.getLogger("dlsearch.search")
logger.setLevel(logging.INFO)  # the terminal shows them whatever is said of other loggers


class StudyEvent(StrEnum):
    """What has happened to a study."""

    BEGAN = "began"
    RESUMED = "resumed"
    NOTICE = "notice"
    TRIAL_ENDED = "trial_ended"
    REPLICA_ENDED = "replica_ended"
    INTERRUPTED = "interrupted"
    ENDED = "ended"
    RESULT = "result"


#: What a live table shows as well.
_IN_TABLE = (StudyEvent.TRIAL_ENDED, StudyEvent.REPLICA_ENDED)


class StudyLog:
    """Writes the records of one study.

    Args:
        name: The study.
        uuid: Its own, which no other study of that name has.
    """

    def __init__(self, name: str, uuid: str) -> None:
        """Nothing is logged yet."""
        self._name = name
        self._uuid = uuid

    def note(
        self,
        event: StudyEvent,
        line: str,
        *,
        trial: int | None = None,
        attempt: int | None = None,
        replica: int | None = None,
        worker: str | None = None,
    ) -> None:
        """Log a change.

        Args:
            event: What has happened.
            line: The same in words.
            trial: Its number.
            attempt: Which execution of the trial.
            replica: Which training of the confirmation.
            worker: Who ran it.
        """
        ids = {
            "event": event,
            "study": self._name,
            "study_uuid": self._uuid,
            "trial": trial,
            "attempt": attempt,
            "replica": replica,
            "worker": worker,
        }
        logger.info("%s", mask_text(line), extra=ids)

    @contextmanager
    def shown_in(self, view: View) -> Iterator[None]:
        """Within it, `view` shows the records of this study."""
        handler = _ViewHandler(view, self._uuid)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _ViewHandler(logging.Handler):
    """Shows the records of one study; those of trials only where no table does."""

    def __init__(self, view: View, study_uuid: str) -> None:
        super().__init__(logging.INFO)
        self._view = view
        self._study_uuid = study_uuid

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record's line; what writing raises, the use case hears."""
        fields = vars(record)
        if fields.get("study_uuid") != self._study_uuid:
            return
        if fields["event"] in _IN_TABLE and self._view.has_live_table:
            return
        self._view.say(record.getMessage())
