"""The process of an attempt: what it is given, and what its worker knows of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from dlsearch.confirmation.rounds import result_of
from dlsearch.core import provenance
from dlsearch.core.files.inside import plain
from dlsearch.core.files.regular import write_text
from dlsearch.core.masking import mask
from dlsearch.core.resume_key import resume_key
from dlsearch.execution import outcome
from dlsearch.execution.messages import ScoringPayload, TrainedPayload, TrialPayload
from dlsearch.execution.outcome import Ending, Evidence, Limits, micro_batches
from dlsearch.study.models import ConfirmClaim, Result
from dlsearch.study.states import AttemptKind, Direction, KillCause
from dlsearch.study.trial_config import trial_config
from dlsearch.study.trial_secrets import NO_SECRETS, TrialSecrets
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dlsearch.confirmation.rounds import Rounds
    from dlsearch.execution.processes.forkserver import Child
    from dlsearch.execution.resources.slots import Slot
    from dlsearch.execution.study_files import NamedDocument
    from dlsearch.study.client import AttemptSummary, Progress, StudyClient, StudyFacts
    from dlsearch.study.models import Claim


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
    progress: Progress = field(default_factory=dict)
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
            running.timeout_s,
            running.history,
            reached.epochs or 0,
            objective,
            best,
        )
    beside = f"out of memory beside {running.sharing - 1} on {device}"
    evidence = Evidence(
        result=result,
        code=code,
        before=outcome.reasons(running.before),
        crowded=beside if crowded else None,
        killed_for=running.killed_for,
        stopping=stopping,
        by_kernel=by_kernel,
        reached=reached,
    )
    return outcome.judge(evidence, Limits(facts.max_attempts, facts.max_halvings))


def trial_payload(
    study: NamedDocument,
    claim: Claim,
    histories: Sequence[Sequence[AttemptSummary]],
    folder: Path,
    paths: Mapping[str, str],
    secrets: TrialSecrets = NO_SECRETS,
) -> TrialPayload:
    """The payload of a training's process, but for its threads and its journal.

    Its config is put into `folder`.

    Args:
        study: The study's document.
        claim: What is to be done.
        histories: Earlier attempts at it; for a replica also those at its trial.
        folder: Where its files go; it exists.
        paths: This machine's ``paths`` config.
        secrets: What the masks of the study's document hide.

    Raises:
        OSError: The disk is full, or the like.
    """
    cfg = trial_config(
        study.document,
        claim.params,
        seed=claim.seed,
        paths=paths,
        secrets=secrets,
    )
    shown = OmegaConf.create(mask(cfg))
    write_text(folder / "config.yaml", OmegaConf.to_yaml(shown))
    epochs = claim.epochs if isinstance(claim, ConfirmClaim) else None
    return TrialPayload(
        folder=str(folder),
        objectives=study.typed.objectives,
        directions=study.typed.directions,
        params=claim.params,
        origin=provenance.origin(tuple(study.typed.allow_targets)),
        cfg=cfg,
        epochs=epochs,
        micro_batches=micro_batches(*histories),
        prunes_at_end=study.document.get("replay_of") is not None,
        resume_key=resume_key(),
    )


def scoring_payload(
    rounds: Rounds,
    folder: Path,
    store: Path,
    paths: Mapping[str, str],
    secrets: TrialSecrets = NO_SECRETS,
) -> ScoringPayload:
    """The payload of a scoring's process, but for its threads.

    It has all replicas of the winner that ended, and its training on train + validation.

    Args:
        rounds: The study's; the last one has a winner.
        folder: Where its files go; it exists.
        store: This machine's store, with what was trained.
        paths: This machine's ``paths`` config.
        secrets: What the masks of the study's document hide.
    """
    study = rounds.study
    now = rounds.last()
    assert now is not None
    winner = now.race.winner
    assert winner is not None
    runs, kept = now.to_score(study.max_attempts)
    trained: list[TrainedPayload] = []
    for run in runs:
        replica = run.replica
        result = result_of(now.refits) if replica is None else now.result(winner, replica)
        cfg = trial_config(
            study.document,
            run.params,
            seed=run.seed,
            paths=paths,
            secrets=secrets,
        )
        trained.append(
            TrainedPayload(
                cfg=cfg,
                folder=str(plain(store, layout.confirm_folder(study.name, run.name))),
                epochs=run.epochs,
                values=result.get("values"),
                best_epoch=result.get("best_epoch"),
                state_sha256=result.get("state_sha256"),
                inputs=result.get("inputs"),
                micro_batches=result.get("micro_batches"),
            )
        )
    return ScoringPayload(
        folder=str(folder),
        objectives=study.typed.objectives,
        directions=study.typed.directions,
        trained=trained,
        kept=kept,
        resume_key=resume_key(),
    )
