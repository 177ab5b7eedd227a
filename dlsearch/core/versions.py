"""The versions of libraries whose private names our code was compared with.

Some of what is fast here works on names that Optuna, Lightning or Hydra promise to nobody. Each
module that imports or uses such a name is itself imported only after :func:`is_compared` has said
yes; with any other version the library's own code does the same, by its public interface.
"""

from __future__ import annotations

import importlib

#: By package: the beginnings of the versions.
COMPARED = {
    "hydra": ("1.3.",),
    "optuna": ("5.0.",),
    "pytorch_lightning": ("2.6.",),
}


def is_compared(package: str) -> bool:
    """Whether the version of `package` that is installed is one whose private names are known.

    Imports it.
    """
    version: str = importlib.import_module(package).__version__
    return version.startswith(COMPARED[package])
