"""A page of what is inside one net, or of a learning-rate range test: ``index.html``, a JSON document, ``figures/``."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.config.errors import ConfigError
from dlsearch.report.figures import svg
from dlsearch.report.formats import plural, short

if TYPE_CHECKING:
    from dlsearch.report.figures.plate import Plate

_TEMPLATES = Path(__file__).parent / "templates"
LOOK, RATES = "look.json", "lr_range.json"


def write_look(found: dict[str, Any], title: str, out: Path) -> Path:
    """Write what :func:`dlsearch.train.inside.look` found; the same findings give the same bytes.

    Args:
        found: The findings.
        title: Of the model.
        out: The folder; a former page there is replaced.

    Returns:
        The path of ``index.html``.

    Raises:
        ConfigError: `out` holds something else.
    """
    from dlsearch.report.figures import inside
    from dlsearch.report.figures.training import weights

    def draw(read: dict[str, Any]) -> list[Plate]:
        first = weights({"test": {"main": {"first_layer": read.get("first_layer")}}})
        return [*([first] if first is not None else []), *inside.plates(read)]

    meta = f"{plural(found['n'], 'example')} of {found['source']}" if found.get("n") else ""
    return _write(found, draw, "What is inside", title, meta, out, LOOK)


def write_rates(found: dict[str, Any], title: str, out: Path) -> Path:
    """Write what :func:`dlsearch.train.rates.range_test` found, likewise."""
    from dlsearch.report.figures.rates import rates

    return _write(found, lambda read: [rates(read)], "Learning-rate range test", title, "", out, RATES)


def check_out(out: Path, document: str) -> None:
    """Refuse a folder that holds something else.

    Raises:
        ConfigError: It does.
    """
    if out.exists() and not (out / document).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", f"{out} holds something that is no such page", "name another folder")


def _write(found: dict[str, Any], draw: Any, kind: str, title: str, meta: str, out: Path, document: str) -> Path:
    import jinja2
    from markupsafe import Markup

    check_out(out, document)
    canonical = json.dumps(found, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files, sheet, drawn = {document: canonical}, svg.Sheet(), []
    with svg.settings():
        for p in draw(json.loads(canonical)):
            wide = svg.tree(p.wide, p.key)
            files[f"figures/{p.key}.svg"] = svg.alone(wide, p.alt)
            narrow = None if p.narrow is None else Markup(sheet.inline(svg.tree(p.narrow, f"{p.key}-n"), p.alt))
            drawn.append((p, Markup(sheet.inline(wide, p.alt)), narrow))
    css = (_TEMPLATES / "style.css").read_text("utf-8") + sheet.css() + "\n"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["short"] = short
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    files["index.html"] = environment.get_template("look.html.j2").render(
        kind=kind, title=title, meta=meta, drawn=drawn, document=document, css=Markup(css), style_digest=digest
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh.chmod(0o755)
        for name, text in files.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_text(text, encoding="utf-8", newline="\n")
        if out.exists():
            shutil.rmtree(out)  # it was looked at: a former page, or empty
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out / "index.html"
