"""The confirmation of a study as plain JSON: for the record, and for those who watch it run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.confirmation import racing
from dlsearch.confirmation.rounds import Round, end_of, result_of
from dlsearch.study.states import AttemptState, FailureReason, RecordedTrialState, StudyState
from dlsearch.tracking import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlsearch.storage.database import Attempt
    from dlsearch.study.study import Study


#: What says whether two trainings were the same.
DIGESTS = ("state_sha256", "metrics_sha256", "split_sha256")


def finalization(
    study: Study, now: Round, describe: Callable[[Attempt], dict[str, Any]]
) -> dict[str, Any]:
    """A round, whole. See ``docs/record.md``.

    Args:
        study: The open study.
        now: Its newest round.
        describe: An attempt as JSON.
    """
    document = now.document
    race = now.race
    complete = now.finished and document["scored"]
    found: dict[str, Any] = {
        "round": now.number,
        "rounds": now.number,
        **{key: document[key] for key in ("top", "seeds", "racing", "refit")},
        "state": StudyState.COMPLETE if complete else StudyState.PARTIAL,
        "configurations": [
            {
                **{
                    k: getattr(each, k)
                    for k in ("trial_number", "default", "params", "search_value")
                },
                "mean": racing.mean(now.values(f)),
                "dropped_after": race.dropped.get(f),
                "winner": race.decided and race.winner == f,
                "replicas": [
                    {
                        "replica": i,
                        "seed": seed,
                        **_training(now.attempts[f, i], study.max_attempts, describe),
                    }
                    for i, seed in enumerate(now.seeds)
                    if (f, i) in now.attempts
                ],
            }
            for f, each in enumerate(now.field)
        ],
        "kept": None,
        "checkpoint": None,
        "scoring_error": now.scoring_error,
    }
    if now.refits:
        found["refit_run"] = {
            "seed": document["refit_seed"],
            **_training(now.refits, study.max_attempts, describe),
        }
    if race.decided and race.winner is not None and race.kept is not None:
        found["kept"] = {"trial_number": now.field[race.winner].trial_number, "replica": race.kept}
        found["checkpoint"] = f"{kept_folder(study, now)}/ckpt/best.ckpt"
    return found


def kept_folder(study: Study, now: Round) -> str | None:
    """Where the model that is kept was trained, relative to the store.

    None while, or where, there is no winner.
    """
    if now.race.winner is None or now.race.kept is None:
        return None
    name = layout.replica_name(now.number, now.field[now.race.winner].trial_number, now.race.kept)
    if end_of(now.refits, study.max_attempts) is AttemptState.COMPLETE:
        name = f"r{now.number}-refit"
    return layout.confirm_folder(study.name, name)


def _training(
    attempts: list[Attempt], max_attempts: int, describe: Callable[[Attempt], dict[str, Any]]
) -> dict[str, Any]:
    result = result_of(attempts)
    live = any(a.state == AttemptState.RUNNING for a in attempts)
    end = end_of(attempts, max_attempts)
    values = result.get("values") if end is AttemptState.COMPLETE else None
    keys = ("epochs", "best_epoch", *DIGESTS)
    return {
        "state": end or (RecordedTrialState.RUNNING if live else RecordedTrialState.WAITING),
        "reason": None
        if end is AttemptState.COMPLETE
        else (result.get("reason") or (FailureReason.LOST if end is AttemptState.LOST else None)),
        "error": None
        if end is AttemptState.COMPLETE
        else next((a.error for a in reversed(attempts) if a.error), None),
        "value": values[0] if values else None,
        "values": values,
        "seconds": round(sum((a.ended or a.started) - a.started for a in attempts), 3),
        "intermediate": result.get("history") or [],
        "summary": result.get("summary", {}),
        **{key: result.get(key) for key in keys},
        "threads": (result.get("inputs") or {}).get("threads"),
        "attempts": [describe(a) for a in attempts],
    }


def winner(study: Study, now: Round | None) -> dict[str, Any] | None:
    """Who won: the confirmed winner, else the best of the search.

    None with several objectives or without a score.
    """
    best = study.best()
    if best is None:
        return None
    if now is not None and now.race.decided and now.race.winner is not None:
        each = now.field[now.race.winner]
        value = racing.mean(now.values(now.race.winner))
        return {
            "number": each.trial_number,
            "params": each.params,
            "value": value,
            "values": [value],
            "search_value": each.search_value,
            "confirmed": True,
            "default": each.default,
        }
    return {
        "number": best.number,
        "params": study.params_of(best),
        "value": best.values[0],
        "values": best.values,
        "search_value": best.values[0],
        "confirmed": False,
        "default": bool(best.user_attrs.get("default")),
    }


def _state_of_round(now: Round) -> StudyState:
    if not now.finished:
        return StudyState.RUNNING
    return StudyState.COMPLETE if now.document["scored"] else StudyState.PARTIAL


def progress(now: Round) -> dict[str, Any]:
    """How far a round is: the part of ``status --json`` about it."""
    race = now.race
    n_seeds = len(now.seeds)
    planned = sum(
        n_seeds if f not in race.dropped else len(now.values(f)) for f in range(len(now.field))
    )
    return {
        "round": now.number,
        "state": _state_of_round(now),
        "done": len(now.ends),
        "planned": planned,
        "seeds": n_seeds,
        "scoring_error": now.scoring_error,
        "configurations": [
            {
                "trial_number": each.trial_number,
                "default": each.default,
                "done": sum(v is not None for v in now.values(f).values()),
                "failed": sum(v is None for v in now.values(f).values()),
                "mean": racing.mean(now.values(f)),
                "dropped_after": race.dropped.get(f),
                "winner": race.decided and race.winner == f,
            }
            for f, each in enumerate(now.field)
        ],
        "replicas": [
            {
                "trial_number": now.field[f].trial_number,
                "replica": i,
                "state": end,
                "value": now.values(f)[i],
            }
            for (f, i), end in sorted(now.ends.items(), key=lambda item: (item[0][1], item[0][0]))
        ],
    }
