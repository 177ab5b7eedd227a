"""The study report: a pure function of the study record."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["build"]


def build(record: dict[str, Any], out: Path, *, interactive: bool = False) -> Path:
    """Write the report of a study: ``report.json``, ``index.html``, ``report.md``, ``figures/``, ``SHA256SUMS``.

    The same record gives the same bytes. The report is written beside `out` and takes its place in the end, so that
    a report that stood there is whole at any moment, and stays when this one fails.

    Args:
        record: The study record.
        out: The folder of the report; what a former report left there is replaced.
        interactive: Write ``interactive.html`` as well, whose figures plotly draws in the reader's browser.

    Returns:
        The path of ``index.html``.

    Raises:
        RecordError: The record lacks what a report cannot be written without.
        FileExistsError: `out` holds something that is no report.
        ConfigError: plotly is wanted and not installed.
    """
    from dlsearch.report.facts import facts
    from dlsearch.report.figures import draw, svg
    from dlsearch.report.load import view
    from dlsearch.report.render import pages

    if out.exists() and not (out / "report.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: holds something that is no report (hint: name another folder)")
    canonical = _canonical(facts(view(record)))
    # Pages and figures read the file's own content: what is not in report.json cannot be on a page.
    content = json.loads(canonical)
    files = {"report.json": canonical}
    if interactive:  # first: where plotly is missing, the figures need not be drawn to learn it
        from dlsearch.report.interactive import page

        files["interactive.html"] = page(content)
    with svg.settings():
        files |= pages(content, draw(content))
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in sorted(files.items()))

    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh.chmod(0o755)
        for name, text in {**files, "SHA256SUMS": sums}.items():
            path = fresh / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        _swap(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out / "index.html"


def _canonical(document: dict[str, Any]) -> str:
    """The document with sorted keys: a line for each, and one for each element of a list, such as a trial."""

    def text(value: Any) -> str:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    lines = []
    for key, value in sorted(document.items()):
        listed = isinstance(value, list) and value
        whole = "[\n" + ",\n".join(map(text, value)) + "\n]" if listed else text(value)
        lines.append(f"{text(key)}: {whole}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _swap(fresh: Path, out: Path) -> None:
    """Put `fresh` in the place of `out`; where that fails, what was there comes back."""
    if not out.exists():
        fresh.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        out.rename(old / "report")
        try:
            fresh.rename(out)
        except OSError:
            (old / "report").rename(out)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
