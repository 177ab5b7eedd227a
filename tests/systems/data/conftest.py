"""Data modules as their YAMLs describe them, on a cache of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from dlsearch.config.build import build

if TYPE_CHECKING:
    from collections.abc import Callable

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests here: decoding once is what it is for."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_data(cache: Path) -> Callable[..., Any]:
    """Build a data module from its YAML."""

    def make(
        name: str,
        *,
        seed: int = 0,
        data_root: Path | None = None,
        folder: Path | None = None,
        **changes: Any,
    ) -> Any:
        cfg = OmegaConf.create(
            {"seed": seed, "paths": {"data": str(data_root), "cache": str(folder or cache)}}
        )
        cfg["data"] = OmegaConf.merge(OmegaConf.load(CONF / "data" / f"{name}.yaml"), changes)
        return build(cfg["data"], "data")

    return make
