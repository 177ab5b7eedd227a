"""The sweep grammar: what a user writes for one key, read into a :class:`DimensionSpec`.

A text is read by Hydra's own override parser, so that YAML and command line mean the same:

- ``interval(a, b)``: a float from a to b; an int, both ends included, where the config's own
  value of the key is an int. ``int(interval(a, b))`` and ``tag(int, interval(a, b))`` give an int
  whatever that is, ``tag(float, interval(a, b))`` a float.
- ``range(start, stop[, step])``: start, start + step, … without stop, as in Hydra and Python. (The
  official Optuna sweeper includes stop.) A fraction among the numbers makes a float.
- ``choice(a, b, …)`` or ``a,b,…``: a categorical over scalars, lists and mappings.
- ``tag(log, …)`` spreads evenly over the logarithm.

In YAML a mapping says the same: ``{interval: [a, b], log:, int:, step:}``, ``{range: [start, stop],
step:, log:}``, ``{choices: […]}``, ``{space: <text>}``, and the official sweeper's old ``{type:
float|int|categorical, low:, high:, step:, log:, choices:}`` (high included). Each takes ``when:
{parent: value or [values]}``.

Numbers and choices are checked later, by :mod:`dlsearch.space.builders`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from dlsearch.core.errors import ConfigError
from dlsearch.space.spec import (
    ChoicesSpec,
    DimensionSpec,
    IntervalSpec,
    NumberType,
    OverrideSpec,
    RangeSpec,
    ValuesSpec,
)

#: The keys that mark a mapping as a form, and what else a form of that mark takes.
FORMS: dict[str, tuple[str, ...]] = {
    "space": (),
    "interval": ("log", "int", "step"),
    "range": ("step", "log"),
    "choices": (),
    "type": ("low", "high", "step", "log", "choices"),
}
_TAGS = {"log", "int", "float"}
_SWEEP_HINT = "interval(0, 1), tag(log, interval(1e-4, 1e-1)), range(1, 5), choice(a, b)"
_WHEN_HINT = "when: {model: [mlp, lenet]}"
#: What Hydra's message begins with where a function of the grammar fails.
_EVALUATING = re.compile(r"^\w+ while evaluating '.*?': ")


# -- whole overrides -------------------------------------------------------------------------------
def parse_override(text: str) -> OverrideSpec:
    """Read a whole override (``key=value``).

    Raises:
        ConfigError: Hydra cannot read it, or it sweeps over something that cannot be searched.
    """
    override = _parse_with_hydra(text)
    name = _name_of(override)
    typed = override.input_line or ""
    value = override.value()
    if not isinstance(value, (Sweep, Glob)):
        return OverrideSpec(
            name,
            typed,
            searched=None,
            value=_unquote(value),
            deletes=override.is_delete(),
        )
    searched = DimensionSpec(
        name,
        _parse_sweep(name, value),
        group_hint=_group_hint_for_text(name),
        added=override.is_add() or override.is_force_add(),
    )
    return OverrideSpec(name, typed, searched)


def _parse_with_hydra(text: str) -> Override:
    try:
        return _hydra_parser().parse_override(text)
    except (HydraException, AssertionError) as error:
        parts = text.split("=", 1)
        key = parts[0].lstrip("+~") or "override"
        written = parts[-1]
        reason = _reason_of(error)
        hint = _SWEEP_HINT
        if "NoneType is incompatible" in reason:
            hint = "null,a or {choices: [null, a]}"
        raise ConfigError(key, f"cannot read {written!r}: {reason}", hint) from error


@functools.cache
def _hydra_parser() -> OverridesParser:
    return OverridesParser.create()


def _reason_of(error: Exception) -> str:
    """The first line of what Hydra's parser said."""
    for line in str(error).splitlines():
        if line.strip():
            return _EVALUATING.sub("", line.strip())
    return "it is not in the grammar"


def _name_of(override: Override) -> str:
    """The key of an override, with its package."""
    name = str(override.key_or_group)
    if override.package is not None:
        name = f"{name}@{override.package}"
    if override.is_sweep_override():
        # `space.optimizer.lr=choice(1, 2)` is what it looks like.
        name = name.removeprefix("space.")
    return name


