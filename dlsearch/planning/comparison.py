"""Checks of a comparison before it is opened, and what each of its arms runs first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from dlsearch.config.compose import resolve
from dlsearch.config.moved import current_name
from dlsearch.confirmation.racing import LIMIT
from dlsearch.core.errors import ConfigError
from dlsearch.sampling.arms import KEY, Arms, write_option
from dlsearch.sampling.factory import goes_by_others
from dlsearch.space.space import Space
from dlsearch.study.trial_config import trial_config

if TYPE_CHECKING:
    from dlsearch.core.types import Params
    from dlsearch.planning.draft import Draft
    from dlsearch.study.documents import StudyDocument

#: Samplers that note generations with the study, and so would share them between arms.
_WITH_GENERATIONS = ("optuna.samplers.NSGAIISampler", "optuna.samplers.NSGAIIISampler")


@dataclass(frozen=True)
class FirstTrial:
    """A trial whose parameters are given before the search begins.

    Args:
        params: The parameters; what is left out is sampled.
        origin: ``default`` or ``enqueued``.
    """

    params: Params
    origin: str


def first_trials(draft: Draft) -> list[FirstTrial]:
    """What a study runs first, by number; of a comparison, every arm the same."""
    arms = draft.arms
    if arms is None:
        first = [] if draft.default is None else [FirstTrial(draft.default, "default")]
        return [*first, *(FirstTrial(params, "enqueued") for params in draft.enqueue)]
    first = [FirstTrial(params, "default") for params in draft.arm_defaults]
    for params in draft.enqueue:
        for option in arms.options:
            first.append(FirstTrial({arms.key: option, **params}, "enqueued"))
    return first


# -- checks ----------------------------------------------------------------------------------------
def check_comparison(draft: Draft) -> None:
    """Check that every arm can have a search of its own, with the same budget.

    Raises:
        ConfigError: It cannot.
    """
    arms = draft.arms
    if arms is None:
        return
    if len(draft.objectives) > 1:
        raise ConfigError(KEY, "a comparison has one objective", "study.objective=val/accuracy")
    if len(arms) > LIMIT:
        raise ConfigError(KEY, f"expected at most {LIMIT} options, {arms.key} has {len(arms)}")
    if goes_by_others(draft.config["sampler"]):
        raise ConfigError(
            KEY,
            "the points of a grid or a sequence are given out over all trials, not by arm",
            "sampler=tpe or sampler=random",
        )
    if _keeps_generations(draft.config["sampler"]):
        raise ConfigError(
            KEY,
            "the generations of NSGA-II are the study's, not an arm's",
            "sampler=tpe, random, gp or cmaes",
        )
    if draft.study["target"] is not None:
        raise ConfigError(
            "study.target",
            "the first arm to reach it would end the search of all",
            "study.target=null in a comparison",
        )


def _keeps_generations(node: Any) -> bool:
    if not isinstance(node, Mapping):
        return False
    if current_name(str(node.get("_target_"))) in _WITH_GENERATIONS:
        return True
    return any(_keeps_generations(value) for value in node.values())


def plan_arms(draft: Draft) -> None:
    """Have the best of every arm confirmed on all seeds, and say what is compared."""
    arms = draft.arms
    if arms is None:
        return
    draft.config["study"]["confirm"] |= {"top": 1, "racing": False}
    draft.notices.append(
        f"compares {arms.key}: {arms.listed}; "
        f"trials of each: {draft.study['n_trials']}, in all: {draft.total_trials}"
    )


def check_enqueued(
    draft: Draft,
    params: Params,
    where: str,
) -> None:
    """Check that every arm can run a parameter set.

    Args:
        draft: The comparison.
        params: The parameter set.
        where: Its place in the config.

    Raises:
        ConfigError: It names an arm, or does not fit one of them.
    """
    arms = draft.arms
    if arms is None:
        return
    if arms.key in params:
        raise ConfigError(
            f"{where}.{arms.key}",
            "every arm runs what is enqueued",
            f"the set without {arms.key}",
        )
    for place in range(len(arms)):
        arms.space_of(draft.space, place).validate(params, where)


def check_same_comparison(
    old: StudyDocument,
    new: StudyDocument,
) -> None:
    """Check that a study that goes on compares what it compared: a trial's number says its arm.

    Raises:
        ConfigError: It does not.
    """
    known = _arms_of(old)
    wanted = _arms_of(new)
    if known == wanted:
        return
    raise ConfigError(
        KEY,
        f"study {new.plain['name']!r} {_say(known)}, and cannot go on as one that {_say(wanted)}",
        "study.name=… starts a new one",
    )


def _arms_of(document: StudyDocument) -> Arms | None:
    return Arms.of_study(Space.from_json(document.space), document.study_settings)


def _say(arms: Arms | None) -> str:
    if arms is None:
        return "compares nothing"
    return f"compares {arms.key} ({arms.listed})"


# -- defaults --------------------------------------------------------------------------------------
def set_arm_defaults(draft: Draft) -> None:
    """Note the default configuration of every arm, where all arms can run theirs.

    Each is the composed config with the arm's option.
    """
    arms = draft.arms
    assert arms is not None
    found = []
    for place, option in enumerate(arms.options):
        values, outside = _default_of_arm(draft, arms, place)
        if outside:
            listed = ", ".join(f"{name}={values[name]}" for name in outside)
            draft.notices.append(
                "no arm runs its default configuration first: with "
                f"{arms.key}={write_option(option)}, {listed} lies outside the search space"
            )
            return
        found.append({arms.key: option, **values})
    draft.arm_defaults = found


def _default_of_arm(
    draft: Draft,
    arms: Arms,
    place: int,
) -> tuple[Params, list[str]]:
    document = {"config": draft.config, "options": draft.options}
    chosen = {arms.key: arms.options[place]}
    config = trial_config(document, chosen, seed=draft.config["seed"])
    composed = OmegaConf.create(config)

    def value_of(key: str) -> Any:
        if key not in draft.options:
            return resolve(composed, key)
        return chosen.get(key, draft.chosen[key])

    return arms.space_of(draft.space, place).default_params(value_of)
