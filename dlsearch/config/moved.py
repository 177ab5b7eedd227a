"""Targets that have moved, so that studies and configs with earlier paths stay usable.

A recorded document is never rewritten, because its digests are of what it says. Its names are
translated where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The module that a target was in, and where it is now.
MOVED: Mapping[str, str] = {
    "dlsearch.data.augment": "dlsearch.systems.vision.data.augment",
    "dlsearch.data.base": "dlsearch.systems.shared.data_module",
    "dlsearch.data.cache": "dlsearch.systems.shared.cache",
    "dlsearch.data.distorted": "dlsearch.systems.vision.data.distorted",
    "dlsearch.data.folder": "dlsearch.systems.vision.data.folder",
    "dlsearch.data.image": "dlsearch.systems.vision.data.image",
    "dlsearch.data.listing": "dlsearch.systems.vision.data.listing",
    "dlsearch.data.loader": "dlsearch.systems.shared.loader",
    "dlsearch.data.split": "dlsearch.systems.shared.split",
    "dlsearch.data.streaming": "dlsearch.systems.vision.data.streaming",
    "dlsearch.data.tabular": "dlsearch.systems.basic.data.tabular",
    "dlsearch.data.truth": "dlsearch.systems.basic.data.truth",
    "dlsearch.models.alexnet": "dlsearch.systems.vision.models.alexnet",
    "dlsearch.models.attention": "dlsearch.systems.vision.models.attention",
    "dlsearch.models.convnet": "dlsearch.systems.vision.models.convnet",
    "dlsearch.models.gated": "dlsearch.systems.vision.models.gated",
    "dlsearch.models.googlenet": "dlsearch.systems.vision.models.googlenet",
    "dlsearch.models.kernels": "dlsearch.systems.vision.models.kernels",
    "dlsearch.models.layers": "dlsearch.systems.shared.layers",
    "dlsearch.models.lenet": "dlsearch.systems.vision.models.lenet",
    "dlsearch.models.linear": "dlsearch.systems.basic.models.linear",
    "dlsearch.models.maxout": "dlsearch.systems.basic.models.maxout",
    "dlsearch.models.mlp": "dlsearch.systems.basic.models.mlp",
    "dlsearch.models.perceptron": "dlsearch.systems.basic.models.perceptron",
    "dlsearch.models.polynomial": "dlsearch.systems.basic.models.polynomial",
    "dlsearch.models.resnet": "dlsearch.systems.vision.models.resnet",
    "dlsearch.models.senet": "dlsearch.systems.vision.models.senet",
    "dlsearch.models.stn": "dlsearch.systems.vision.models.stn",
    "dlsearch.models.vgg": "dlsearch.systems.vision.models.vgg",
    "dlsearch.models.zfnet": "dlsearch.systems.vision.models.zfnet",
    "dlsearch.optim.kfac": "dlsearch.systems.shared.kfac",
    "dlsearch.search.pruners": "dlsearch.sampling.pruners",
    "dlsearch.search.samplers": "dlsearch.sampling.factory",
    "dlsearch.tasks.auxiliary": "dlsearch.systems.vision.tasks.auxiliary",
    "dlsearch.tasks.losses": "dlsearch.systems.shared.losses",
    "dlsearch.tasks.perceptron": "dlsearch.systems.basic.tasks.perceptron",
    "dlsearch.tasks.schedules": "dlsearch.systems.shared.schedules",
    "dlsearch.tasks.supervised": "dlsearch.systems.shared.supervised",
    "dlsearch.tasks.views": "dlsearch.systems.shared.views",
    "dlsearch.train.callbacks": "dlsearch.training.callbacks",
    "dlsearch.train.compile": "dlsearch.training.compile",
    "dlsearch.train.gradients": "dlsearch.inspection.gradients",
}
_FORMER: Mapping[str, str] = {now: then for then, now in MOVED.items()}


def current_name(target: str) -> str:
    """The present path of a target."""
    return _translate(target, MOVED)


def with_current_names(node: Any) -> Any:
    """A copy of plain data in which every ``_target_`` has its present path."""
    return _copy(node, MOVED)


def with_former_names(node: Any) -> Any:
    """A copy of plain data in which every ``_target_`` has the path from before the move."""
    return _copy(node, _FORMER)


def _translate(target: str, table: Mapping[str, str]) -> str:
    module, dot, name = target.rpartition(".")
    return f"{table[module]}{dot}{name}" if module in table else target


def _copy(node: Any, table: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {
            key: _translate(value, table)
            if key == "_target_" and isinstance(value, str)
            else _copy(value, table)
            for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        return [_copy(value, table) for value in node]
    return node
