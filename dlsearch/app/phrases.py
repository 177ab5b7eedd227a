"""What is said of a study, its trials and its confirmation, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlsearch.console.terminal import shown

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

#: The states of trials that have ended.
ENDED = ("complete", "pruned", "failed")

_MINUTES_FROM = 120  # seconds
_HOURS_FROM = 7200


def format_count(count: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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


def format_scores(metrics: dict[str, float]) -> str:
    """``test/accuracy 0.9812, test/loss 0.0571``."""
    return ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))


def name_configuration(number: int | None) -> str:
    """A configuration in words: the trial that ran it, or the default configuration."""
    return "the default configuration" if number is None else f"trial {number}"


def count_ended(status: dict[str, Any]) -> int:
    """How many trials of a study have ended."""
    return sum(status["counts"][state] for state in ENDED)


def describe_missing_result(status: dict[str, Any]) -> str:
    """What there is to say of a study that is over, and of which no trial completed."""
    failure = status["failure"]
    if failure is not None:
        cause = failure["error"] or failure["reason"]
        return f"no trial completed; the first failure was trial {failure['trial']}: {shown(cause)}"
    pruned = status["counts"]["pruned"]
    if pruned:
        trials = format_count(pruned, "trial")
        return f"no trial completed: {trials} pruned; pruner=none runs them to their end"
    return (
        "no trial completed: none was begun before study.timeout or study.target ended the search"
    )


def explain_missing_score(status: dict[str, Any]) -> str | None:
    """Why the winner has no test score, in one line; None where there is nothing to say."""
    confirmation = status["confirmation"]
    error = confirmation["scoring_error"] if confirmation else None
    return None if error is None else shown(f"the winner was not scored on the test set: {error}")


def describe_winner(status: dict[str, Any]) -> str:
    """The winner of a confirmation and the default configuration, in words."""
    rows = status["confirmation"]["configurations"]
    winner = next(row for row in rows if row["winner"])
    name = name_configuration(winner["trial_number"])
    seeds = format_count(winner["done"], "seed")
    words = f"{name}, {status['objective']} {winner['mean']:.4f} on average over {seeds}"
    default = next(
        (row for row in rows if row["default"] and not row["winner"] and row["mean"] is not None),
        None,
    )
    if default is not None:
        words += f"; the default configuration {default['mean']:.4f}"
    return words


def describe_trial_end(trial: FrozenTrial, status: dict[str, Any]) -> str:
    """A line of a trial that has ended.

    Args:
        trial: It.
        status: Of the study, from :func:`~dlsearch.records.record.read_status`.
    """
    from dlsearch.records.record import STATES
    from dlsearch.study.study import REASON

    state = STATES[trial.state]
    words = [f"trial {trial.number:>3}", f"{state:<8}"]
    if state == "failed":
        words.append(f"({trial.user_attrs.get(REASON, 'exception')})")
    elif trial.values:
        words.append(" ".join(f"{value:.4f}" for value in trial.values))
    elif trial.intermediate_values:
        last = max(trial.intermediate_values)
        words.append(f"{trial.intermediate_values[last]:.4f}")
    duplicate_of = trial.user_attrs.get("duplicate_of")
    if duplicate_of is not None:
        words.append(f"same parameters as trial {duplicate_of}")
    best = status["best"]
    if best is not None:
        words.append(f"  best {best['value']:.4f} (trial {best['number']})")
    return "  ".join(words)


def describe_replica_end(replica: dict[str, Any], status: dict[str, Any]) -> str:
    """A line of a training of the confirmation that has ended."""
    confirmation = status["confirmation"]
    number = replica["trial_number"]
    name = "default" if number is None else f"trial {number:>3}"
    value = "" if replica["value"] is None else f"  {replica['value']:.4f}"
    seed = f"seed {replica['replica'] + 1}/{confirmation['seeds']}"
    done = f"{confirmation['done']}/{confirmation['planned']}"
    return f"confirm {name:<9}  {seed}  {replica['state']:<8}{value}  {done}"


def describe_best(status: dict[str, Any]) -> str:
    """The best trial of a study, with its parameters."""
    best = status["best"]
    params = ", ".join(f"{key}={format_value(value)}" for key, value in best["params"].items())
    return f"best: trial {best['number']}, {status['objective']} {best['value']:.4f} ({params})"


def describe_test(test: dict[str, Any], openings: int) -> str:
    """The newest scores on the test set."""
    name = name_configuration(test["trial_number"])
    scores = format_scores(test["metrics"])
    return f"test set, opened {format_times(openings)} for {name}: {scores}"
