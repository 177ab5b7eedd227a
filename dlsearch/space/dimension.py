"""One searched config key: its values, how Optuna stores them, and how they are written as text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

    from dlsearch.core.types import JsonObject

#: Words that Hydra's lexer does not read as strings.
_RESERVED_WORDS = {"null", "true", "false", "nan", "inf"}
#: A string that needs no quotes in the sweep grammar.
_PLAIN_WORD = re.compile(r"[A-Za-z_][\w./-]*")
#: How far a value may be from a step, counted in steps: for the rounding of decimals.
_STEP_TOLERANCE = 1e-8


class DimensionKind(StrEnum):
    """What the values of a dimension are."""

    FLOAT = "float"
    INT = "int"
    CATEGORICAL = "categorical"
    #: An entry of the record for a define-by-run function, which suggests keys of its own.
    FUNCTION = "function"


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter.

    Args:
        name: The config key (``optimizer.lr``), or the config group (``model``).
        kind: What its values are.
        low: Smallest value; None for a categorical.
        high: Largest value, included.
        log: Whether values are spread evenly over the logarithm.
        step: Distance between values; None for a continuous float, 1 for an int unless given.
        choices: The values of a categorical: YAML scalars, lists or mappings.
        when: The dimension exists only where each of these parents has one of the listed values.
        text: The dimension in the sweep grammar, spelled the same way whatever the user typed.
        is_group: Whether `name` is a config group, and the values its options.
        added: Whether the key need not exist in the config (``+key=…``).
        typed_float: Whether floats were asked for by name, whatever the key's default is.
    """

    name: str
    kind: DimensionKind
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Any, ...] | None = None
    when: Mapping[str, Sequence[Any]] | None = None
    text: str = ""
    is_group: bool = False
    added: bool = False
    typed_float: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        """Spell the text."""
        if not self.text:
            object.__setattr__(self, "text", spell_dimension(self))

    # -- the record --------------------------------------------------------------------------------
    def to_json(self, default: Any = None) -> JsonObject:
        """The entry of the study record; `default` is the base configuration's value."""
        choices = None
        if self.choices is not None:
            choices = list(self.choices)
        when = None
        if self.when:
            when = {parent: list(values) for parent, values in self.when.items()}
        return {
            "name": self.name,
            "kind": self.kind.value,
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "step": self.step,
            "choices": choices,
            "when": when,
            "default": default,
            "text": self.text,
            "is_group": self.is_group,
            "added": self.added,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Dimension:
        """The dimension that :meth:`to_json` wrote."""
        choices = None
        if entry["choices"] is not None:
            choices = tuple(entry["choices"])
        return cls(
            name=entry["name"],
            kind=DimensionKind(entry["kind"]),
            low=entry["low"],
            high=entry["high"],
            log=entry["log"],
            step=entry["step"],
            choices=choices,
            when=entry["when"],
            text=entry["text"],
            is_group=entry.get("is_group", False),
            added=entry.get("added", False),
        )

    # -- values ------------------------------------------------------------------------------------
    def type_matches(self, value: Any) -> bool:
        """Whether `value` has a type that this dimension's values have."""
        if self.kind == DimensionKind.CATEGORICAL:
            return True
        if isinstance(value, bool):
            return False
        if isinstance(value, int):
            return True
        return self.kind == DimensionKind.FLOAT and isinstance(value, float)

    def contains(self, value: Any) -> bool:
        """Whether `value`, decoded, is one of the dimension's values."""
        if self.kind == DimensionKind.CATEGORICAL:
            return any(is_same_choice(value, choice) for choice in self.choices or ())
        if not self.type_matches(value) or self.low is None or self.high is None:
            return False
        if not math.isfinite(value):
            return False
        if not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=_STEP_TOLERANCE)

    def count(self) -> int | None:
        """Number of values; None for a continuum."""
        if self.kind == DimensionKind.CATEGORICAL:
            return len(self.choices or ())
        if self.step is None or self.low is None or self.high is None:
            return None
        steps = (self.high - self.low) / self.step
        return round(steps) + 1

    def values(self) -> list[Any] | None:
        """Every value, decoded; None for a continuum."""
        if self.kind == DimensionKind.CATEGORICAL:
            return list(self.choices or ())
        count = self.count()
        if count is None:
            return None
        # In decimals, so that 0.1 + 0.2 is 0.3.
        low = Decimal(str(self.low))
        step = Decimal(str(self.step))
        number_type = int if self.kind == DimensionKind.INT else float
        return [number_type(low + index * step) for index in range(count)]

    # -- Optuna ------------------------------------------------------------------------------------
    def encode(self, value: Any) -> Any:
        """The value as Optuna stores it: lists and mappings become canonical JSON."""
        if self.kind == DimensionKind.FLOAT and self.type_matches(value):
            return float(value)
        if self.kind != DimensionKind.CATEGORICAL:
            return value
        for choice in self.choices or ():
            # 1 stands for the choice 1.0: the choice is stored, not what was given.
            if is_same_choice(value, choice):
                return _encode_choice(choice)
        return _encode_choice(value)

    def decode(self, value: Any) -> Any:
        """The value of the config for what Optuna stores."""
        for choice in self.choices or ():
            if isinstance(choice, (list, dict)) and value == _encode_choice(choice):
                return choice
        return value

    def encoded_choices(self) -> list[Any]:
        """The choices as Optuna stores them."""
        return [_encode_choice(choice) for choice in self.choices or ()]

    def suggest(self, trial: Trial) -> Any:
        """Ask `trial` for a value, decoded."""
        if self.kind == DimensionKind.CATEGORICAL:
            encoded = trial.suggest_categorical(self.name, self.encoded_choices())
            return self.decode(encoded)
        assert self.low is not None
        assert self.high is not None
        if self.kind == DimensionKind.INT:
            return trial.suggest_int(
                self.name,
                int(self.low),
                int(self.high),
                step=int(self.step or 1),
                log=self.log,
            )
        return trial.suggest_float(
            self.name,
            self.low,
            self.high,
            step=self.step,
            log=self.log,
        )

    def distribution(self) -> BaseDistribution:
        """Optuna's distribution; equal to what :meth:`suggest` registers."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == DimensionKind.CATEGORICAL:
            return CategoricalDistribution(self.encoded_choices())
        assert self.low is not None
        assert self.high is not None
        if self.kind == DimensionKind.INT:
            return IntDistribution(
                int(self.low),
                int(self.high),
                log=self.log,
                step=int(self.step or 1),
            )
        return FloatDistribution(
            float(self.low),
            float(self.high),
            log=self.log,
            step=self.step,
        )


def is_same_choice(
    value: Any,
    choice: Any,
) -> bool:
    """Whether two values are one choice: true is not 1, though 1 is 1.0."""
    if isinstance(value, bool) != isinstance(choice, bool):
        return False
    return bool(value == choice)


def _encode_choice(value: Any) -> Any:
    """A choice as Optuna takes it: Optuna has scalars alone."""
    if isinstance(value, (list, dict)):
        return json.dumps(
            value,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        )
    return value


# -- spelling --------------------------------------------------------------------------------------
def spell_dimension(dim: Dimension) -> str:
    """The dimension in the sweep grammar; the text parses to the same dimension."""
    if dim.kind == DimensionKind.CATEGORICAL:
        return _spell_choices(dim)
    is_linear_int = dim.kind == DimensionKind.INT and not dim.log
    if is_linear_int and dim.high is not None and dim.step is not None:
        return _spell_int_range(dim.low, dim.high, dim.step)
    if dim.kind == DimensionKind.FLOAT and dim.step is not None:
        return _spell_float_range(dim)
    return _spell_interval(dim)


def _spell_choices(dim: Dimension) -> str:
    choices = dim.choices or ()
    words = [_spell_value(choice) for choice in choices]
    if None in choices:
        # Hydra's choice() takes no null, its comma form does.
        return ",".join(words)
    return f"choice({', '.join(words)})"


def _spell_int_range(
    low: float | int | None,
    high: float | int,
    step: float | int,
) -> str:
    stop = high + step
    if step == 1:
        return f"range({low}, {stop})"
    return f"range({low}, {stop}, {step})"


def _spell_float_range(dim: Dimension) -> str:
    stop = Decimal(str(dim.high)) + Decimal(str(dim.step))
    return f"range({dim.low}, {stop}, {dim.step})"


def _spell_interval(dim: Dimension) -> str:
    low = _without_zero_fraction(dim.low)
    high = _without_zero_fraction(dim.high)
    interval = f"interval({low}, {high})"
    tags = []
    if dim.log:
        tags.append("log")
    if dim.kind == DimensionKind.INT:
        tags.append("int")
    if not tags:
        return interval
    return f"tag({', '.join(tags)}, {interval})"


def _without_zero_fraction(value: float | int | None) -> str:
    """``1`` for 1.0."""
    return str(value).removesuffix(".0")


def _spell_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        items = [_spell_value(item) for item in value]
        return f"[{','.join(items)}]"
    if isinstance(value, dict):
        pairs = [f"{key}:{_spell_value(item)}" for key, item in value.items()]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, str):
        return _spell_string(value)
    return str(value)


def _spell_string(value: str) -> str:
    """A string of the sweep grammar, in quotes where it would read as something else."""
    if _PLAIN_WORD.fullmatch(value) and value.lower() not in _RESERVED_WORDS:
        return value
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(value, Quote.single).with_quotes()
