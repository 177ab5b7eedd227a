"""The ``transfer`` section, read and checked by itself: no net, no weights, nothing heavy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlsearch.core.errors import ConfigError

SOURCES = "study:NAME, study:NAME/TRIAL, file:PATH or torchvision:NAME"
#: Words among globs: no tensor has such a name.
LAST = "last"
LOADED = "loaded"
_SHA256 = re.compile(r"[0-9a-f]{64}")
BATCH_NORM = ("frozen", "adapt")


@dataclass(frozen=True)
class Rule:
    """How some tensors train.

    Args:
        name: Of their group of parameters; ``lr/<name>`` is their learning rate in the metrics.
        match: Globs over their names.
        lr: Times the optimiser's rate.
        begins: First epoch, from 0, in which they train; None never.
        key: Where it stands in the config.
    """

    name: str
    match: tuple[str, ...]
    lr: float
    begins: int | None
    key: str


@dataclass(frozen=True)
class Settings:
    """What is loaded, and what becomes of it.

    Args:
        weights: The source, as it was typed.
        sha256: Digest that its weights must have; None before they have been looked at.
        prefix: Of the net's names in a file.
        head: Globs over what is initialised again; ``(LAST,)`` for the last layer.
        groups: Rules that come first, in their order.
        frozen: The rule of what ``freeze`` names.
        loaded: The rule of what else was loaded.
        adapt: Whether the statistics of a frozen normalisation follow the data.
    """

    weights: str
    sha256: str | None
    prefix: str | None
    head: tuple[str, ...]
    groups: tuple[Rule, ...]
    frozen: Rule
    loaded: Rule
    adapt: bool


def source(weights: str) -> tuple[str, str]:
    """Kind and name of a source: ``study:lenet/3`` is ``study`` and ``lenet/3``.

    Raises:
        ConfigError: It is none.
    """
    kind, _, name = weights.partition(":")
    if kind not in ("study", "file", "torchvision") or not name:
        raise ConfigError("transfer.weights", f"expected {SOURCES}, got {weights!r}")
    return kind, name


def settings(node: Mapping[str, Any] | None, max_epochs: int | None) -> Settings | None:
    """Read the section; None where nothing is transferred.

    Args:
        node: The section as plain Python, interpolations resolved.
        max_epochs: Of the training; None where its length is in steps.

    Raises:
        ConfigError: A value is none that can be meant.
    """
    if not node or node["weights"] is None:
        return None
    source(node["weights"])
    batch_norm = node["batch_norm"]
    if batch_norm not in BATCH_NORM:
        expected = f"expected {' or '.join(BATCH_NORM)}, got {batch_norm!r}"
        raise ConfigError("transfer.batch_norm", expected)
    begins = _check_epoch(node["unfreeze"], "transfer.unfreeze", max_epochs)
    lr = _check_factor(node["lr"], "transfer.lr")
    groups = [_read_group(name, each, max_epochs) for name, each in node["groups"].items()]
    sha256 = _check_digest(node["sha256"].get(node["weights"]))
    head = globs(node["head"], "transfer.head")
    frozen = globs(node["freeze"], "transfer.freeze")
    return Settings(
        weights=node["weights"],
        sha256=sha256,
        prefix=node["prefix"],
        head=head,
        groups=tuple(groups),
        frozen=Rule(
            "frozen",
            frozen,
            lr,
            begins,
            "transfer.freeze",
        ),
        loaded=Rule(
            "loaded",
            ("*",),
            lr,
            0,
            "transfer.lr",
        ),
        adapt=node["batch_norm"] == "adapt",
    )


def _read_group(
    name: Any,
    group: Mapping[str, Any],
    max_epochs: int | None,
) -> Rule:
    key = f"transfer.groups.{name}"
    if not str(name).replace("_", "a").isalnum():
        raise ConfigError(key, f"expected a name of letters, digits and '_', got {name!r}")
    match = globs(group["match"], f"{key}.match")
    begins = _check_epoch(group["unfreeze"], f"{key}.unfreeze", max_epochs)
    lr = _check_factor(group["lr"], f"{key}.lr")
    return Rule(
        str(name),
        match,
        lr,
        begins,
        f"{key}.match",
    )


def _check_digest(value: Any) -> str | None:
    """A digest, which is also a file's name.

    Raises:
        ConfigError: It is none.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        shown = str(value)[:80]
        raise ConfigError("transfer.sha256", f"expected 64 hexadecimal digits, got {shown!r}")
    return value


def globs(value: Any, key: str) -> tuple[str, ...]:
    """Patterns of a text with blanks between them, or of a list; none of null.

    Raises:
        ConfigError: It is something else.
    """
    if value is None:
        return ()
    found = value.split() if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(map(_is_word, found)):
        raise ConfigError(
            key,
            f"expected globs over names of tensors, got {value!r}",
            "'conv1.* bn1.*'",
        )
    return tuple(found)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _check_epoch(value: Any, key: str, max_epochs: int | None) -> int | None:
    end = math.inf if max_epochs is None else max_epochs
    if value is not None and not 0 <= value < end:
        last = "on" if max_epochs is None else f"to {max_epochs - 1}"
        expected = f"expected an epoch from 0 {last}, or null for never, got {value}"
        raise ConfigError(key, expected, "trainer.max_epochs")
    return None if value is None else int(value)


def _check_factor(value: float, key: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            key,
            f"expected a factor above 0, got {value}",
            "transfer.freeze keeps tensors as they are",
        )
    return float(value)
