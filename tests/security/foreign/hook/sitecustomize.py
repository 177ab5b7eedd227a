"""On the path of all Python processes that a command of the corpus starts: installs the audit hook in them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

if "FOREIGN_RULES" in os.environ:
    _spec = importlib.util.spec_from_file_location(
        "foreign_audit", Path(__file__).resolve().parents[1] / "audit.py"
    )
    _audit = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_audit)
    _audit.install_here()
