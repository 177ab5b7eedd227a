"""The types of values that the command line gives: those of the values that they replace.

``model.width=1e2`` is a float to Hydra; where the YAML has an int, an int is meant. A text where
the YAML has a float is a mistake. Only sections that describe objects are looked at: the frame has
types of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from omegaconf import OmegaConf

from dlsearch.core.errors import ConfigError

#: By dotted key, the number that the last of the config files has there.
Declared: TypeAlias = dict[str, int | float]

#: The sections that describe objects.
_SECTIONS = ("callbacks", "data", "model", "optimizer", "scheduler", "task")


def note_declared(declared: Declared, content: Any, at: str = "") -> None:
    """Note the numbers of one file, at the place where it is put into the config.

    Args:
        declared: Is added to; a later file takes the place of an earlier one.
        content: Plain data, unresolved.
        at: Where it stands.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            name = f"{at}.{key}" if at else str(key)
            if at or name in _SECTIONS:
                note_declared(declared, value, name)
        return
    declared.pop(at, None)
    if isinstance(content, (int, float)) and not isinstance(content, bool):
        declared[at] = content


def adapt_overrides(cfg: Any, overrides: Sequence[str], declared: Declared) -> None:
    """Give the values of the command line the types of those that they replace.

    Args:
        cfg: Composed; changed in place.
        overrides: As typed.
        declared: The numbers of the config files.

    Raises:
        ConfigError: A text or a truth value stands where a float was.
    """
    for word in overrides:
        key = word.partition("=")[0].lstrip("+")
        default = declared.get(key)
        if default is None or not OmegaConf.is_config(cfg):
            continue
        value = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        adapted = adapt_value(key, value, default)
        if type(adapted) is not type(value):
            OmegaConf.update(cfg, key, adapted)


def adapt_value(name: str, value: Any, default: Any) -> Any:
    """A value in the type of its key's default.

    Args:
        name: The config key.
        value: Given for it.
        default: The config's value; what it is decides alone where it is a number.

    Raises:
        ConfigError: The default is a float and the value is a text or a truth value.
    """
    if is_int(default) and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(default, float):
        return value
    is_text = isinstance(value, str) and "${" not in value
    if is_text or isinstance(value, bool):
        raise ConfigError(name, f"expected a number, got {value!r}", f"{name}={default}")
    return value


def is_int(value: Any) -> bool:
    """Whether a value is an int; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)
