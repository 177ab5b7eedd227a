"""Random trees of targets: whatever they are made of, only what the rule admits is called.

The trees are drawn from fixed seeds. A target is good, bad, or neither: what the test does not know
is not drawn. All that could act is watched by Python's own means, an audit hook and a profile
function, so that nothing depends on how :func:`dlsearch.config.build.build` does its work.
"""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from omegaconf import OmegaConf

from dlsearch.config.build import build
from dlsearch.core.errors import ConfigError

TOKEN = "F0RE1GN"
CODE = f"__import__('sys').audit('{TOKEN}')"
SEEDS = range(300)

#: What may be built, and arguments that it takes.
GOOD: list[tuple[str, dict[str, Any]]] = [
    ("torch.nn.Linear", {"in_features": 2, "out_features": 3}),
    ("torch.nn.ReLU", {}),
    ("torch.nn.Dropout", {"p": 0.25}),
    ("torch.nn.BatchNorm1d", {"num_features": 4}),
    ("torch.nn.modules.linear.Linear", {"in_features": 1, "out_features": 1}),
    ("optuna.samplers.RandomSampler", {"seed": 1}),
    ("optuna.pruners.MedianPruner", {"n_startup_trials": 1}),
    (
        "dlsearch.systems.basic.models.mlp.MLP",
        {"in_shape": [1, 2, 2], "num_classes": 2, "width": 2, "depth": 1},
    ),
    ("dlsearch.training.callbacks.EarlyStopping", {"monitor": "val/loss", "patience": 1}),
    ("torchvision.transforms.Normalize", {"mean": [0.5], "std": [0.5]}),
]
PARTIAL: list[tuple[str, dict[str, Any]]] = [
    ("torch.optim.SGD", {"lr": 0.1}),
    ("torch.optim.AdamW", {"lr": 0.1}),
    ("torch.optim.lr_scheduler.StepLR", {"step_size": 1}),
]
#: What may not: functions, private parts, other packages, what a module of ours has imported,
#: classes of no known base.
BAD: list[tuple[str, list[Any]]] = [
    ("os.system", ["true"]),
    ("posix.system", ["true"]),
    ("os.mkdir", ["canary"]),
    ("subprocess.Popen", [["true"]]),
    ("subprocess.run", [["true"]]),
    ("builtins.eval", [CODE]),
    ("builtins.exec", [CODE]),
    ("builtins.open", ["canary", "w"]),
    ("builtins.getattr", ["x", "y"]),
    ("io.open", ["canary", "w"]),
    ("pathlib.Path", ["canary"]),
    ("pathlib.Path.touch", ["canary"]),
    ("functools.partial", ["x"]),
    ("importlib.import_module", ["foreign_module"]),
    ("runpy.run_path", ["foreign_module.py"]),
    ("pickle.loads", ["x"]),
    ("sympy.sympify", [CODE]),
    ("sympy.Symbol", ["x"]),
    ("joblib.load", ["canary.pkl"]),
    ("numpy.load", ["canary.pkl"]),
    ("yaml.unsafe_load", ["x"]),
    ("torch.load", ["canary.pkl"]),
    ("torch.save", [1, "canary"]),
    ("torch.hub.load", [".", "x", "local"]),
    ("torch.jit.load", ["canary.pkl"]),
    ("torch.utils.cpp_extension.load", ["x", ["canary.cpp"]]),
    ("torch.nn.modules.module.torch.load", ["canary.pkl"]),
    ("torch.nn.modules.module.functools.partial", ["x"]),
    ("torch.nn.parallel.distributed.os.system", ["true"]),
    ("torch.optim.optimizer.functools.partial", ["x"]),
    ("torch.nn.Module.__class__", ["x"]),
    ("torch.nn.Linear.__init__.__globals__", []),
    ("torch.nn.Module.load_state_dict", [{}]),
    ("torch.nn.attention._fa4.register_flash_attention_fa4", ["foreign_module"]),
    ("torch.optim._functional.sgd", ["x"]),
    ("torchvision.models._api.WeightsEnum.get_state_dict", ["file:canary.pkl"]),
    ("torchvision.models._api.importlib.import_module", ["foreign_module"]),
    ("torchvision.transforms.transforms.numbers.Number", []),
    ("torchmetrics.metric.functools.partial", ["x"]),
    ("optuna.samplers._tpe.sampler.TPESampler", []),
    ("optuna.create_study", []),
    ("hydra.utils.instantiate", [{"_target_": "os.system", "_args_": ["true"]}]),
    ("omegaconf.OmegaConf.save", [{}, "canary"]),
    ("dlsearch.config.build.build", [{"_target_": "os.system", "_args_": ["true"]}, "x"]),
    ("dlsearch.cli.main", [[]]),
    ("dlsearch.systems.shared.cache.os.system", ["true"]),
    ("foreign_module.Net", [1, 2]),
    ("foreign_module.function", []),
    ("ｏs.system", ["true"]),
    ("os․system", ["true"]),  # U+2024
    ("torch.nn․Linear", [1, 2]),
    ("tοrch.nn.Linear", [1, 2]),  # a Greek omicron
    ("torch.nn.Linear ", [1, 2]),
    ("torch.nn.Linear\n", [1, 2]),
    ("torch.nn..Linear", [1, 2]),
    (".torch.nn.Linear", [1, 2]),
    ("torch.nn.Linear;os.system", ["true"]),
    ("torch.nnx.Linear", [1, 2]),
    ("torch", []),
    ("", []),
]
NO_TARGETS: tuple[Any, ...] = (
    1,
    1.5,
    True,
    ["os.system"],
    {"_target_": "os.system"},
    ["torch", "nn", "Linear"],
    {"a": 1},
)
ESCAPED = (
    r"\${oc.create:{_target_: os.mkdir, path: canary}}",
    r"\${oc.decode:os.getcwd}",
    r"a \${oc.env:HOME} b",
    r"\${x}",
    r'\${oc.create:{_target_: sympy.sympify, a: "' + CODE + '"}}',
)


