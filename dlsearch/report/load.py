"""From the study record, as it comes, to a typed view of it: cleaned, derived, and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlsearch.confirmation.racing import FIRST_RULE
from dlsearch.report.checks import check_record
from dlsearch.report.document import name_place, read_document, read_ledger_row
from dlsearch.report.formats import epoch
from dlsearch.report.study import (
    STATES,
    Attempt,
    Breach,
    Finalist,
    Finalization,
    LedgerRow,
    Objective,
    Replica,
    ReplicaState,
    Score,
    TestSet,
    TestSetOpening,
    Trial,
    TrialState,
    View,
)
from dlsearch.study.pareto import pareto_front

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject

#: The version of the study record that can be read.
RECORD_SCHEMA = 1

# The state of a replica as that of a trial.
_TRIAL_STATE_OF_REPLICA = {
    ReplicaState.COMPLETE: TrialState.COMPLETE,
    ReplicaState.FAILED: TrialState.FAILED,
    ReplicaState.LOST: TrialState.FAILED,
    ReplicaState.RUNNING: TrialState.RUNNING,
    ReplicaState.WAITING: TrialState.WAITING,
    ReplicaState.PRUNED: TrialState.PRUNED,
}

#: Metrics that are rates in [0, 1] and read best in per cent.
RATES = (
    "accuracy",
    "f1",
    "precision",
    "recall",
    "auroc",
    "auc",
    "top1",
    "top5",
    "specificity",
    "iou",
)

#: What a repetition needs of a trial, and compares; what is null or false is left out.
REPLAY = (
    "number",
    "state",
    "reason",
    "params",
    "values",
    "intermediate",
    "seed",
    "epochs",
    "best_epoch",
    "duplicate_of",
    "default",
    "enqueued",
    "infeasible",
    "resumed_epoch",
    "state_sha256",
    "metrics_sha256",
    "split_sha256",
    "inputs",
    "seen",
    "verdict",
)

# XML allows no control characters, UTF-8 no lone surrogates, and a direction override makes a line
# read other than it is.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


class RecordError(ValueError):
    """The study record lacks what a report cannot be written without."""


def view(record: Mapping[str, Any]) -> View:
    """Read a study record.

    Args:
        record: The study record, as a plain JSON mapping.

    Raises:
        RecordError: The record is of another schema or lacks its study or its objectives.
    """
    _refuse_other_schema(record)
    data = clean(record)
    study = _require_study(data)
    n_objectives = len(study["objectives"])
    raw_trials = data.get("trials") or []
    trials = _read_trials(raw_trials, n_objectives)
    objectives = _read_objectives(study, trials)
    best = _find_best(trials, objectives)
    default = next((trial for trial in trials if trial.default), None)
    finalization = _read_finalization(data.get("finalization"))
    tested = tuple(data.get("test") or [])
    found = View(
        study=study,
        document=read_document(study),
        objectives=objectives,
        trials=trials,
        asked=_count_asked(study, trials),
        best=best,
        winner=_find_winner(
            finalization,
            trials,
            best,
            default,
        ),
        pareto=_find_pareto_front(trials, objectives),
        default=default,
        finalization=finalization,
        test=tested,
        ledger=tuple(read_ledger_row(row) for row in tested),
        openings=_read_openings(data.get("openings")),
        checks=(),
        test_set=_read_test_set(data.get("test_set")),
        replay=_keep_for_replay(raw_trials),
        again={key: data.get(key) for key in ("winner", "finalization")},
    )
    return replace(found, checks=tuple(check_record(found, data)))


def clean(node: Any) -> Any:
    r"""Copy JSON so that it can be printed.

    Unprintable characters are spelt out (``\\u202e``), and numbers that are not finite become null.
    """
    if node is None or isinstance(node, bool | int):
        return node
    if isinstance(node, str):
        return _UNSAFE.sub(_spell_out, node)
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    if isinstance(node, Mapping):
        return {str(clean(str(key))): clean(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [clean(value) for value in node]
    return clean(str(node))


def is_rate(name: str, values: Sequence[float] = ()) -> bool:
    """Whether a metric of this name, with these values, is a share in [0, 1].

    Such a metric reads best in per cent.
    """
    plain_name = name.replace("-", "_").lower()
    last = plain_name.rsplit("/", 1)[-1]
    endings = tuple(f"_{rate}" for rate in RATES)
    is_named_like_one = last in RATES or last.endswith(endings)
    return is_named_like_one and all(0 <= value <= 1 for value in values)


def _spell_out(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def _refuse_other_schema(record: Mapping[str, Any]) -> None:
    schema = record.get("schema")
    if schema != RECORD_SCHEMA:
        raise RecordError(f"schema: expected {RECORD_SCHEMA}, got {schema!r}")


def _require_study(data: Mapping[str, Any]) -> JsonObject:
    """The study document, once it is known to have what nothing can be said without."""
    study = data.get("study")
    if not isinstance(study, dict) or not study.get("name") or not study.get("objectives"):
        raise RecordError("study: expected a mapping with name and objectives")
    n_objectives = len(study["objectives"])
    n_directions = len(study.get("directions") or [])
    if n_directions != n_objectives:
        raise RecordError(
            f"study.directions: expected {n_objectives}, one an objective, got {n_directions}"
        )
    return study


# -- trials and replicas --------------------------------------------------------------------------


def _read_trials(raw_trials: Sequence[Mapping[str, Any]], n_objectives: int) -> tuple[Trial, ...]:
    trials = [_read_trial(raw, n_objectives) for raw in raw_trials]
    return tuple(sorted(trials, key=lambda trial: trial.number))


def _read_trial(raw: Mapping[str, Any], n_objectives: int) -> Trial:
    state = _read_state(raw)
    return Trial(
        number=int(raw["number"]),
        state=state,
        reason=raw.get("reason"),
        error=raw.get("error"),
        params=dict(raw.get("params") or {}),
        values=_read_values(raw, n_objectives) if state == TrialState.COMPLETE else (),
        intermediate=_read_scores(raw),
        started=_parse_time(raw.get("started")),
        seconds=_read_seconds(raw),
        seed=raw.get("seed"),
        duplicate_of=raw.get("duplicate_of"),
        default=bool(raw.get("default")),
        enqueued=bool(raw.get("enqueued")),
        epochs=raw.get("epochs"),
        best_epoch=raw.get("best_epoch"),
        n_params=raw.get("n_params"),
        summary=_read_summary(raw),
        attempts=_read_attempts(raw),
        breaches=_read_breaches(raw),
        seal=_read_seal(raw),
        state_sha256=raw.get("state_sha256"),
        feasible=not raw.get("infeasible"),
        notes=tuple(str(note) for note in raw.get("notes") or ()),
    )


def _read_state(raw: Mapping[str, Any]) -> TrialState:
    text = str(raw.get("state"))
    try:
        return TrialState(text)
    except ValueError:
        raise RecordError(
            f"trials[].state: expected one of {', '.join(STATES)}, got {text!r}"
        ) from None


def _read_values(raw: Mapping[str, Any], n_objectives: int) -> tuple[float, ...]:
    """The values of the objectives; none unless all of them are finite."""
    given = raw.get("values")
    if not given:
        value = raw.get("value")
        given = [] if value is None else [value]
    values = [_to_float(value) for value in given]
    finite = tuple(value for value in values if value is not None)
    return finite if len(finite) == n_objectives else ()


def _read_scores(raw: Mapping[str, Any]) -> tuple[Score, ...]:
    """The scores reported while it trained, without those that are not finite."""
    scores: list[Score] = []
    for point in raw.get("intermediate") or []:
        if len(point) != 2:
            continue
        at = int(point[0])
        value = _to_float(point[1])
        if value is not None:
            scores.append((at, value))
    return tuple(scores)


def _read_summary(raw: Mapping[str, Any]) -> dict[str, float]:
    summary: dict[str, float] = {}
    for key, value in (raw.get("summary") or {}).items():
        number = _to_float(value)
        if number is not None:
            summary[key] = number
    return summary


def _read_breaches(raw: Mapping[str, Any]) -> tuple[Breach, ...]:
    breaches: list[Breach] = []
    for breach in raw.get("breaches") or []:
        how = str(breach.get("how") or "unnamed")
        what = str(breach.get("what") or "")
        breaches.append((how, what))
    return tuple(breaches)


def _read_seal(raw: Mapping[str, Any]) -> str | None:
    """Who held the seal on the test set, in a few words; these alone where a report was read."""
    seal = raw.get("seal")
    if isinstance(seal, str):
        return seal
    if not isinstance(seal, Mapping):
        return None
    by = str(seal.get("by"))
    detail = seal.get("why")
    if seal.get("landlock"):
        detail = f"Landlock ABI {seal['landlock']}"
    linked = len(seal.get("linked") or ())
    words = by if detail is None else f"{by} ({detail})"
    if linked:
        words += f"; {linked} of the sealed files have another name on the disk"
    return words


def _read_attempts(raw: Mapping[str, Any]) -> tuple[Attempt, ...]:
    attempts = enumerate(raw.get("attempts") or [], start=1)
    return tuple(_read_attempt(attempt, position) for position, attempt in attempts)


def _read_attempt(raw: Mapping[str, Any], position: int) -> Attempt:
    return Attempt(
        attempt=int(raw.get("attempt") or position),
        state=str(raw.get("state") or TrialState.RUNNING),
        reason=raw.get("reason"),
        slot=name_place(raw.get("worker"), raw.get("slot")),
        device=_to_text(raw.get("device")),
        host=_to_text(raw.get("host")),
        started=_parse_time(raw.get("started")),
        ended=_parse_time(raw.get("ended")),
        seconds=_read_seconds(raw),
        run_id=raw.get("run_id"),
    )


def _read_seconds(raw: Mapping[str, Any]) -> float | None:
    """How long it took: what the record says, else from its start to its end."""
    seconds = _to_float(raw.get("seconds"))
    if seconds is not None:
        return seconds
    started = _parse_time(raw.get("started"))
    ended = _parse_time(raw.get("ended"))
    if started is None or ended is None:
        return None
    return max(0.0, ended - started)


def _read_replica(raw: Mapping[str, Any]) -> Replica:
    """A replica, read as a trial of one objective is."""
    text = str(raw.get("state"))
    known = text in set(ReplicaState)
    state_as_trial = _TRIAL_STATE_OF_REPLICA[ReplicaState(text)] if known else None
    as_trial = {**raw, "number": raw.get("replica", 0), "state": state_as_trial}
    trial = _read_trial(as_trial, n_objectives=1)
    seconds = trial.seconds
    if seconds is None:
        seconds = _sum_seconds(trial.attempts)
    return Replica(
        replica=trial.number,
        seed=trial.seed,
        state=ReplicaState(text),
        reason=trial.reason,
        value=trial.values[0] if trial.values else None,
        epochs=trial.epochs,
        best_epoch=trial.best_epoch,
        seconds=seconds,
        intermediate=trial.intermediate,
        summary=trial.summary,
        state_sha256=trial.state_sha256,
        attempts=trial.attempts,
        breaches=trial.breaches,
        seal=trial.seal,
        threads=raw.get("threads"),
    )


def _sum_seconds(attempts: Iterable[Attempt]) -> float | None:
    known = [attempt.seconds for attempt in attempts if attempt.seconds is not None]
    return sum(known) if known else None


# -- the confirmation -----------------------------------------------------------------------------


def _read_finalization(raw: Mapping[str, Any] | None) -> Finalization | None:
    if not raw or not raw.get("configurations"):
        return None
    finalists = [_read_finalist(configuration) for configuration in raw["configurations"]]
    number = int(raw.get("round") or 1)
    return Finalization(
        round=number,
        rounds=int(raw.get("rounds") or number),
        top=raw.get("top"),
        seeds=tuple(raw.get("seeds") or ()),
        racing=bool(raw.get("racing")),
        refit=bool(raw.get("refit")),
        state=str(raw.get("state") or "partial"),
        configurations=tuple(sorted(finalists, key=_order_of_finalist)),
        kept=raw.get("kept"),
        checkpoint=raw.get("checkpoint"),
        scoring_error=raw.get("scoring_error"),
        rule=raw.get("rule") or FIRST_RULE,
    )


def _read_finalist(raw: Mapping[str, Any]) -> Finalist:
    replicas = [_read_replica(replica) for replica in raw.get("replicas") or []]
    return Finalist(
        trial_number=raw.get("trial_number"),
        default=bool(raw.get("default")),
        params=dict(raw.get("params") or {}),
        search_value=_to_float(raw.get("search_value")),
        dropped_after=raw.get("dropped_after"),
        winner=bool(raw.get("winner")),
        replicas=tuple(sorted(replicas, key=lambda replica: replica.replica)),
    )


def _order_of_finalist(finalist: Finalist) -> tuple[bool, bool, bool, int]:
    """The winner first, the default last, the others by number, whatever the order of the rows."""
    number = finalist.trial_number
    has_no_number = number is None
    return not finalist.winner, finalist.default, has_no_number, number or 0


# -- what is derived ------------------------------------------------------------------------------


def _read_objectives(study: Mapping[str, Any], trials: Sequence[Trial]) -> tuple[Objective, ...]:
    objectives: list[Objective] = []
    named = zip(study["objectives"], study["directions"], strict=True)
    for index, (name, direction) in enumerate(named):
        objective = Objective(
            name=str(name),
            maximize=str(direction).lower() == "maximize",
            percent=is_rate(str(name), _values_of_objective(trials, index)),
        )
        objectives.append(objective)
    return tuple(objectives)


def _values_of_objective(trials: Sequence[Trial], index: int) -> list[float]:
    """All that the trials reached; of the first objective, what they reported on the way too."""
    values: list[float] = []
    for trial in trials:
        if trial.scored:
            values.append(trial.values[index])
        if index == 0:
            values += [value for _, value in trial.intermediate]
    return values


def _count_asked(study: Mapping[str, Any], trials: Sequence[Trial]) -> int:
    limit = study.get("n_trials")
    if limit is None:
        return len(trials)
    return max(int(limit), len(trials))


def _find_best(trials: Sequence[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """The best trial of the search, of equal ones the first.

    None where there are more objectives.
    """
    scored = [trial for trial in trials if trial.scored]
    if len(objectives) > 1 or not scored:
        return None
    sign = objectives[0].sign
    # max gives the first of equal trials, and trials are in the order of their numbers
    return max(scored, key=lambda trial: sign * trial.values[0])


def _find_pareto_front(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
) -> tuple[int, ...]:
    """Numbers of the trials that none dominates; empty where there is one objective."""
    if len(objectives) == 1:
        return ()
    points = [(trial.number, trial.values) for trial in trials if trial.scored]
    return tuple(pareto_front(points, [objective.maximize for objective in objectives]))


def _find_winner(
    finalization: Finalization | None,
    trials: Sequence[Trial],
    best: Trial | None,
    default: Trial | None,
) -> Trial | None:
    """The trial of the configuration that the study names."""
    confirmed = None if finalization is None else finalization.winner
    if confirmed is None:
        return best
    if confirmed.trial_number is None:
        return default if confirmed.default else None
    for trial in trials:
        if trial.number == confirmed.trial_number:
            return trial
    return None


def _read_openings(raw: Sequence[Mapping[str, Any]] | None) -> tuple[LedgerRow, ...] | None:
    if raw is None:
        return None
    return tuple(read_ledger_row(row) for row in raw)


def _read_test_set(raw: Mapping[str, Any] | None) -> TestSet | None:
    """The test split, where its digest is known; earlier versions recorded no such thing."""
    if raw is None:
        return None
    openings = [
        TestSetOpening(each.get("study"), bool(each.get("is_own"))) for each in raw["openings"]
    ]
    return TestSet(raw["digest"], tuple(openings))


def _keep_for_replay(raw_trials: Sequence[Mapping[str, Any]]) -> tuple[JsonObject, ...]:
    """Of each trial, exactly as it was recorded, what a repetition starts from and compares."""
    ordered = sorted(raw_trials, key=lambda trial: int(trial["number"]))
    return tuple(
        {key: trial[key] for key in REPLAY if _is_worth_keeping(trial.get(key))}
        for trial in ordered
    )


def _is_worth_keeping(value: Any) -> bool:
    return value is not None and value is not False


# -- single values --------------------------------------------------------------------------------


def _parse_time(iso: Any) -> float | None:
    """Seconds since 1970; None where the record holds no time."""
    if not iso:
        return None
    try:
        return epoch(iso)
    except (TypeError, ValueError):
        return None


def _to_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def _to_text(value: Any) -> str | None:
    return None if value is None else str(value)
