"""The script that audits the committed records stands alone, and sees what is wrong."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """``audit.py``, imported from its folder as it is when it is run."""
    sys.path.insert(0, str(BENCHMARKS))
    before = set(sys.modules)
    try:
        spec = importlib.util.spec_from_file_location("audit_of_records", BENCHMARKS / "audit.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in set(sys.modules) - before:
            if name.startswith("audit_"):
                del sys.modules[name]
    return module


@pytest.fixture
def record() -> Any:
    return json.loads((ROOT / "experiments" / "lenet_mnist" / "report.json").read_text("utf-8"))


def test_it_imports_nothing_of_ours() -> None:
    for name in ("audit.py", "audit_texts.py"):
        tree = ast.parse((BENCHMARKS / name).read_text("utf-8"))
        imported = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        imported += [
            str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        ]
        tops = {each.partition(".")[0] for each in imported}
        known = {"numpy", "scipy", "audit_texts"} | set(sys.stdlib_module_names)
        assert tops <= known


def test_a_record_and_its_pages_agree(audit: ModuleType, record: Any) -> None:
    found = audit.Audit("lenet_mnist")
    audit.audit_record(record, found)
    audit.audit_pages("lenet_mnist", record, found)
    assert found.disagreements == []
    assert found.compared > 300


def test_a_changed_figure_is_a_disagreement(audit: ModuleType, record: Any) -> None:
    replica = record["confirmation"]["finalists"][0]["replicas"][0]
    replica["value"] -= 0.002
    found = audit.Audit("lenet_mnist")
    audit.audit_record(record, found)
    audit.audit_pages("lenet_mnist", record, found)
    text = "\n".join(found.disagreements)
    expected = ("finalists[0].mean", "finalists[0].student", "report.md: the winner", "index.html")
    for place in expected:
        assert place in text


@pytest.mark.parametrize(
    "told",
    [
        "test accuracy 99.28 % (99.15 to 99.32; n = 5)",  # the kept model's
        "test accuracy 99.24 % (99.18 to 99.28; n = 5)",  # the bootstrap's ends
        "test accuracy 99.24 % (99.15 to 99.32; n = 3)",
        "test accuracy 99.24 % (99.15 to 99.32; n = 5)\\*",  # the default did not win
        "test accuracy 99.24 % (99.15 to 99.32; n = 5), on validation 99.91 %",
    ],
)
def test_a_document_that_misquotes_a_study_is_seen(
    told: str, audit: ModuleType, record: Any
) -> None:
    found = audit.Audit("documents")
    audit_cell = audit.audit_pages.__globals__["audit_cell"]
    audit_cell("README", "test accuracy 99.24 % (99.15 to 99.32; n = 5)", record, found)
    assert found.disagreements == []
    audit_cell("README", told, record, found)
    assert found.disagreements
