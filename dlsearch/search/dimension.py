"""One searched config key: its values, how Optuna sees them, and how they are written down."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

# What Hydra's lexer would read as something else than a string.
_RESERVED = {"null", "true", "false", "nan", "inf"}


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter.

    Args:
        name: The config key (``optimizer.lr``), or the config group (``model``).
        kind: ``float``, ``int`` or ``categorical``.
        low: Smallest value; None for a categorical.
        high: Largest value, included.
        log: Whether values are spread evenly over the logarithm.
        step: Distance between values; None for a continuous float, 1 for an int unless given.
        choices: The values of a categorical: YAML scalars, lists or mappings.
        when: The dimension exists only where each of these parents has one of the listed values.
        text: The dimension in the sweep grammar, spelled the same way whatever the user typed.
        is_group: Whether `name` is a config group, and the values its options.
        added: Whether the key need not exist in the config (``+key=…``).
    """

    name: str
    kind: str
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Any, ...] | None = None
    when: Mapping[str, Sequence[Any]] | None = None
    text: str = ""
    is_group: bool = False
    added: bool = False

    def __post_init__(self) -> None:
        """Spell the text."""
        if not self.text:
            object.__setattr__(self, "text", spell(self))

    def to_json(self, default: Any = None) -> dict[str, Any]:
        """The entry of the study record; `default` is the base configuration's value."""
        return {
            "name": self.name,
            "kind": self.kind,
            "low": self.low,
            "high": self.high,
            "log": self.log,
            "step": self.step,
            "choices": None if self.choices is None else list(self.choices),
            "when": None if not self.when else {key: list(values) for key, values in self.when.items()},
            "default": default,
            "text": self.text,
            "is_group": self.is_group,
            "added": self.added,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Dimension:
        """The dimension that :meth:`to_json` wrote."""
        fields = {key: entry[key] for key in ("name", "kind", "low", "high", "log", "step", "when", "text")}
        choices = None if entry["choices"] is None else tuple(entry["choices"])
        return cls(**fields, choices=choices, is_group=entry.get("is_group", False), added=entry.get("added", False))

    def type_matches(self, value: Any) -> bool:
        """Whether `value` has a type that this dimension's values have."""
        if self.kind == "categorical":
            return True
        if isinstance(value, bool):
            return False
        return isinstance(value, int) or (self.kind == "float" and isinstance(value, float))

    def contains(self, value: Any) -> bool:
        """Whether `value`, decoded, is one of the dimension's values."""
        if self.kind == "categorical":
            return any(same(value, choice) for choice in self.choices or ())
        if not self.type_matches(value) or self.low is None or self.high is None:
            return False
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-8)

    def encode(self, value: Any) -> Any:
        """The value as Optuna stores it: lists and mappings become canonical JSON."""
        if self.kind == "float" and self.type_matches(value):
            return float(value)
        if self.kind != "categorical":
            return value
        for choice in self.choices or ():  # 1 for 1.0 is the choice 1.0
            if same(value, choice):
                return _scalar(choice)
        return _scalar(value)

    def decode(self, value: Any) -> Any:
        """The value of the config for what Optuna stores."""
        for choice in self.choices or ():
            if isinstance(choice, (list, dict)) and value == _scalar(choice):
                return choice
        return value

    def encoded_choices(self) -> list[Any]:
        """The choices as Optuna sees them."""
        return [_scalar(choice) for choice in self.choices or ()]

    def suggest(self, trial: Trial) -> Any:
        """Ask `trial` for a value, decoded."""
        if self.kind == "categorical":
            return self.decode(trial.suggest_categorical(self.name, self.encoded_choices()))
        assert self.low is not None
        assert self.high is not None
        if self.kind == "int":
            step = int(self.step or 1)
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def distribution(self) -> BaseDistribution:
        """Optuna's distribution; equal to what :meth:`suggest` registers."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "categorical":
            return CategoricalDistribution(self.encoded_choices())
        assert self.low is not None
        assert self.high is not None
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def count(self) -> int | None:
        """Number of values; None for a continuum."""
        if self.kind == "categorical":
            return len(self.choices or ())
        if self.step is None or self.low is None or self.high is None:
            return None
        return round((self.high - self.low) / self.step) + 1

    def values(self) -> list[Any] | None:
        """Every value, decoded; None for a continuum."""
        if self.kind == "categorical":
            return list(self.choices or ())
        n = self.count()
        if n is None:
            return None
        low, step = Decimal(str(self.low)), Decimal(str(self.step))
        cast = int if self.kind == "int" else float
        return [cast(low + index * step) for index in range(n)]


def same(a: Any, b: Any) -> bool:
    """Whether two values are one choice: true is not 1, though 1 is 1.0."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _scalar(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return value


def spell(dim: Dimension) -> str:
    """The dimension in the sweep grammar; what it gives parses to the same dimension."""
    if dim.kind == "categorical":
        words = [_word(choice) for choice in dim.choices or ()]
        # Hydra's choice() takes no null, its comma form does.
        return ",".join(words) if None in (dim.choices or ()) else f"choice({', '.join(words)})"
    if dim.kind == "int" and not dim.log and dim.high is not None and dim.step is not None:
        stop = dim.high + dim.step if dim.step != 1 else dim.high + 1
        return f"range({dim.low}, {stop}{f', {dim.step}' if dim.step != 1 else ''})"
    if dim.step is not None and dim.kind == "float":
        beyond = Decimal(str(dim.high)) + Decimal(str(dim.step))
        return f"range({dim.low}, {beyond}, {dim.step})"
    tags = [tag for tag, on in (("log", dim.log), ("int", dim.kind == "int")) if on]
    interval = f"interval({_short(dim.low)}, {_short(dim.high)})"
    return f"tag({', '.join(tags)}, {interval})" if tags else interval


def _short(value: float | int | None) -> str:
    return str(value).removesuffix(".0")


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_word(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in _RESERVED:
            return value
        from hydra.core.override_parser.types import Quote, QuotedString

        return QuotedString(value, Quote.single).with_quotes()
    return str(value)
