"""On the path of Python processes whose pickles are watched: see ``test_pickles.py``.

It writes a line for each object that a pickle names, with the functions that were running then.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

runpy.run_path(str(Path(__file__).resolve().parents[2] / "strict/sitecustomize.py"))

_LOG = os.environ["PICKLES_LOG"]


def _note_pickle(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "pickle.find_class":
        return
    frame = sys._getframe()
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    module, name = arguments
    with open(_LOG, "a") as log:  # noqa: PTH123
        log.write(f"{module}.{name} in {' '.join(names)}\n")


sys.addaudithook(_note_pickle)
