"""The arms of a comparison: which of a study's trials belong to which option of one choice.

A comparison is one study. Its trials take the arms in turn, by their numbers: with two arms, the
even ones belong to the first. So an arm is a function of the number, whoever claims the trial, and
every arm has its share of the budget however workers come and go.

Importing this module imports no optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from dlsearch.core.types import ParamValue
    from dlsearch.space.space import Space

#: A comparison has at least so many arms.
FEWEST_ARMS = 2
KEY = "study.compare"


def write_option(option: Any) -> str:
    """An option as a config has it: ``null``, ``true``, ``study:lenet_mnist``, ``0.25``."""
    if option is None:
        return "null"
    if isinstance(option, bool):
        return str(option).lower()
    return str(option)


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison.

    Args:
        key: The choice that is compared: a config key, or a config group.
        options: Its values, one an arm.
    """

    key: str
    options: tuple[ParamValue, ...]

    @classmethod
    def of_study(
        cls,
        space: Space,
        settings: Mapping[str, Any],
    ) -> Arms | None:
        """The arms of a study; None where it compares nothing.

        Args:
            space: What is searched.
            settings: The section ``study`` of its config; studies of earlier versions know of no
                comparisons.

        Raises:
            ConfigError: What is compared is no choice that is searched in every trial.
        """
        key = settings.get("compare")
        if key is None:
            return None
        if key not in space:
            names = [dim.name for dim in space.dimensions if dim.choices]
            hint = did_you_mean(str(key), names, f"{key}=a,b searches it")
            raise ConfigError(KEY, f"{key} is not searched", hint)
        dim = space[key]
        if dim.choices is None:
            raise ConfigError(KEY, f"{key} is no choice, but {dim.text}", f"{key}='choice(a, b)'")
        if dim.when:
            parents = ", ".join(dim.when)
            raise ConfigError(
                KEY,
                f"{key} exists only under some values of {parents}",
                f"compare {parents}, or fix it",
            )
        if len(dim.choices) < FEWEST_ARMS:
            only = write_option(dim.choices[0])
            raise ConfigError(
                KEY,
                f"{key} has one option alone, {only}",
                f"{key}='choice({only}, b)'",
            )
        return cls(key, tuple(dim.choices))

    def __len__(self) -> int:
        """How many arms there are."""
        return len(self.options)

    def place_of(self, number: int) -> int:
        """The arm of a trial, from 0."""
        return number % len(self.options)

    def number_within(self, number: int) -> int:
        """A trial's number within its arm, from 0."""
        return number // len(self.options)

    @property
    def listed(self) -> str:
        """The options, as a config has them."""
        return ", ".join(map(write_option, self.options))

    def space_of(
        self,
        space: Space,
        place: int,
    ) -> Space:
        """What is searched within an arm.

        Args:
            space: The study's.
            place: The arm.
        """
        return space.fix(self.key, self.options[place])