def _unquote(value: Any) -> Any:
    """A parsed value without Hydra's quoted strings."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_unquote(item) for item in value]
    if isinstance(value, dict):
        return {_unquote(key): _unquote(item) for key, item in value.items()}
    return value


# -- what YAML holds for a key ---------------------------------------------------------------------
def parse_value(
    name: str,
    written: Any,
) -> DimensionSpec:
    """Read what YAML holds for the key `name`: a text of the sweep grammar, or a form.

    Raises:
        ConfigError: It is neither, or has wrong keys.
    """
    if isinstance(written, str):
        return DimensionSpec(name, _parse_text(name, written), _group_hint_for_text(name))
    if is_form(written):
        return _parse_form(name, written)
    hint = "interval(0, 1), choice(a, b)"
    if isinstance(written, list) and written:
        listed = ", ".join(map(str, written))
        hint = f"choice({listed})"
    raise ConfigError(name, f"expected values to search, got {written!r}", hint)


def _parse_text(
    name: str,
    text: str,
) -> ValuesSpec:
    try:
        override = _parse_with_hydra(f"key={text}")
    except ConfigError as error:
        raise ConfigError(name, error.expected, error.hint) from error
    value = override.value()
    if not isinstance(value, (Sweep, Glob)):
        raise ConfigError(name, f"expected values to search, got {text!r}", _SWEEP_HINT)
    return _parse_sweep(name, value)


def _group_hint_for_text(name: str) -> str:
    return f"{name}=a,b"


# -- sweeps, as Hydra parses them ------------------------------------------------------------------
def _parse_sweep(
    name: str,
    sweep: Sweep | Glob,
) -> ValuesSpec:
    if isinstance(sweep, Glob):
        group = name.partition("@")[0]
        raise ConfigError(name, "glob() is not searched", f"list the options: {group}=a,b")
    tags = set(sweep.tags)
    listed_tags = ", ".join(sorted(tags))
    if tags - _TAGS or {"int", "float"} <= tags:
        raise ConfigError(
            name,
            f"expected the tags log, int or float, got {listed_tags}",
            "tag(log, …)",
        )
    if isinstance(sweep, ChoiceSweep):
        if tags:
            raise ConfigError(
                name,
                f"a choice takes no tag, got {listed_tags}",
                "choice(1, 10, 100)",
            )
        return ChoicesSpec([_unquote(item) for item in sweep.list])
    if isinstance(sweep, IntervalSweep):
        return _parse_interval(sweep, tags)
    assert isinstance(sweep, RangeSweep)
    return _parse_range(sweep, tags)


def _parse_interval(
    sweep: IntervalSweep,
    tags: set[str],
) -> IntervalSpec:
    # Hydra makes floats of the bounds; they are ints only after a cast, `int(interval(…))`.
    is_cast = isinstance(sweep.start, int) and isinstance(sweep.end, int)
    whole = (is_cast or "int" in tags) and "float" not in tags
    return IntervalSpec(
        sweep.start,
        sweep.end,
        whole=whole,
        log="log" in tags,
        typed_float="float" in tags,
    )


def _parse_range(
    sweep: RangeSweep,
    tags: set[str],
) -> RangeSpec:
    number_type = None
    for candidate in NumberType:
        if candidate.value in tags:
            number_type = candidate
    return RangeSpec(
        sweep.start,
        sweep.stop,
        sweep.step,
        number_type=number_type,
        log="log" in tags,
    )


# -- forms: mappings in YAML -----------------------------------------------------------------------
def is_form(value: Any) -> bool:
    """Whether a mapping describes one dimension, rather than keys that lie deeper."""
    if not isinstance(value, Mapping):
        return False
    if "low" in value and "high" in value:
        return True
    return any(_is_marked_by(mark, value) for mark in FORMS)


def _is_marked_by(
    mark: str,
    value: Mapping[Any, Any],
) -> bool:
    """Whether `mark` is a form's mark: a config key may itself be called ``type`` or ``range``."""
    if mark not in value:
        return False
    inner = value[mark]
    if isinstance(inner, Mapping):
        return False
    if mark == "space" or not isinstance(inner, str):
        return True
    # A sweep of a config key is a text as well; what else the mapping holds decides.
    if "when" in value:
        return True
    return mark == "type" and any(key in value for key in ("low", "high", "choices"))


def _parse_form(
    name: str,
    form: Mapping[str, Any],
) -> DimensionSpec:
    mark = _find_mark(name, form)
    _check_keys(name, mark, form)
    flags = {flag: _read_flag(name, flag, form) for flag in ("log", "int")}
    if mark == "space":
        values = _parse_space_form(name, form["space"])
        group_hint = _group_hint_for_text(name)
    else:
        values = _parse_form_values(name, mark, form, flags)
        group_hint = "{choices: [a, b]}"
    when = _parse_when(name, form.get("when"))
    return DimensionSpec(name, values, group_hint, when)


