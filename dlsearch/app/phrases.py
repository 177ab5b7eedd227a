"""What is said of a study, its trials and its confirmation, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.console.terminal import shown
from dlsearch.study.states import RecordedTrialState, StudyState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from optuna.trial import FrozenTrial

    from dlsearch.app.single_run import TrainingResult
    from dlsearch.core.types import Params
    from dlsearch.records.status import ConfirmationProgress, EndedReplica, ScoreRecord, Status

_MINUTES_FROM = 120  # seconds
_HOURS_FROM = 7200
#: Of the line of a failure, as it is shown.
MAX_CAUSE_CHARACTERS = 240
MAX_FAILURE_LINES = 5


def format_count(count: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_trainings(trials: str, confirmations: int) -> str:
    """``6 trials + up to 20 confirmation runs``.

    Args:
        trials: What is said of the trials.
        confirmations: How many trainings confirm the best at most; 0 where nothing is confirmed.
    """
    if not confirmations:
        return trials
    return f"{trials} + up to {format_count(confirmations, 'confirmation run')}"


def format_times(count: int) -> str:
    """``once``, ``twice``, ``3 times``; how often the test set was opened."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def format_value(value: Any) -> str:
    """A value of a parameter, as a person would write it."""
    return f"{value:.3g}" if isinstance(value, float) else shown(str(value))


