"""Every private name of another package that dlsearch uses is known here, and why it may be used.

Either its module is imported only after :func:`dlsearch.core.versions.is_compared` has said that
the library's version is known, or the line before asks, or does without where the name is gone.
``test_other_versions.py`` in ``sampling`` and in ``training`` takes the names away and runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Modules that only a compared version imports, and the places that ask.
GUARDED = {
    "sampling/fast_tpe/sampler.py": "sampling/factory.py: build_sampler",
    "sampling/fast_tpe/parzen.py": "sampling/fast_tpe/sampler.py, which is guarded",
    "sampling/fast_tpe/kernels.py": "sampling/fast_tpe/parzen.py, which is guarded",
    "sampling/halving.py": "sampling/pruners.py: SuccessiveHalving and Hyperband",
    "storage/optuna_cache.py": "storage: trial_index.py, schema.py, database.py; known_space.py",
    "training/steps.py": "training/lean_loop.py: make_lean",
}
#: By file: the names, and what happens where they are not there.
EXCUSED = {
    "config/compose.py": ({"_get_root"}, "an error has no hint"),
    "config/guard.py": (
        {
            "hydra._internal.config_loader_impl.ConfigLoaderImpl",
            "hydra._internal.config_repository.ConfigRepository",
            "hydra._internal.core_plugins.file_config_source.FileConfigSource",
        },
        "an unknown version is refused",
    ),
    "systems/vision/models/googlenet.py": (
        {"_forward"}, "torchvision's own class, whose parts have no public name: the net fails",
    ),
    "console/output.py": ({"_typeshed.ReadableBuffer"}, "it is for type checkers alone"),
    "console/streams.py": ({"_typeshed.ReadableBuffer"}, "it is for type checkers alone"),
    "inference/operators.py": ({"_C", "_dispatch_get_all_op_names"}, "no exported program is run"),
    "training/compile.py": ({"_compiled_call_impl"}, "it is looked for first"),
    "training/micro_batches.py": ({"_current_fx_name"}, "nothing is logged of the other parts"),
    "inspection/receptive_field.py": (
        {"torch.utils._python_dispatch.TorchDispatchMode", "torch.utils._pytree.tree_leaves"},
        "inspection/describe.py shows no receptive fields",
    ),
}  # fmt: skip
#: The standard library documents it.
DOCUMENTED = {"_exit", "_replace"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def has_private_part(path: str) -> bool:
    return any(is_private(part) for part in path.split("."))


def names_defined_in(tree: ast.AST) -> set[str]:
    """Of functions, classes, variables and attributes of ``self``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and is_own(node.value)
        ):
            found.add(node.attr)
    return found


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def is_super(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    )


class Sources:
    """The modules of a package, and what they define."""

    def __init__(self, folder: Path) -> None:
        self.trees = {
            str(path.relative_to(folder)): ast.parse(path.read_text())
            for path in sorted(folder.rglob("*.py"))
        }

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        nodes = (node for tree in self.trees.values() for node in ast.walk(tree))
        return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}

    @cached_property
    def defined(self) -> set[str]:
        return set().union(*(names_defined_in(tree) for tree in self.trees.values()))

    def defined_by(self, owner: ast.ClassDef, seen: tuple[str, ...] = ()) -> set[str]:
        """By a class or those of its bases that are the package's own."""
        found = names_defined_in(owner)
        for base in owner.bases:
            name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
            if name in self.classes and name not in (owner.name, *seen):
                found |= self.defined_by(self.classes[name], (*seen, name))
        return found

    def foreign(self, module: str) -> set[str]:
        """Private names of others that a module uses."""
        return set(self._foreign(self.trees[module], None)) - DOCUMENTED

    def _foreign(self, node: ast.AST, owner: ast.ClassDef | None) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield from filter(has_private_part, imported(child))
            elif isinstance(child, ast.Attribute) and is_private(child.attr):
                inherited = (
                    owner is not None
                    and is_own(child.value)
                    and child.attr not in self.defined_by(owner)
                )
                if inherited or is_super(child.value) or child.attr not in self.defined:
                    yield child.attr
            elif (
                isinstance(child, ast.Constant)
                and names_an_attribute(child, node)
                and child.value not in self.defined
            ):
                yield child.value
            yield from self._foreign(child, child if isinstance(child, ast.ClassDef) else owner)


