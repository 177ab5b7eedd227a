"""Optuna's parameter importances, imported without scikit-learn.

Only its fANOVA, which the report does not use, trains a forest; importing scikit-learn for that costs two seconds.
Where scikit-learn is there already, nothing is different.
"""

from __future__ import annotations

import sys


def _import() -> None:
    absent = "sklearn" not in sys.modules and "optuna.importance" not in sys.modules
    if absent:
        sys.modules["sklearn"] = None  # type: ignore[assignment]  # makes an import fail, which Optuna expects
    try:
        pass
    finally:
        if absent:
            del sys.modules["sklearn"]


_import()
