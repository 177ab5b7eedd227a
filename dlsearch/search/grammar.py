"""The sweep grammar: from what a user writes for one key to a :class:`Dimension`.

A text is read by Hydra's own override parser, so that YAML and command line mean the same:

- ``interval(a, b)``: a float from a to b. Two ints give a float as well, as Hydra reads them and as the official
  Optuna sweeper does; ``int(interval(a, b))`` and ``tag(int, interval(a, b))`` give an int from a to b, both included.
- ``range(start, stop[, step])``: start, start + step, … without stop, as in Hydra and Python. (The official Optuna
  sweeper includes stop.) A fraction among the numbers makes a float.
- ``choice(a, b, …)`` or ``a,b,…``: a categorical over scalars, lists and mappings.
- ``tag(log, …)`` spreads evenly over the logarithm.

In YAML a mapping says the same: ``{interval: [a, b], log:, int:, step:}``, ``{range: [start, stop], step:, log:}``,
``{choices: […]}``, ``{space: <text>}``, and the official sweeper's old ``{type: float|int|categorical, low:, high:,
step:, log:, choices:}`` (high included). Each takes ``when: {parent: value or [values]}``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, QuotedString, RangeSweep, Sweep
from hydra.errors import HydraException

from dlsearch.config.errors import ConfigError
from dlsearch.search.kinds import choices, interval, stepped

if TYPE_CHECKING:
    from dlsearch.search.dimension import Dimension

#: What a mapping may be made of; each form, by the key that marks it.
FORMS: dict[str, tuple[str, ...]] = {
    "space": (),
    "interval": ("log", "int", "step"),
    "range": ("step", "log"),
    "choices": (),
    "type": ("low", "high", "step", "log", "choices"),
}
_HINT = "interval(0, 1), tag(log, interval(1e-4, 1e-1)), range(1, 5), choice(a, b)"


@functools.cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def parse_override(text: str) -> Override:
    """Read a whole override (``key=value``).

    Raises:
        ConfigError: Hydra cannot read it.
    """
    try:
        return _parser().parse_override(text)
    except (HydraException, AssertionError) as error:
        key = text.split("=", 1)[0].lstrip("+~") or "override"
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), "it is not in the grammar")
        why = re.sub(r"^\w+ while evaluating '.*?': ", "", why)
        hint = "null,a or {choices: [null, a]}" if "NoneType is incompatible" in why else _HINT
        raise ConfigError(key, f"cannot read {text.split('=', 1)[-1]!r}: {why}", hint) from error


def plain(value: Any) -> Any:
    """A parsed element without Hydra's quoted strings."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def is_form(value: Any) -> bool:
    """Whether a mapping describes one dimension, rather than keys that lie deeper."""
    if not isinstance(value, Mapping):
        return False
    for mark in FORMS:
        # A config key may itself be called "type" or "range"; then a sweep, or more keys, stand below it.
        if mark in value and not isinstance(value[mark], Mapping):
            inner = value[mark]
            if mark == "space" or not isinstance(inner, str):
                return True
            if mark == "type" and ("low" in value or "high" in value or "choices" in value):
                return True
            if "when" in value:
                return True
    return "low" in value and "high" in value


def from_text(name: str, text: str, *, is_group: bool = False) -> Dimension:
    """Read a dimension's text.

    Raises:
        ConfigError: It is no sweep, or a bad one.
    """
    return from_sweep(name, _read(name, text), is_group=is_group)


def _read(name: str, text: str) -> Any:
    try:
        override = parse_override(f"key={text}")
    except ConfigError as error:
        raise ConfigError(name, error.expected, error.hint) from error
    value = override.value()
    if not isinstance(value, (Sweep, Glob)):
        raise ConfigError(name, f"expected values to search, got {text!r}", _HINT)
    return value


def from_sweep(name: str, sweep: Any, *, is_group: bool = False, added: bool = False) -> Dimension:
    """The dimension of a sweep that Hydra parsed.

    Raises:
        ConfigError: It is a glob, or bounds, step, tags or choices are wrong.
    """
    if isinstance(sweep, Glob):
        raise ConfigError(name, "glob() is not searched", f"list the options: {name.partition('@')[0]}=a,b")
    tags = set(sweep.tags)
    unknown = sorted(tags - {"log", "int", "float"})
    if unknown or {"int", "float"} <= tags:
        raise ConfigError(name, f"expected the tags log, int or float, got {', '.join(sorted(tags))}", "tag(log, …)")
    log = "log" in tags
    if isinstance(sweep, ChoiceSweep):
        if tags:
            raise ConfigError(name, f"a choice takes no tag, got {', '.join(sorted(tags))}", "choice(1, 10, 100)")
        dim = choices(name, [plain(item) for item in sweep.list], is_group=is_group)
    elif isinstance(sweep, IntervalSweep):
        whole = "int" in tags or (isinstance(sweep.start, int) and isinstance(sweep.end, int))
        dim = interval(name, sweep.start, sweep.end, whole=whole and "float" not in tags, log=log)
    else:
        assert isinstance(sweep, RangeSweep)
        dim = stepped(name, sweep.start, sweep.stop, sweep.step, whole="int" in tags, log=log)
        if "float" in tags and dim.kind == "int":
            dim = stepped(name, *(float(x) for x in (sweep.start or 0, sweep.stop or 0, sweep.step)), log=log)
    if is_group and dim.kind != "categorical":
        raise ConfigError(name, "is a config group: expected options by name", f"{name}=a,b")
    return dataclasses.replace(dim, added=added)


