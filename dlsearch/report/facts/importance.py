"""Optuna's hyperparameter importances, imported without scikit-learn.

Optuna's package of importances imports scikit-learn for its evaluators that train forests, and
scikit-learn imports pandas: two seconds of a process's time. A report uses PED-ANOVA, which trains
nothing. So scikit-learn is hidden from this one import, which Optuna allows. The modules that were
imported without it are kept here alone: other code that imports ``optuna.importance`` gets all of
it.
"""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

import optuna

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

__all__ = ["PedAnovaImportanceEvaluator", "get_param_importances"]

_PACKAGE = "optuna.importance"
_HIDDEN = "sklearn"
# Loaded where scikit-learn has been imported before: there is nothing to save then.
_LOADED_WITH_HIDDEN = "sklearn.ensemble"


class _HidingFinder(MetaPathFinder):
    """Finds nothing, and refuses one package to imports of the thread that made it."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._thread = threading.get_ident()

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> None:
        """Refuse the package and its modules."""
        is_hidden = fullname.partition(".")[0] == self._package
        if is_hidden and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextmanager
def _hide_package(package: str) -> Iterator[None]:
    """Hide a package from imports of this thread; other threads may import it meanwhile."""
    finder = _HidingFinder(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _import_importances() -> Any:
    """Optuna's package of importances, whole only where scikit-learn has been imported before."""
    if _PACKAGE in sys.modules or _LOADED_WITH_HIDDEN in sys.modules:
        return importlib.import_module(_PACKAGE)

    lazy = vars(optuna).get("importance")
    try:
        with _hide_package(_HIDDEN):
            package = importlib.import_module(_PACKAGE)
    except ImportError:  # a version that cannot do without
        return importlib.import_module(_PACKAGE)

    _forget_package(_PACKAGE)
    optuna.importance = lazy  # type: ignore[assignment]
    return package


def _forget_package(package: str) -> None:
    """Have the next import of the package load it again."""
    loaded = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    for name in loaded:
        del sys.modules[name]


_importances = _import_importances()
PedAnovaImportanceEvaluator = _importances.PedAnovaImportanceEvaluator
get_param_importances = _importances.get_param_importances