def _find_mark(
    name: str,
    form: Mapping[str, Any],
) -> str:
    """The one mark of a form."""
    marks = [mark for mark in FORMS if mark in form]
    if "type" in marks and "choices" in marks:
        marks.remove("choices")
    if len(marks) == 1:
        return marks[0]
    got = f"{', '.join(map(str, form))} alone"
    if marks:
        got = f"{', '.join(marks)} together"
    raise ConfigError(name, f"expected one of {', '.join(FORMS)}, got {got}", "{interval: [0, 1]}")


def _check_keys(
    name: str,
    mark: str,
    form: Mapping[str, Any],
) -> None:
    known = (mark, "when", *FORMS[mark])
    for key in form:
        if key not in known:
            takes = ", ".join((*FORMS[mark], "when"))
            raise ConfigError(
                name,
                f"a space with {mark!r} takes no {str(key)!r}",
                f"it takes {takes}",
            )


def _read_flag(
    name: str,
    flag: str,
    form: Mapping[str, Any],
) -> bool:
    value = form.get(flag) or False
    if not isinstance(value, bool):
        raise ConfigError(name, f"expected {flag}: true or false, got {value!r}")
    return value


def _parse_space_form(
    name: str,
    written: Any,
) -> ValuesSpec:
    if not isinstance(written, str):
        raise ConfigError(name, f"expected space: a text, got {written!r}", _SWEEP_HINT)
    return _parse_text(name, written)


def _parse_form_values(
    name: str,
    mark: str,
    form: Mapping[str, Any],
    flags: Mapping[str, bool],
) -> ValuesSpec:
    given = form[mark]
    step = form.get("step")
    if mark == "choices":
        return ChoicesSpec(given)
    if mark == "interval":
        low, high = _read_numbers(name, mark, given, (2,))
        return IntervalSpec(
            low,
            high,
            whole=flags["int"],
            log=flags["log"],
            step=step,
            typed_float=form.get("int") is False,
        )
    if mark == "range":
        return _parse_range_form(name, given, step, log=flags["log"])
    return _parse_official_form(name, form, log=flags["log"])


def _parse_range_form(
    name: str,
    given: Any,
    step: Any,
    *,
    log: bool,
) -> RangeSpec:
    numbers = _read_numbers(name, "range", given, (2, 3))
    if len(numbers) == 3:
        if step is not None:
            raise ConfigError(name, "the step is given twice", "{range: [1, 9], step: 2}")
        step = numbers[2]
    elif step is None:
        step = 1
    return RangeSpec(numbers[0], numbers[1], step, log=log)


def _parse_official_form(
    name: str,
    form: Mapping[str, Any],
    *,
    log: bool,
) -> ValuesSpec:
    """A mapping as the official Optuna sweeper took it."""
    kind = form["type"]
    if kind == "categorical":
        for key in ("low", "high", "step", "log"):
            if form.get(key) is not None:
                raise ConfigError(name, f"type: categorical takes no {key}", "choices: [a, b]")
        return ChoicesSpec(form.get("choices"))
    if kind not in ("float", "int"):
        raise ConfigError(name, f"expected type: float, int or categorical, got {kind!r}")
    low = form.get("low")
    high = form.get("high")
    if "choices" in form or low is None or high is None:
        raise ConfigError(
            name,
            f"type: {kind} takes low and high",
            f"{{type: {kind}, low: 1, high: 5}}",
        )
    return IntervalSpec(
        low,
        high,
        whole=kind == "int",
        log=log,
        step=form.get("step"),
        typed_float=kind == "float",
    )


def _read_numbers(
    name: str,
    mark: str,
    given: Any,
    sizes: tuple[int, ...],
) -> list[Any]:
    if not isinstance(given, (list, tuple)) or len(given) not in sizes:
        wanted = " or ".join(map(str, sizes))
        raise ConfigError(name, f"expected {mark}: a list of {wanted} numbers, got {given!r}")
    return list(given)


def _parse_when(
    name: str,
    given: Any,
) -> dict[str, Sequence[Any]] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            name,
            f"expected when: a mapping from keys to values, got {given!r}",
            _WHEN_HINT,
        )
    when: dict[str, Sequence[Any]] = {}
    for parent, values in given.items():
        listed = [values]
        if isinstance(values, (list, tuple)):
            listed = list(values)
        if not isinstance(parent, str) or not listed:
            raise ConfigError(
                name,
                f"expected when: values for {parent!r}, got {values!r}",
                _WHEN_HINT,
            )
        when[parent] = listed
    return when