def from_mapping(name: str, form: Mapping[str, Any], *, is_group: bool = False) -> Dimension:
    """Read a dimension's mapping.

    Raises:
        ConfigError: Keys or values are wrong.
    """
    marks = [mark for mark in FORMS if mark in form and not (mark == "choices" and "type" in form)]
    if len(marks) > 1 or not marks:
        listed = f"{', '.join(marks)} together" if marks else f"{', '.join(map(str, form))} alone"
        raise ConfigError(name, f"expected one of {', '.join(FORMS)}, got {listed}", "{interval: [0, 1]}")
    mark = marks[0]
    unknown = [str(key) for key in form if key not in (mark, "when", *FORMS[mark])]
    if unknown:
        takes = ", ".join((*FORMS[mark], "when"))
        raise ConfigError(name, f"a space with {mark!r} takes no {unknown[0]!r}", f"it takes {takes}")
    dim = _form(name, mark, form, is_group)
    when = _when(name, form.get("when"))
    if is_group and dim.kind != "categorical":
        raise ConfigError(name, "is a config group: expected options by name", "{choices: [a, b]}")
    return dataclasses.replace(dim, when=when)


def _form(name: str, mark: str, form: Mapping[str, Any], is_group: bool) -> Dimension:
    given = form[mark]
    flags = {}
    for flag in ("log", "int"):
        flags[flag] = form.get(flag) or False
        if not isinstance(flags[flag], bool):
            raise ConfigError(name, f"expected {flag}: true or false, got {form[flag]!r}")
    if mark == "space":
        if not isinstance(given, str):
            raise ConfigError(name, f"expected space: a text, got {given!r}", _HINT)
        return from_text(name, given, is_group=is_group)
    if mark == "choices":
        return choices(name, given, is_group=is_group)
    if mark == "interval":
        low, high = _numbers(name, mark, given, (2,))
        return interval(name, low, high, whole=flags["int"], log=flags["log"], step=form.get("step"))
    if mark == "range":
        bounds = _numbers(name, mark, given, (2, 3))
        if len(bounds) == 3 and form.get("step") is not None:
            raise ConfigError(name, "the step is given twice", "{range: [1, 9], step: 2}")
        step = bounds[2] if len(bounds) == 3 else (1 if form.get("step") is None else form["step"])
        return stepped(name, bounds[0], bounds[1], step, log=flags["log"])
    return _old_form(name, form, flags["log"], is_group)


def _old_form(name: str, form: Mapping[str, Any], log: bool, is_group: bool) -> Dimension:
    kind = form["type"]
    if kind == "categorical":
        extra = [key for key in ("low", "high", "step", "log") if form.get(key) is not None]
        if extra:
            raise ConfigError(name, f"type: categorical takes no {extra[0]}", "choices: [a, b]")
        return choices(name, form.get("choices"), is_group=is_group)
    if kind not in ("float", "int"):
        raise ConfigError(name, f"expected type: float, int or categorical, got {kind!r}")
    if "choices" in form or form.get("low") is None or form.get("high") is None:
        raise ConfigError(name, f"type: {kind} takes low and high", f"{{type: {kind}, low: 1, high: 5}}")
    return interval(name, form["low"], form["high"], whole=kind == "int", log=log, step=form.get("step"))


def _numbers(name: str, mark: str, given: Any, sizes: tuple[int, ...]) -> list[Any]:
    if not isinstance(given, (list, tuple)) or len(given) not in sizes:
        raise ConfigError(name, f"expected {mark}: a list of {' or '.join(map(str, sizes))} numbers, got {given!r}")
    return list(given)


def _when(name: str, given: Any) -> dict[str, list[Any]] | None:
    if given is None:
        return None
    hint = "when: {model: [mlp, lenet]}"
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(name, f"expected when: a mapping from keys to values, got {given!r}", hint)
    when = {}
    for key, values in given.items():
        listed = list(values) if isinstance(values, (list, tuple)) else [values]
        if not isinstance(key, str) or not listed:
            raise ConfigError(name, f"expected when: values for {key!r}, got {values!r}", hint)
        when[key] = listed
    return when
