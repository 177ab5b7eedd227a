"""Small files that are whole or not there, also after the power has failed.

Imports nothing heavy.
"""

from __future__ import annotations

import os
from pathlib import Path

from dlsearch.core.files.descriptor import Descriptor
from dlsearch.core.files.regular import write_text


def write_durably(path: Path, text: str) -> None:
    """Give `path` this content: written beside it, synced, renamed, and the rename synced.

    Raises:
        OSError: The disk is full, or the like; what was at `path` is still there.
    """
    draft = path.with_name(f"{path.name}.part")
    write_text(draft, text, sync=True)
    draft.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have a rename survive a power failure.

    The folder is written to the disk here; without that it may be long after the file.
    """
    with Descriptor.open(folder, os.O_RDONLY | os.O_DIRECTORY) as opened:
        os.fsync(opened.fileno())
