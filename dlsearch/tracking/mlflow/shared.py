"""Runs that the server has already, found by their tags.

This machine made them before a crash, or another one did.

The client is mlflow's; this module imports none of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORD = re.compile(r"[0-9A-Za-z_-]{1,64}")


def by_key(client: Any, experiment: str, key: str) -> list[Any]:
    """The runs that were made of the journal `key`.

    There are two where a request arrived after it had been given up.
    """
    return _search_runs(client, experiment, f"tags.`{layout.KEY}` = '{key}'")


def of_study(
    client: Any,
    experiment: str,
    kind: str,
    row: Mapping[str, Any],
) -> Any:
    """The run of its kind that a study has, whichever machine made it; None where it has none."""
    uuid = row["tags"].get(layout.STUDY_UUID)
    if not isinstance(uuid, str) or not _WORD.fullmatch(uuid):  # it becomes a part of a question
        return None
    runs = _search_runs(
        client,
        experiment,
        f"tags.`{layout.KIND}` = '{kind}' and tags.`{layout.STUDY_UUID}` = '{uuid}'",
    )
    return runs[0] if runs else None


def _search_runs(client: Any, experiment: str, where: str) -> list[Any]:
    return sorted(
        client.search_runs([experiment], where, max_results=10),
        key=lambda run: str(run.info.run_id),
    )
