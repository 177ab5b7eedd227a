"""All inputs of the corpus."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import ModuleType

from tests.security.foreign.ends import PASSED_OVER, WAITING
from tests.security.foreign.inputs import configs, git, hostile, models, shipping, stores
from tests.security.foreign.inputs.base import Input

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def _ending(given: Input) -> Input:
    if given.id in PASSED_OVER:
        return replace(given, code=0)
    return replace(given, code=1) if given.id in WAITING else given


def _of(*modules: ModuleType) -> list[Input]:
    """The inputs of some modules that can be made here."""
    found = [_ending(each) for module in modules for each in module.INPUTS]
    return found if HAS_ONNX else [each for each in found if each.name not in models.NEEDS_ONNX]


INPUTS = _of(configs, stores, shipping, models, git, hostile)


def _quick() -> list[Input]:
    """Each rule on each thing once, and each verb."""
    quick = [each for each in INPUTS if not each.slow]
    by_rule: dict[tuple[int, str], Input] = {}
    by_verb: dict[str, Input] = {}
    for each in quick:
        by_rule.setdefault((each.kind, each.thing), each)
        by_verb.setdefault(each.verb, each)
    verbs_run = {each.verb for each in by_rule.values()}
    further = [each for verb, each in by_verb.items() if verb not in verbs_run]
    return [*by_rule.values(), *further]


QUICK = _quick()
CONFIGS = [each for each in _of(configs, git, hostile) if each not in QUICK]
STORES = [each for each in _of(stores, shipping, models) if each not in QUICK]
