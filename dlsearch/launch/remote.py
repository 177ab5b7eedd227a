"""Jobs that no signal of this process reaches: what users should know, and how they are recalled.

A worker on another machine looks into the study's storage every few seconds. There the search
writes the word of a session, and every worker of that session gives its trials back and ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.core.retry import wait_until
from dlsearch.launch.base import JobPlace, SearchLauncher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlsearch.study.study import Study

RECALL_SECONDS = 9.0
POLL_SECONDS = 0.2
_STOPPED = "dlsearch:stopped:"


class RemoteLauncher(SearchLauncher):
    """A launcher whose jobs have machines, or shares of machines, of their own."""

    @property
    def job_place(self) -> JobPlace:
        """Elsewhere."""
        return JobPlace.ELSEWHERE


def notices(storage_url: str, config: Mapping[str, Any]) -> list[str]:
    """What a user should know of a storage or a server that not every machine reaches.

    Args:
        storage_url: Of the study.
        config: The composed config of the search.
    """
    found = []
    if storage_url.startswith("sqlite"):
        found.append(
            "the study's database is a file: workers on other machines need "
            "study.storage=postgresql+psycopg://…"
        )
    tracking = config["tracking"]
    has_own_paths = config["worker"].get("own_paths")
    if tracking["enabled"] and not tracking["uri"] and has_own_paths:
        found.append(
            "runs of other machines reach MLflow through a server alone: tracking.uri=http://…"
        )
    return found


def recall(study: Study, session: str) -> None:
    """Ask every worker of `session` to give its trials back and end, and wait until they have."""
    study.storage.optuna.set_study_system_attr(
        study.id,
        _STOPPED + session,
        value=True,
    )
    wait_until(
        lambda: not study.others_running(),
        timeout_s=RECALL_SECONDS,
        poll_s=POLL_SECONDS,
    )


def is_recalled(study: Study, session: str) -> bool:
    """Whether the workers of `session` were asked to stop."""
    return _STOPPED + session in study.storage.optuna.get_study_system_attrs(study.id)