def names_an_attribute(constant: ast.Constant, parent: ast.AST) -> bool:
    """``getattr(thing, "_name")`` and the like, ``vars(thing)["_name"]``, ``"_name" in vars(thing)``."""
    if not isinstance(constant.value, str) or not is_private(constant.value):
        return False
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name):
        return parent.func.id in ("getattr", "hasattr", "setattr", "delattr")
    if isinstance(parent, ast.Subscript | ast.Compare):
        things = [parent.value] if isinstance(parent, ast.Subscript) else parent.comparators
        return any(
            isinstance(each, ast.Call) and getattr(each.func, "id", "") == "vars" for each in things
        )
    return False


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.partition(".")[0] != "dlsearch"]
    if node.module is None or node.module.partition(".")[0] == "dlsearch":
        return []
    return [f"{node.module}.{alias.name}" for alias in node.names]


SOURCES = Sources(ROOT / "dlsearch")


@pytest.mark.parametrize("module", SOURCES.trees)
def test_a_private_name_of_another_package_is_known(module: str) -> None:
    if module not in GUARDED:
        assert SOURCES.foreign(module) == EXCUSED.get(module, (set(), ""))[0]


@pytest.mark.parametrize("module", GUARDED)
def test_a_guarded_module_is_imported_where_the_version_has_been_asked_for(module: str) -> None:
    assert SOURCES.foreign(module), "nothing is to be guarded any more"
    dotted = f"dlsearch.{module.removesuffix('.py').replace('/', '.')}"
    for other, tree in SOURCES.trees.items():
        if other in GUARDED or not imports(tree, dotted):
            continue
        assert not any(imports_itself(node, dotted) for node in tree.body), (
            f"{other} imports it before it asks"
        )
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and imports(function, dotted):
                asked = [
                    n
                    for n in ast.walk(function)
                    if isinstance(n, ast.Name) and n.id == "is_compared"
                ]
                assert asked, f"{other}: {function.name}"


def imports(tree: ast.AST, dotted: str) -> bool:
    return any(imports_itself(node, dotted) for node in ast.walk(tree))


def imports_itself(node: ast.AST, dotted: str) -> bool:
    package, _, name = dotted.rpartition(".")
    if isinstance(node, ast.ImportFrom):
        return node.module == dotted or (
            node.module == package and name in [alias.name for alias in node.names]
        )
    return isinstance(node, ast.Import) and dotted in [alias.name for alias in node.names]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (
            "from optuna.storages._cached_storage import _CachedStorage",
            {"optuna.storages._cached_storage._CachedStorage"},
        ),
        ("import pytorch_lightning._graveyard", {"pytorch_lightning._graveyard"}),
        ("def f(study): return study._study_id", {"_study_id"}),
        ("def f(study): return getattr(study, '_study_id')", {"_study_id"}),
        ("class A(TPESampler):\n  def f(self): return self._rng", {"_rng"}),
        ("class A(TPESampler):\n  def _sample(self): return super()._sample()", {"_sample"}),
        (
            "class A:\n  def __init__(self): self._x = 1\n  def f(self, other): return self._x + other._x",
            set(),
        ),
        ("class A:\n  def _f(self): ...\nclass B(A):\n  def f(self): return self._f()", set()),
        ("import os\nos._exit(0)", set()),
    ],
)
def test_what_is_found(code: str, found: set[str], tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(code)
    assert Sources(tmp_path).foreign("module.py") == found