def format_duration(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3.4 h``."""
    if seconds < _MINUTES_FROM:
        return f"{seconds:.0f} s"
    if seconds < _HOURS_FROM:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_params(params: Params, separator: str = ", ") -> str:
    """``optimizer.lr=0.01, model.dropout=0.5``."""
    parts = [f"{key}={format_value(value)}" for key, value in params.items()]
    return separator.join(parts)


def format_scores(metrics: Mapping[str, float]) -> str:
    """``test/accuracy 0.9812, test/loss 0.0571``."""
    parts = [f"{name} {metrics[name]:.4f}" for name in sorted(metrics)]
    return ", ".join(parts)


def name_configuration(number: int | None) -> str:
    """A configuration in words: the trial that ran it, or the default configuration."""
    return "the default configuration" if number is None else f"trial {number}"


def describe_missing_result(status: Status) -> str:
    """What there is to say of a study that is over, and of which no trial completed."""
    stopped = status.stopped
    if stopped is not None:
        left = status.n_trials - status.count_ended()
        return (
            f"stopped: the first {format_count(stopped.failed, 'trial')} failed alike:"
            f" {shorten_cause(stopped.error)}; mend it, and the same command goes on with"
            f" {left} more (study.max_identical_failures=0 never stops)"
        )
    failure = status.failure
    if failure is not None:
        cause = shown(str(failure.error or failure.reason))
        return f"no trial completed; the first failure was trial {failure.trial}: {cause}"
    pruned = status.counts[RecordedTrialState.PRUNED]
    if pruned:
        trials = format_count(pruned, "trial")
        return f"no trial completed: {trials} pruned; pruner=none runs them to their end"
    return (
        "no trial completed: none was begun before study.timeout or study.target ended the search"
    )


def explain_missing_score(status: Status) -> str | None:
    """Why the winner has no test score, in one line; None where there is nothing to say."""
    confirmation = status.confirmation
    if confirmation is None or confirmation.scoring_error is None:
        return None
    return shown(f"the winner was not scored on the test set: {confirmation.scoring_error}")


def describe_winner(confirmation: ConfirmationProgress, objective: str) -> str:
    """The winner of a confirmation and the default configuration, in words.

    Args:
        confirmation: It has a winner.
        objective: The metric that decides.
    """
    winner = next(each for each in confirmation.configurations if each.winner)
    name = name_configuration(winner.trial_number)
    seeds = format_count(winner.done, "seed")
    words = f"{name}, {objective} {winner.mean:.4f} on average over {seeds}"
    for each in confirmation.configurations:
        if each.default and not each.winner and each.mean is not None:
            words += f"; the default configuration {each.mean:.4f}"
    return words


def describe_confirmed_winner(status: Status) -> str | None:
    """The line of a winner that was confirmed; None while there is none."""
    winner = status.winner
    if winner is None or not winner.confirmed or status.confirmation is None:
        return None
    return f"winner: {describe_winner(status.confirmation, status.first_objective)}"


def shorten_cause(line: str, limit: int = MAX_CAUSE_CHARACTERS) -> str:
    """The line of a failure in at most `limit` characters, with its place; fit for a terminal."""
    line = shown(line)
    if len(line) <= limit:
        return line
    place = ""
    if line.endswith(")"):
        place = f" {line.rpartition(' ')[2]}"
    if len(place) > limit // 2:
        place = ""
    return f"{line[: limit - len(place) - 1]}…{place}"


def describe_failures(status: Status) -> list[str]:
    """A line for each cause of which trials failed; none for one that was told already."""
    groups = status.failures
    if status.state is StudyState.FAILED and len(groups) == 1:
        return []
    lines = []
    for group in groups[:MAX_FAILURE_LINES]:
        cause = shorten_cause(group.error or group.reason)
        lines.append(f"{format_count(len(group.trials), 'trial')} failed: {cause}")
    rest = sum(len(group.trials) for group in groups[MAX_FAILURE_LINES:])
    if rest:
        lines.append(
            f"{format_count(rest, 'trial')} failed otherwise: dlsearch trials {status.name}"
        )
    return lines


def describe_trial_end(trial: FrozenTrial, status: Status, error: str | None = None) -> str:
    """A line of a trial that has ended.

    Args:
        trial: It.
        status: Of the study, from :func:`~dlsearch.records.status.read_status`.
        error: Why it failed, where it did.
    """
    from dlsearch.records.record import STATES

    state = STATES[trial.state]
    words = [f"trial {trial.number:>3}", f"{state:<8}"]
    result = _describe_result(trial)
    if result:
        words.append(result)
    if error is not None and state is RecordedTrialState.FAILED:
        words.append(shorten_cause(error))
    duplicate_of = trial.user_attrs.get("duplicate_of")
    if duplicate_of is not None:
        words.append(f"same parameters as trial {duplicate_of}")
    best = status.best
    if best is not None:
        words.append(f"  best {best.value:.4f} (trial {best.number})")
    return "  ".join(words)


def _describe_result(trial: FrozenTrial) -> str:
    """Why a trial failed, its values, or the last one that it reported; nothing without any."""
    from dlsearch.records.record import STATES
    from dlsearch.study.study import REASON

    if STATES[trial.state] is RecordedTrialState.FAILED:
        reason = trial.user_attrs.get(REASON, "exception")
        return f"({reason})"
    if trial.values:
        return " ".join(f"{value:.4f}" for value in trial.values)
    if trial.intermediate_values:
        last = max(trial.intermediate_values)
        return f"{trial.intermediate_values[last]:.4f}"
    return ""


def describe_replica_end(replica: EndedReplica, confirmation: ConfirmationProgress) -> str:
    """A line of a training of the confirmation that has ended."""
    number = replica.trial_number
    name = "default" if number is None else f"trial {number:>3}"
    value = "" if replica.value is None else f"  {replica.value:.4f}"
    seed = f"seed {replica.replica + 1}/{confirmation.seeds}"
    done = f"{confirmation.done}/{confirmation.planned}"
    return f"confirm {name:<9}  {seed}  {replica.state:<8}{value}  {done}"


def describe_best(status: Status) -> str:
    """The best trial of a study, with its parameters; the study has one."""
    best = status.best
    assert best is not None
    params = format_params(best.params)
    return f"best: trial {best.number}, {status.first_objective} {best.value:.4f} ({params})"


def describe_test(test: ScoreRecord, status: Status) -> str:
    """The newest scores on the test set, and how often it was opened."""
    name = name_configuration(test.trial_number)
    scores = format_scores(test.metrics)
    return f"test set, {describe_openings(status)} for {name}: {scores}"


def describe_openings(status: Status) -> str:
    """How often the test set was opened, by this study and by all of its store."""
    own = f"opened {format_times(status.openings)}" if status.openings else "not opened"
    total = status.openings_of_test_set
    if total is None or total == status.openings:
        return own
    return f"{own} by this study ({format_times(total)} in this store)"


def describe_next_opening(status: Status, *, is_certain: bool) -> str | None:
    """What an extended study says before it trains; None where its test set is closed so far.

    Args:
        status: Of the study.
        is_certain: Whether there will be another round of confirmation, whatever the trials show.
    """
    if not status.openings:
        return None
    when = "" if is_certain else ", unless the finalists stay the same"
    opened = status.openings
    if status.openings_of_test_set is not None:
        opened = status.openings_of_test_set
    times = f"opened {format_times(opened)} in this store"
    if opened > status.openings:
        times += f", {format_times(opened - status.openings)} by others"
    return f"the test set will be opened again{when}; it has been {times} so far"


def describe_test_of_run(metrics: Mapping[str, float], openings: int | None) -> str:
    """The scores of a plain run on the test set.

    Args:
        metrics: The scores.
        openings: How often this test set was opened in this store; None where that is not known.
    """
    times = "opened once"
    if openings is not None and openings > 1:
        times = f"opened once by this run ({format_times(openings)} in this store)"
    return f"test set, {times}: {format_scores(metrics)}"


def describe_training(result: TrainingResult) -> str:
    """What a plain run came to."""
    where = f"{result.unit} {result.position} of {result.length}"
    return f"{result.objective} {result.value:.4f} at {where}, {result.seconds:.1f} s"
