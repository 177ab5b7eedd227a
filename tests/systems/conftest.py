"""What a config leaves to its surroundings: the data that a model is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from dlsearch.config.build import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def make_model() -> Callable[..., nn.Module]:
    """Build a model from its YAML, for data of a shape and number of classes."""

    def make(name: str, shape: list[int], num_classes: int = 10, **changes: Any) -> nn.Module:
        cfg = OmegaConf.create({"data": {"shape": shape, "num_classes": num_classes}})
        cfg["model"] = OmegaConf.merge(OmegaConf.load(CONF / "model" / f"{name}.yaml"), changes)
        return build(cfg["model"], "model")

    return make
