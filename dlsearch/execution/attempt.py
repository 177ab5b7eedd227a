"""The process of an attempt: what it is given, and what its worker knows of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.confirmation.rounds import Rounds, result_of
from dlsearch.core import provenance
from dlsearch.core.files.inside import plain
from dlsearch.core.files.regular import write_text
from dlsearch.core.masking import mask
from dlsearch.execution import outcome
from dlsearch.execution.outcome import Ending, Limits, micro_batches
from dlsearch.study.models import ConfirmClaim, Result
from dlsearch.study.states import AttemptKind, Direction, KillCause
from dlsearch.study.trial_config import trial_config
from dlsearch.study.trial_secrets import NO_SECRETS, TrialSecrets
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlsearch.execution.forkserver import Child
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.study.client import AttemptSummary, StudyClient, StudyFacts
    from dlsearch.study.models import Claim

#: What of a training's result its scoring gets, to find the same weights and the same figure
#: again.
_SAID = ("values", "best_epoch", "state_sha256", "inputs", "micro_batches")


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
        unreported: Epochs that are not in the storage yet, because it could not be reached.
        end: How it ended, once its process has.
        timeout_s: How long it may take; None where there is no limit.
    """

    claim: Claim
    slot: Slot
    child: Child
    journal: Path | None
    started: float
    result: Result | None = None
    ledger_row: int | None = None
    killed_for: KillCause | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    history: list[list[float]] = field(default_factory=list)
    before: list[AttemptSummary] = field(default_factory=list)
    sharing: int = 1
    unreported: list[tuple[int, float]] = field(default_factory=list)
    end: Ending | None = None
    timeout_s: float | None = None

    def kill(self, cause: KillCause) -> None:
        """Kill the process, and remember why."""
        self.killed_for = cause
        self.child.signal(signal.SIGKILL)


def attempts_before(client: StudyClient, claim: Claim) -> list[AttemptSummary]:
    """The attempts at the same before this one."""
    if claim.attempt == 1:
        return []
    found = client.attempts(kind=claim.kind, number=claim.number)
    return [attempt for attempt in found if attempt.attempt < claim.attempt]


def judge(
    running: Running,
    code: int,
    facts: StudyFacts,
    *,
    crowded: bool,
    stopping: bool,
    by_kernel: bool,
) -> Ending:
    """What the end of an attempt's process means.

    Args:
        running: The attempt.
        code: Exit status of its process.
        facts: What is known of the study.
        crowded: Whether it ran out of memory beside others.
        stopping: Whether the worker was asked to stop.
        by_kernel: Whether the kernel's out-of-memory killer took it.
    """
    result = running.result
    device = running.slot.device
    if running.claim.kind == AttemptKind.TEST and result is not None and not crowded:
        return Ending(result.state, result.reason, result.error, result)
    reached = outcome.reached_of(running.progress)
    if running.killed_for == outcome.TIMEOUT:
        best = max if facts.directions[0] == Direction.MAXIMIZE else min
        assert running.timeout_s is not None
        objective = facts.objectives[0]
        reached = outcome.timed_out(
            running.timeout_s, running.history, reached.epochs or 0, objective, best
        )
    return outcome.judge(
        result,
        code,
        outcome.reasons(running.before),
        Limits(facts.max_attempts, facts.max_halvings),
        crowded=f"out of memory beside {running.sharing - 1} on {device}" if crowded else None,
        killed_for=running.killed_for,
        stopping=stopping,
        by_kernel=by_kernel,
        reached=reached,
    )


def payload_of(
    rounds: Rounds,
    claim: Claim,
    before: Sequence[AttemptSummary],
    folder: Path,
    store: Path,
    paths: Mapping[str, Any],
    secrets: TrialSecrets = NO_SECRETS,
) -> dict[str, Any]:
    """The payload of a claim's process, but for its threads and its journal.

    Its config is put into `folder`.

    Args:
        rounds: The study's.
        claim: What is to be done.
        before: Earlier attempts at it.
        folder: Where its files go; it exists.
        store: This machine's store.
        paths: This machine's ``paths`` config.
        secrets: What the masks of the study's document hide.

    Raises:
        OSError: The disk is full, or the like.
    """
    study = rounds.study
    payload: dict[str, Any] = {
        "folder": str(folder),
        "objectives": study.typed.objectives,
        "directions": study.directions,
        "params": claim.params,
        "origin": provenance.origin(tuple(study.typed.allow_targets)),
    }
    if claim.kind == AttemptKind.TEST:
        return payload | _trained(rounds, store, paths, secrets)
    cfg = trial_config(
        study.document,
        claim.params,
        seed=claim.seed,
        paths=paths,
        secrets=secrets,
    )
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(mask(cfg))))
    original = claim.finalist.trial_number if isinstance(claim, ConfirmClaim) else None
    of_trial = (
        [] if original is None else study.leases.rows(kind=AttemptKind.TRIAL, number=original)
    )
    count = micro_batches(before, of_trial)
    return payload | {"cfg": cfg, "epochs": getattr(claim, "epochs", None), "micro_batches": count}


def _trained(
    rounds: Rounds,
    store: Path,
    paths: Mapping[str, Any],
    secrets: TrialSecrets,
) -> dict[str, Any]:
    """What there is to score.

    All replicas of the winner that ended, and its training on train + validation.
    """
    now = rounds.last()
    study = rounds.study
    assert now is not None
    runs, kept = now.to_score(study.max_attempts)
    winner = now.race.winner
    assert winner is not None
    results = [
        result_of(now.refits) if run.replica is None else now.result(winner, run.replica)
        for run in runs
    ]
    return {
        "kept": kept,
        "trained": [
            {
                "cfg": trial_config(
                    study.document,
                    run.params,
                    seed=run.seed,
                    paths=paths,
                    secrets=secrets,
                ),
                "folder": str(plain(store, layout.confirm_folder(study.name, run.name))),
                "epochs": run.epochs,
                **{key: result.get(key) for key in _SAID},
            }
            for run, result in zip(runs, results, strict=True)
        ],
    }
