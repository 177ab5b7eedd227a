"""What the sights of a rehearsal mean for a study: names of objectives, notices, or a refusal.

Pure: nothing is imported that trains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlsearch.config.progress import ProgressUnit
from dlsearch.core.errors import ConfigError, did_you_mean
from dlsearch.execution.rehearsal.messages import Sight, Stage
from dlsearch.planning.variations import VariationKind

#: What Lightning appends to a name that several loaders log.
_LOADER = re.compile(r"/dataloader_idx_\d+$")
#: What Lightning appends to a name that is logged for steps and for epochs.
_FORKS = ("_epoch", "_step")
#: An objective that every trial has.
_COUNTED = frozenset({"model/n_params"})
#: Names and configurations that a line lists.
_SHOWN = 8
_SHOWN_LEFT_OUT = 3
#: Spellings of one word in names of metrics.
_SPELLINGS = {
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "training": "train",
    "accuracy": "acc",
    "err": "error",
}
_SKIP_HINT = "study.rehearsal=false starts all the same"


@dataclass
class Judgement:
    """What a rehearsal means.

    Args:
        objectives: The names under which the study's objectives are logged.
        notices: What a user should know.
    """

    objectives: list[str]
    notices: list[str] = field(default_factory=list)


def judge(
    sights: Sequence[Sight],
    objectives: Sequence[str],
    *,
    trainer: Mapping[str, Any],
    candidates: Sequence[str] = (),
) -> Judgement:
    """Decide whether a study can be opened after its rehearsal.

    Args:
        sights: Of the default configuration, and of others.
        objectives: As they are typed.
        trainer: Arguments of Lightning's Trainer, resolved.
        candidates: What all configurations are called that were to be tried.

    Raises:
        ConfigError: All trials would fail, or all that have one of the values of a searched key.
    """
    judgement = Judgement(list(objectives))
    _check_faults(sights, judgement)
    shown = [sight for sight in sights if sight.was_trained and sight.fault is None]
    if shown:
        first = shown[0]
        _check_intervals(first, trainer)
        judgement.objectives = [_settle_name(name, first, judgement) for name in objectives]
        _note_calls(shown, judgement)
        if first.misfit:
            judgement.notices.append(
                "rehearsal: a checkpoint cannot be loaded again, so that no winner can be scored:"
                f" {first.misfit}"
            )
    _note_left_out(sights, candidates, judgement)
    return judgement


# -- what fails ------------------------------------------------------------------------------------
def _check_faults(sights: Sequence[Sight], judgement: Judgement) -> None:
    """Refuse what fails in all trials, or in all of an option; note what fails in others.

    Raises:
        ConfigError: Everything that was tried fails, or an option, or all of a range.
    """
    trained = [sight for sight in sights if sight.was_trained or sight.fault is not None]
    if trained and all(_has_failed(sight) for sight in trained):
        raise _refusal(trained[0])
    for sight in trained:
        if not _has_failed(sight):
            continue
        of_key = [each for each in sights if each.key == sight.key]
        is_of_range = sight.kind == VariationKind.RANGE and all(map(_has_failed, of_key))
        if sight.kind == VariationKind.OPTION or is_of_range:
            raise _refusal(sight)
        assert sight.fault is not None
        judgement.notices.append(f"rehearsal: {sight.said} fails: {sight.fault.expected}")


def _has_failed(sight: Sight) -> bool:
    """Whether trials of it would fail for good; where memory runs out they have their own ways."""
    return sight.fault is not None and not sight.fault.is_of_memory


def _refusal(sight: Sight) -> ConfigError:
    fault = sight.fault
    assert fault is not None
    with_what = f"with {sight.said}: " if sight.key and sight.key != fault.key else ""
    return ConfigError(fault.key, f"{with_what}{fault.expected}", fault.hint or _SKIP_HINT)


def _note_calls(shown: Sequence[Sight], judgement: Judgement) -> None:
    calls = dict.fromkeys(call for sight in shown for call in sight.missing_calls)
    if calls:
        judgement.notices.append(
            f"the module asks its logger for {', '.join(calls)}:"
            " that is of another logger, and does nothing here"
        )


def _note_left_out(
    sights: Sequence[Sight], candidates: Sequence[str], judgement: Judgement
) -> None:
    """Say which configurations there was no time for."""
    tried = {sight.said for sight in sights}
    left = [said for said in candidates if said not in tried]
    if not left:
        return
    shown = ", ".join(left[:_SHOWN_LEFT_OUT])
    rest = len(left) - _SHOWN_LEFT_OUT
    more = f" and {rest} more" if rest > 0 else ""
    judgement.notices.append(f"rehearsal: it ended before {shown}{more} could be tried")


# -- when it is validated --------------------------------------------------------------------------
def _check_intervals(sight: Sight, trainer: Mapping[str, Any]) -> None:
    """Refuse settings with which no epoch of a trial would be validated.

    Raises:
        ConfigError: There is such a setting.
    """
    if not sight.is_validated or sight.most_epochs is None:
        return
    every = trainer.get("check_val_every_n_epoch")
    if every is not None and every > sight.most_epochs:
        raise ConfigError(
            "trainer.check_val_every_n_epoch",
            f"{every} is more than the {sight.most_epochs} epochs of a trial:"
            " nothing would ever be validated",
            f"trainer.check_val_every_n_epoch={sight.most_epochs}",
        )
    interval = trainer.get("val_check_interval")
    if not isinstance(interval, int) or isinstance(interval, bool) or sight.train_batches is None:
        return
    batches = sight.train_batches * (1 if every is not None else sight.most_epochs)
    if interval > batches:
        span = "an epoch" if every is not None else "a trial"
        raise ConfigError(
            "trainer.val_check_interval",
            f"{interval} is more than the {batches} batches of {span}:"
            " nothing would ever be validated",
            "trainer.val_check_interval=null",
        )


# -- the objective's name --------------------------------------------------------------------------
def _settle_name(name: str, sight: Sight, judgement: Judgement) -> str:
    """The name under which an objective is logged.

    Raises:
        ConfigError: It is not logged where a report could take it.
    """
    if name in _COUNTED:
        return name
    if name in sight.reported:
        _check_epoch(name, sight)
        return name
    others = _other_forms(name, sight.reported)
    if len(others) == 1:
        _check_epoch(others[0], sight)
        judgement.notices.append(f"study.objective: {name!r} is logged as {others[0]!r}")
        return others[0]
    if others:
        raise ConfigError(
            "study.objective",
            f"{name!r} is logged once for each loader: {_list_names(others)}",
            f"study.objective={others[0]}",
        )
    _explain_absence(name, sight, judgement)
    return name


def _check_epoch(name: str, sight: Sight) -> None:
    """Refuse an objective of which a training without validation knows single batches alone.

    Raises:
        ConfigError: It is such a one.
    """
    if sight.is_validated or sight.progress_unit != ProgressUnit.EPOCH:
        return
    bare = _bare_name(name)
    calls = [call for call in sight.logged if call.name in (name, bare)]
    if calls and not any(call.on_epoch for call in calls):
        raise ConfigError(
            "study.objective",
            f"{name!r} is logged for single batches alone, and {sight.not_validated}",
            f"self.log({bare!r}, …, on_epoch=True)",
        )


def _bare_name(name: str) -> str:
    """A name without what Lightning appends."""
    bare = _LOADER.sub("", name)
    for fork in _FORKS:
        bare = bare.removesuffix(fork)
    return bare


def _other_forms(name: str, reported: Sequence[str]) -> list[str]:
    """The reported names that are the same metric, with what Lightning appends or without."""
    wanted = _bare_name(name)
    found = [each for each in reported if _bare_name(each) == wanted]
    of_epochs = [each for each in found if not each.endswith("_step")]
    plain = [each for each in of_epochs if each == wanted]
    return plain or of_epochs


def _explain_absence(name: str, sight: Sight, judgement: Judgement) -> None:
    """Refuse an objective that was not logged, unless it may come later.

    Raises:
        ConfigError: It would be logged in no trial.
    """
    bare = _bare_name(name)
    calls = [call for call in sight.logged if call.name in (name, bare)]
    if any(call.stage == Stage.VALIDATE and not call.on_epoch for call in calls):
        raise ConfigError(
            "study.objective",
            f"{name!r} is logged for single batches of the validation alone",
            f"self.log({bare!r}, …, on_epoch=True)",
        )
    if name in sight.in_logger:
        raise ConfigError(
            "study.objective",
            f"{name!r} is given to the logger alone, which decides nothing",
            f"self.log({name!r}, …)",
        )
    if sight.progress_unit != ProgressUnit.EPOCH and not sight.is_validated:
        return  # what ends later than with a step, an episode say, is not known yet
    if name in sight.named_in_code and not _has_seen_all(sight):
        judgement.notices.append(
            f"rehearsal: {name!r} was not logged in the first {_count(sight.epochs, 'epoch')};"
            " the module's code names it, so it may come later"
        )
        return
    known = _list_names(sight.reported) or "nothing"
    why = f", and {sight.not_validated}" if sight.not_validated else ""
    raise ConfigError(
        "study.objective",
        f"{name!r} is not logged: the module logs {known}{why}",
        _likeliest(name, sight) or _SKIP_HINT,
    )


def _has_seen_all(sight: Sight) -> bool:
    """Whether as many epochs were rehearsed as a trial has."""
    return sight.most_epochs is not None and sight.epochs >= sight.most_epochs


def _likeliest(name: str, sight: Sight) -> str:
    """The hint with the name that was meant."""
    by_words = {_words_of(each): each for each in reversed(sight.reported)}
    if _words_of(name) in by_words:
        return f"study.objective={by_words[_words_of(name)]}"
    near = did_you_mean(name, sight.reported).removeprefix("did you mean ").removesuffix("?")
    if near:
        return f"study.objective={near}"
    validated = [
        call.name
        for call in sight.logged
        if call.stage == Stage.VALIDATE and call.name in sight.reported
    ]
    return f"study.objective={validated[0]}" if validated else ""


def _words_of(name: str) -> tuple[str, ...]:
    """The words of a metric's name, each in one spelling."""
    words = (word.lower() for word in re.split(r"[\W_]+", _bare_name(name)) if word)
    return tuple(_SPELLINGS.get(word, word) for word in words)


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    rest = len(names) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _count(number: int, word: str) -> str:
    return word if number == 1 else f"{number} {word}s"
