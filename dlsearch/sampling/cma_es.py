"""Optuna's CMA-ES, kept from unpickling what a study's database holds.

Optuna pickles the optimizer of CMA-ES into the trials' system attributes. The database may be
anybody's, so :mod:`dlsearch.sampling.unpickling` reads these pickles. Optuna has no seam for that:
its module finds a stand-in under the name ``pickle``.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping
from typing import Any

from dlsearch.core.errors import ConfigError


class SafePickle:
    """What Optuna's CMA-ES takes for the module :mod:`pickle`."""

    dumps = staticmethod(pickle.dumps)

    @staticmethod
    def loads(content: bytes) -> Any:
        """The optimizer that a pickle holds; nothing that the pickle names is imported."""
        from dlsearch.sampling.unpickling import load_optimizer

        return load_optimizer(content)


def forbid_unpickling(node: Mapping[str, Any]) -> None:
    """Have no CMA-ES of Optuna's in this process unpickle, also one within another sampler.

    Args:
        node: The config of the sampler that will be made.

    Raises:
        ConfigError: It asks for CMA-ES, and this version of Optuna keeps its state in an unknown
            way.
    """
    from optuna.samplers import CmaEsSampler

    module: Any = sys.modules[CmaEsSampler.__module__]
    if getattr(module, "pickle", None) is pickle:
        module.pickle = SafePickle
    is_safe = getattr(module, "pickle", None) is SafePickle
    if not is_safe and CmaEsSampler.__name__ in json.dumps(node):
        raise ConfigError(
            "sampler",
            "this version of Optuna keeps the state of CMA-ES in an unknown way",
            "sampler=tpe",
        )
