"""Versions whose private names are known, and what happens with others."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import hydra
import pytest

from dlsearch.config.guard import guarded_composition
from dlsearch.core.errors import ConfigError
from dlsearch.core.versions import COMPARED, is_compared

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", COMPARED)
def test_what_is_locked_has_been_compared(package: str) -> None:
    assert is_compared(package)


@pytest.mark.parametrize(
    ("package", "version"), [("optuna", "5.1.0"), ("hydra", "1.30.1"), ("pytorch_lightning", "3.0")]
)
def test_another_version_has_not(
    package: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(package), "__version__", version)
    assert not is_compared(package)


def test_a_version_of_hydra_that_cannot_be_guarded_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hydra, "__version__", "1.4.0")
    with pytest.raises(ConfigError, match="hydra") as refused, guarded_composition():
        pass
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["hydra-core", "optuna", "pytorch-lightning", "sqlalchemy", "mlflow", "omegaconf"]
)
def test_a_library_on_whose_inside_we_rely_has_an_upper_bound(name: str) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = next(each for each in wanted if each.startswith(f"{name}>"))
    assert ",<" in bounds
