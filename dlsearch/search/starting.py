"""The process of an attempt: what it is given, and what its worker knows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.search import endings
from dlsearch.search.endings import Ending, Limits, micro_batches
from dlsearch.search.rounds import TEST, ConfirmClaim, Rounds
from dlsearch.search.trial_config import trial_config
from dlsearch.tracking import layout, provenance
from dlsearch.tracking.masking import mask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlsearch.search.database import Attempt
    from dlsearch.search.forkserver import Child
    from dlsearch.search.slots import Slot
    from dlsearch.search.study import Claim, Study


@dataclass
class Running:
    """A claim with its process.

    Args:
        claim: What is done.
        slot: Where.
        child: The process.
        journal: Its journal; None where it has no run of its own.
        started: By the monotonic clock.
        result: What it sent at its end.
        ledger_row: Of the test set's opening.
        killed_for: Why this worker killed it.
        progress: How far it is, as the attempt's row shows it.
        history: (epoch, first objective) that it reported.
        before: Earlier attempts at the claim.
        sharing: Trials on its device at the busiest, itself included.
        unreported: Epochs that the storage has not heard of, because it was away.
        end: How it ended, once its process has.
    """

    claim: Claim
    slot: Slot
    child: Child
    journal: Path | None
    started: float
    result: dict[str, Any] | None = None
    ledger_row: int | None = None
    killed_for: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    history: list[list[float]] = field(default_factory=list)
    before: list[Attempt] = field(default_factory=list)
    sharing: int = 1
    unreported: list[tuple[int, float]] = field(default_factory=list)
    end: Ending | None = None


def earlier(study: Study, claim: Claim) -> list[Attempt]:
    """The attempts before this one."""
    if claim.attempt == 1:
        return []
    return [a for a in study.leases.rows(kind=claim.kind, number=claim.number) if a.attempt < claim.attempt]


def judge(
    running: Running,
    code: int,
    study: Study,
    limits: Limits,
    *,
    crowded: bool,
    trial_timeout: float | None,
    stopping: bool,
    by_kernel: bool,
) -> Ending:
    """What the end of an attempt's process means.

    Args:
        running: The attempt.
        code: Exit status of its process.
        study: The open study.
        limits: How often a trial is tried again.
        crowded: Whether it ran out of memory beside others.
        trial_timeout: Seconds that it had.
        stopping: Whether the worker was told to stop.
        by_kernel: Whether the kernel's out-of-memory killer took it.
    """
    result, device = running.result, running.slot.device
    if running.claim.kind == TEST and result is not None and not crowded:
        return Ending(result["state"], result.get("reason"), result.get("error"), result)
    reached = endings.reached_of(running.progress)
    if running.killed_for == endings.TIMEOUT:
        best = max if study.directions[0] == "maximize" else min
        assert trial_timeout is not None
        objective = study.document["objectives"][0]
        reached = endings.timed_out(trial_timeout, running.history, reached["epochs"], objective, best)
    return endings.judge(
        result,
        code,
        endings.reasons(running.before),
        limits,
        crowded=f"out of memory beside {running.sharing - 1} on {device}" if crowded else None,
        killed_for=running.killed_for,
        stopping=stopping,
        by_kernel=by_kernel,
        reached=reached,
    )


def payload_of(
    rounds: Rounds, claim: Claim, before: Sequence[Attempt], folder: Path, store: Path, paths: Mapping[str, Any]
) -> dict[str, Any]:
    """The payload of a claim's process, but for its threads and its journal; its config is put into `folder`.

    Args:
        rounds: The study's.
        claim: What is to be done.
        before: Earlier attempts at it.
        folder: Where its files go; it exists.
        store: This machine's store.
        paths: This machine's ``paths`` config.

    Raises:
        OSError: The disk is full, or the like.
    """
    study = rounds.study
    payload: dict[str, Any] = {
        "folder": str(folder),
        "objectives": study.document["objectives"],
        "directions": study.directions,
        "params": claim.params,
        "origin": provenance.origin(tuple(study.document["allow_targets"])),
    }
    if claim.kind == TEST:
        return payload | _trained(rounds, store, paths)
    cfg = trial_config(study.document, claim.params, seed=claim.seed, paths=paths)
    OmegaConf.save(OmegaConf.create(mask(cfg)), folder / "config.yaml")
    original = claim.finalist.trial_number if isinstance(claim, ConfirmClaim) else None
    of_trial = [] if original is None else study.leases.rows(kind="trial", number=original)
    count = micro_batches(before, of_trial)
    return payload | {"cfg": cfg, "epochs": getattr(claim, "epochs", None), "micro_batches": count}


def _trained(rounds: Rounds, store: Path, paths: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to score: all replicas of the winner that ended, and its training on train + validation."""
    now, study = rounds.last(), rounds.study
    assert now is not None
    runs, kept = now.to_score(study.max_attempts)
    return {
        "kept": kept,
        "trained": [
            {
                "cfg": trial_config(study.document, run.params, seed=run.seed, paths=paths),
                "folder": str(store / layout.confirm_folder(study.name, run.name)),
                "epochs": run.epochs,
            }
            for run in runs
        ],
    }