class Tree:
    """Draws one tree.

    Args:
        seed: Of the draw.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.others: dict[str, Any] = {}
        self.bad: list[str] = []

    def draw(self, *, with_bad: bool) -> Any:
        """A tree, with something bad at one place of it or nowhere."""
        tree = self._good(3)
        return self._spoil(tree) if with_bad else tree

    # -- good --------------------------------------------------------------------------------------------------------
    def _good(self, depth: int) -> dict[str, Any]:
        if depth > 0 and self.random.random() < 0.6:
            children = [
                self._maybe_elsewhere(self._module(depth - 1))
                for _ in range(self.random.randint(1, 3))
            ]
            return self._decorated({"_target_": "torch.nn.Sequential", "_args_": children})
        if self.random.random() < 0.2:
            name, arguments = self.random.choice(PARTIAL)
            return {"_target_": name, "_partial_": True, **self._arguments(arguments)}
        name, arguments = self.random.choice(GOOD)
        return self._decorated({"_target_": name, **self._arguments(arguments)})

    def _module(self, depth: int) -> dict[str, Any]:
        if depth > 0 and self.random.random() < 0.4:
            return {"_target_": "torch.nn.Sequential", "_args_": [self._module(depth - 1)]}
        name, arguments = self.random.choice(GOOD[:5])
        return self._decorated({"_target_": name, **self._arguments(arguments)})

    def _arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {name: self._maybe_elsewhere(value) for name, value in arguments.items()}

    def _maybe_elsewhere(self, value: Any) -> Any:
        """The value, or an interpolation that leads to it, by one step or by two."""
        if self.random.random() < 0.7:
            return value
        name = f"v{len(self.others)}"
        self.others[name] = value
        if self.random.random() < 0.3:
            self.others[f"{name}b"] = f"${{{name}}}"
            name = f"{name}b"
        return f"${{{name}}}"

    def _decorated(self, node: dict[str, Any]) -> dict[str, Any]:
        if self.random.random() < 0.2:
            node["_convert_"] = self.random.choice(["all", "none", "partial"])
        return node

    # -- bad ---------------------------------------------------------------------------------------------------------
    def _spoil(self, tree: dict[str, Any]) -> dict[str, Any]:
        bad = self._bad()
        self.bad.append(repr(bad))
        at: Any = tree
        while isinstance(at.get("_args_"), list) and self.random.random() < 0.7:
            below = [each for each in at["_args_"] if isinstance(each, dict)]
            if not below:
                break
            at = self.random.choice(below)
        way = self.random.randrange(6)
        if way == 0 or "_args_" not in at:
            name = self.random.choice(
                ["in_features", "p", "x", "a.b", "_args_", "on_fit_start", "net"]
            )
            at[name] = [bad] if name == "_args_" else self._wrapped(bad)
        elif way == 1:
            at["_args_"].append(bad)
        elif way == 2:
            at["_args_"][self.random.randrange(len(at["_args_"]))] = self._wrapped(bad)
        elif way == 3:
            at["_args_"].append(self._maybe_elsewhere(bad))
        elif way == 4 and isinstance(bad, dict):
            return bad
        else:
            at["_args_"].insert(0, [[{"a": (bad)}]])
        return tree

    def _wrapped(self, bad: Any) -> Any:
        return self.random.choice(
            [
                bad,
                [bad],
                [[bad]],
                {"a": bad},
                {"a": [{"b.c": bad}]},
                {0: bad},
                self._maybe_elsewhere(bad),
            ]
        )

    def _bad(self) -> Any:
        kind = self.random.random()
        if kind < 0.2:
            return self.random.choice(ESCAPED)
        if kind < 0.3:
            return {"_target_": self.random.choice(NO_TARGETS), "_args_": []}
        target, arguments = self.random.choice(BAD)
        node: dict[str, Any] = {"_target_": self._spelled(target), "_args_": arguments}
        for name, values in (
            ("_partial_", [True, "true"]),
            ("_recursive_", [False, True, "false"]),
            ("_convert_", ["none", "object"]),
        ):
            if self.random.random() < 0.25:
                node[name] = self.random.choice(values)
        if self.random.random() < 0.1:
            return {"_target_": "functools.partial", "_args_": [node]}
        return node

    def _spelled(self, target: str) -> str:
        """The target as it is, or as an interpolation gives it, whole or in parts."""
        way = self.random.random()
        if way < 0.7 or not target.isascii() or target.strip(". \n;") != target or not target:
            return target
        name = f"v{len(self.others)}"
        first, _, rest = target.partition(".")
        if way < 0.8:
            self.others[name] = target
            return f"${{{name}}}"
        if way < 0.9 and rest:
            self.others[name] = first
            return f"${{{name}}}.{rest}"
        return f"${{oc.decode:'{target}'}}"


@pytest.fixture
def _foreign_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "foreign_module.py").write_text(
        f"{CODE}\nclass Net:\n    pass\n\ndef function():\n    pass\n"
    )


_acts: list[str] = []
_watching = False
_SHARP = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "socket.connect",
    "urllib.Request",
    "ctypes.dlopen",
    "os.putenv",
    TOKEN,
)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _SHARP:
        _acts.append(f"{event} {arguments!r}"[:200])
    elif event == "open" and "foreign_module" in str(
        arguments[0]
    ):  # `importlib.import_module` is no event of its own
        _acts.append(f"import {arguments[0]}")
    elif (
        event == "open"
        and isinstance(arguments[2], int)
        and arguments[2] & 0o1103
        and "__pycache__" not in str(arguments[0])
    ):
        _acts.append(f"write {arguments[0]}")


sys.addaudithook(_hook)


def _objects(targets: list[tuple[str, list[Any]]]) -> dict[int, str]:
    """The functions and codes behind bad targets, by identity: of a class its constructor."""
    found: dict[int, str] = {}
    for target, _ in targets:
        parts = target.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            try:
                at: Any = importlib.import_module(".".join(parts[:cut]))
                for name in parts[cut:]:
                    at = getattr(at, name)
            except Exception:  # what is imported by such a name is no business of this test
                continue
            for each in (
                at,
                getattr(at, "__init__", None),
                getattr(at, "__new__", None),
                getattr(at, "__func__", None),
            ):
                if isinstance(each, types.BuiltinFunctionType) and each is not object.__new__:
                    found.setdefault(id(each), target)
                elif code := getattr(each, "__code__", None):
                    found.setdefault(id(code), target)
            break
    return found


@pytest.fixture(scope="module")
def spied() -> dict[int, str]:
    """What may not be called; without what building good trees calls all the same, the import of a module, say."""
    bad = _objects(
        [each for each in BAD if not each[0].startswith(("foreign_module", "torch.nn․", "tοrch"))]
    )
    seen: set[int] = set()
    for seed in range(60):
        tree = Tree(seed)
        node = tree.draw(with_bad=False)
        with _spying(seen.add, bad):
            _build(node, tree.others)
    return {key: name for key, name in bad.items() if key not in seen}


class _spying:
    """While it lasts, each call of one of `known` is told, and the audit hook watches."""

    def __init__(self, tell: Callable[[int], Any], known: dict[int, str]) -> None:
        self.tell, self.known = tell, known

    def __enter__(self) -> None:
        global _watching
        _acts.clear()
        _watching = True
        sys.setprofile(self._look)

    def _look(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call" and id(frame.f_code) in self.known:
            self.tell(id(frame.f_code))
        elif event == "c_call" and id(argument) in self.known:
            self.tell(id(argument))

    def __exit__(self, *_: object) -> None:
        global _watching
        sys.setprofile(None)
        _watching = False


def _build(node: Any, others: dict[str, Any]) -> tuple[Any, Exception | None]:
    """What `build` makes of the tree within a config, or its complaint; whatever else it raises is raised."""
    try:
        cfg = OmegaConf.create({**others, "x": node})
    except Exception:  # OmegaConf itself refuses the form
        return None, ConfigError("x", "no config")
    try:
        return build(cfg.x, "x"), None
    except ConfigError as error:
        return None, error


def _classes(made: Any) -> Iterator[type]:
    if isinstance(made, torch.nn.Module):
        yield from (type(each) for each in made.modules())
    elif isinstance(made, list | tuple):
        for each in made:
            yield from _classes(each)
    elif made is not None:
        yield type(made)


@pytest.mark.usefixtures("_foreign_module")
def test_whatever_holds_something_bad_is_refused_and_nothing_of_it_is_called(
    spied: dict[int, str],
) -> None:
    called: list[int] = []
    for seed in SEEDS:
        tree = Tree(seed)
        node = tree.draw(with_bad=True)
        with _spying(called.append, spied):
            made, error = _build(node, tree.others)
        told = f"seed {seed}: {node!r} with {tree.others!r}"
        assert not _acts, f"{told}: {_acts}"
        assert not called, f"{told}: {[spied[each] for each in called]}"
        assert error is not None, f"{told}: {made!r} was made although it holds {tree.bad}"
        assert str(error).startswith("x"), f"{told}: {error}"
        assert "\n" not in str(error), told


@pytest.mark.usefixtures("_foreign_module")
def test_what_is_good_is_built_and_calls_nothing_else(spied: dict[int, str]) -> None:
    called: list[int] = []
    built = 0
    for seed in SEEDS:
        tree = Tree(seed)
        node = tree.draw(with_bad=False)
        with _spying(called.append, spied):
            made, error = _build(node, tree.others)
        told = f"seed {seed}: {node!r} with {tree.others!r}"
        assert not _acts, f"{told}: {_acts}"
        assert not called, told
        assert error is None, f"{told}: {error}"
        if node.get("_partial_"):
            assert callable(made), told
        else:
            known = (torch.nn.Module, optuna.samplers.BaseSampler, optuna.pruners.BasePruner)
            assert all(
                issubclass(each, known) or each.__module__.startswith("dlsearch.")
                for each in _classes(made)
            ), told
            built += 1
    assert built > len(SEEDS) // 2


def test_the_trees_are_of_all_forms() -> None:
    texts = []
    for seed in SEEDS:
        tree = Tree(seed)
        texts.append(repr((tree.draw(with_bad=True), tree.others)))
    assert len(set(texts)) > 0.95 * len(texts)
    for part in (
        "_partial_",
        "_recursive_",
        "_convert_",
        "'${",
        r"\\${",
        "oc.decode",
        "b.c",
        "ｏs",
        "foreign_module",
        "__globals__",
    ):
        assert sum(part in text for text in texts) >= 2, part


@pytest.mark.usefixtures("_foreign_module")
def test_the_spies_see_what_is_called(spied: dict[int, str]) -> None:
    called: list[int] = []
    with _spying(called.append, spied):
        os.system("true")
        subprocess.run(["true"], check=True)
        eval(CODE)
        importlib.import_module("foreign_module")
        Path("canary").open("w").close()
    sys.modules.pop("foreign_module", None)
    assert {"os.system", "subprocess.run"} <= {spied[each] for each in called}
    assert any(TOKEN in each for each in _acts)
    assert any(each.startswith("import") for each in _acts)
    assert any(each.startswith("write") for each in _acts)
    assert any(each.startswith("os.system") for each in _acts)
