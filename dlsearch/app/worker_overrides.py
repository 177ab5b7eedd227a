"""The overrides of a job that serves a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def worker_overrides(
    name: str,
    cfg: Mapping[str, Any],
    slot_count: Any,
    *,
    typed: Iterable[str] = (),
    session: str | None = None,
) -> list[str]:
    """The overrides of a job that serves study `name`: its place.

    Configuration and budgets are the study's.

    Args:
        name: The study.
        cfg: The composed config of the search, plain.
        slot_count: Slots of the job.
        typed: The overrides of the search itself. A URL that one of them takes from the
            environment is taken from it by the job too: what a scheduler keeps of a job is a file.
        session: The word under which the job is recalled, where no signal reaches it.
    """
    study = cfg["study"]
    paths = cfg["paths"]
    tracking = cfg["tracking"]
    values = {
        "worker.join": name,
        "worker.session": session,
        "worker.slots": slot_count,
        "worker.slots_per_gpu": cfg["worker"].get("slots_per_gpu"),
        "worker.threads": cfg["worker"]["threads"],
        "worker.lease_s": cfg["worker"]["lease_s"],
        "study.storage": study["storage"],
        "study.storage_on_network_fs": study["storage_on_network_fs"],
        "tracking.enabled": bool(tracking["enabled"]),
        "tracking.uri": tracking["uri"],
    }
    if not cfg["worker"].get("own_paths"):
        values |= {
            f"paths.{key}": str(Path(paths[key]).resolve())
            for key in ("store", "data", "cache", "weights")
        }
    kept = {word.partition("=")[0]: word for word in typed if "${oc.env:" in word}
    given = [
        kept.get(key, f"{key}={_quote(value)}")
        for key, value in values.items()
        if value is not None
    ]
    patient = study["storage_patience"]  # null means for ever
    return [*given, f"study.storage_patience={'null' if patient is None else _quote(patient)}"]


def _quote(value: Any) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
