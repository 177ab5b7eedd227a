"""The targets, overrides and YAMLs of :mod:`tests.security.test_hostile_configs`, each through a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from tests.security.foreign.audit import RAN
from tests.security.foreign.box import Box
from tests.security.foreign.inputs.base import CONF, OUT, Input, product, run, search
from tests.security.foreign.inputs.payloads import pickled
from tests.security.foreign.inputs.stores import (
    EXPORT,
    LOOK,
    PREDICT,
    REPRODUCE,
    VERIFY,
    config,
    document,
    record,
    sets,
)
from tests.security.test_hostile_configs import CALLS, HIDDEN, OVERRIDES, YAMLS

Place = tuple[str, tuple[str, ...], Callable[[Any], Callable[[Box], Any]]]


def _group(name: str) -> Callable[[Any], Callable[[Box], Any]]:
    return lambda node: lambda box: box.config(name, node)


def _experiment(key: str) -> Callable[[Any], Callable[[Box], Any]]:
    def place(node: Any) -> Callable[[Box], Any]:
        return lambda box: box.config("experiment", sets(key, node)({}))

    return place


#: Where a node is put, and what then reads it.
PLACES: tuple[Place, ...] = (
    ("experiment YAML", run("experiment=evil"), _experiment("callbacks.x")),
    ("config group", ("describe", *CONF, "model=evil"), _group("model")),
    ("study store", PREDICT, lambda node: config(sets("model", node))),
    ("experiment YAML", search("experiment=evil"), _experiment("model")),
    ("study database", VERIFY, lambda node: document(sets("config.model", node))),
    ("record", REPRODUCE, lambda node: record(sets("study.config.model", node))),
    ("study store", EXPORT, lambda node: config(sets("model.widths", node))),
    ("config group", run("optimizer=evil"), _group("optimizer")),
    ("study database", ("status", "good"), lambda node: document(sets("pruner", node))),
    ("study store", LOOK, lambda node: config(sets("model.activation", node))),
    ("config group", ("lr-range", *CONF, "model=evil"), _group("model")),
    ("config group", search("sampler=evil"), _group("sampler")),
    ("experiment YAML", run("experiment=evil"), _experiment("data.augment")),
    ("study database", ("trials", "good"), lambda node: document(sets("pruner", node))),
    ("record", REPRODUCE, lambda node: record(sets("study.sampler", node))),
    ("experiment YAML", run("experiment=evil"), _experiment("scheduler")),
)


def _targets() -> Iterator[Input]:
    forms = cycle(HIDDEN.items())
    for (target, arguments), (thing, words, place) in zip(CALLS, cycle(PLACES), strict=False):
        form, hide = next(forms)
        node = hide({"_target_": target, "_args_": arguments})

        def make(box: Box, node: Any = node, place: Any = place) -> None:
            box.write("canary_module.py", RAN)
            box.write("canary.pkl", pickled())
            place(node)(box)

        writable = OUT if "out/x" in words or "out/again" in words else ()
        yield Input(f"{target!r} {form}", 3, thing, words, make, writable=writable, slow=True)


def _canary(box: Box) -> None:
    box.write("canary_module.py", f"{RAN}\nclass X:\n    pass\n")


def _yaml(text: str) -> tuple[str, Callable[[Box], Any]]:
    name = "experiment" if text.startswith("# @package _global_") else "model"
    return name, lambda box: (_canary(box), box.write(f"conf/{name}/evil.yaml", text))


def _kind(words: list[str]) -> int:
    text = " ".join(words)
    for part, kind in (
        ("env_set", 7),
        ("logging", 9),
        ("allow_targets", 2),
        ("_function_", 2),
        ("searchpath", 2),
        ("study.", 8),
        ("tracking.", 8),
    ):
        if part in text:
            return kind
    return 3


INPUTS = product(
    _targets(),
    (
        Input(
            f"typed: {' '.join(words)[:60]!r}",
            _kind(words),
            "experiment YAML",
            ("-m", *words),
            _canary,
            slow=True,
        )
        for words in OVERRIDES
        if not any("\0" in word or "/proc/self" in word for word in words)
    ),
    (
        Input(
            f"a YAML with {what}",
            12 if "bomb" in what or "deep" in what or "huge" in what else 3,
            "experiment YAML" if _yaml(text)[0] == "experiment" else "config group",
            (*CONF, "-m", f"{_yaml(text)[0]}=evil"),
            _yaml(text)[1],
            environment=(("EVIL", "os.system"),),
            slow=True,
        )
        for what, text in YAMLS.items()
    ),
)
