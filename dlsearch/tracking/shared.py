"""Runs that the server has already, found by their tags: this machine made them before a crash, or another one did.

The client is mlflow's; this module imports none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping


def by_key(client: Any, experiment: str, key: str) -> list[Any]:
    """The runs that were made of the journal `key`: two, where a request arrived after it had been given up."""
    return _found(client, experiment, f"tags.`{layout.KEY}` = '{key}'")


def of_study(client: Any, experiment: str, kind: str, row: Mapping[str, Any]) -> Any:
    """The one run of its kind that the study of a journal's first row has, whichever machine made it; or None."""
    uuid = row["tags"].get(layout.STUDY_UUID)
    if uuid is None:
        return None
    runs = _found(client, experiment, f"tags.`{layout.KIND}` = '{kind}' and tags.`{layout.STUDY_UUID}` = '{uuid}'")
    return runs[0] if runs else None


def _found(client: Any, experiment: str, where: str) -> list[Any]:
    return sorted(client.search_runs([experiment], where, max_results=10), key=lambda run: str(run.info.run_id))
