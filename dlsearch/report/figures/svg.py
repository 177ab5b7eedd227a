"""From a matplotlib figure to small SVG: one that stands alone, and one that takes the page's colours and classes.

Matplotlib writes a style attribute on every mark. In the page these become classes of one style sheet, so that the
page needs no inline style (its content-security policy allows none), weighs little, and turns dark with its reader.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import warnings
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

#: The colours of the figures; each is a custom property of the page's style sheet as well.
INK, MUTED, RULE, FAINT = "#1c1f23", "#5b6470", "#d9dde3", "#eef1f4"
ACCENT, BAD, PAPER = "#0a5cad", "#b3400e", "#ffffff"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    FAINT: "faint",
    ACCENT: "accent",
    BAD: "bad",
    PAPER: "paper",
}

#: Fonts of the stand-alone figures; in the page text inherits the page's.
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', sans-serif"

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dlsearch",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.unicode_minus": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handletextpad": 0.2,
    "legend.columnspacing": 1.1,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.0,
    "path.simplify": True,
    "image.composite_image": False,  # pictures in one drawing stay pictures, in their own pixels
}


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Draw with the report's settings and no other: a user's matplotlibrc changes nothing."""
    import matplotlib

    with warnings.catch_warnings():
        # A name in a script that the layout font lacks is drawn by the reader's own fonts.
        warnings.simplefilter("ignore")
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_SETTINGS)
            yield


def canvas(width: float, height: float, **options: Any) -> Figure:
    """A figure of so many CSS pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 96, height / 96), **({"layout": "constrained"} | options))
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(w_pad=0.03, h_pad=0.03)  # type: ignore[call-arg]
    return figure


def tree(figure: Figure, key: str) -> ElementTree.Element:
    """Write the figure as SVG, without metadata, comments, name spaces or idle ids.

    Args:
        figure: What to write.
        key: Prefix of the ids that remain, unique in the page.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
        for name in list(element.attrib):
            if "}" in name:
                element.attrib[name.rsplit("}", 1)[-1]] = element.attrib.pop(name)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style") or (child.tag == "defs" and not any(c.tag != "style" for c in child)):
                parent.remove(child)
    used = set()
    for element in root.iter():
        used |= {v[1:] for n, v in element.attrib.items() if n == "href" and v.startswith("#")}
        used |= {m for v in element.attrib.values() for m in _REFERENCE.findall(v)}
    for element in root.iter():
        _compact(element, key, used)
    _flatten(root)
    _gather(root)
    root.attrib = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": root.attrib["viewBox"]}
    return root


def _compact(element: ElementTree.Element, key: str, used: set[str]) -> None:
    identity = element.attrib.pop("id", None)
    if identity in used:
        element.attrib["id"] = f"{key}-{identity}"
    for name, value in list(element.attrib.items()):
        if name == "href" and value.startswith("#"):
            element.attrib[name] = f"#{key}-{value[1:]}"
        elif "url(#" in value:
            element.attrib[name] = _REFERENCE.sub(lambda m: f"url(#{key}-{m.group(1)})", value)
        if name in ("d", "x", "y", "width", "height", "transform", "points") and element.tag != "image":
            value = _NUMBER.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), value)
            element.attrib[name] = re.sub(r"\s+", " ", value).strip().replace("-0 ", "0 ")
    if element.tag == "image":
        element.attrib.pop("preserveAspectRatio", None)
    style = element.attrib.get("style")
    if style is not None:
        parts = dict(p.split(":", 1) for p in (q.strip() for q in style.split(";")) if ":" in p)
        parts = {k.strip(): v.strip() for k, v in parts.items()}
        if "font" in parts:
            # matplotlib writes `font: [style weight …] 9px 'DejaVu Sans', …`
            head, _, _ = parts.pop("font").partition("px")
            words = head.split()
            parts["font-size"] = f"{float(words[-1]):g}px"
            if any(w in ("bold", "600", "700") for w in words[:-1]):
                parts["font-weight"] = "600"
        # The root of the page sets these for every figure.
        parts = {k: v for k, v in parts.items() if (k, v) not in (("stroke-linejoin", "round"), ("opacity", "1"))}
        element.attrib["style"] = "; ".join(f"{k}: {v}" for k, v in sorted(parts.items()))
        if not parts:
            del element.attrib["style"]
    if element.tag not in ("text", "title", "tspan"):
        element.text = None
    element.tail = None


def _flatten(element: ElementTree.Element) -> None:
    """Lift children out of groups that carry nothing."""
    children: list[ElementTree.Element] = []
    for child in list(element):
        _flatten(child)
        if child.tag == "g" and not child.attrib:
            children.extend(child)
        elif not (child.tag == "g" and len(child) == 0):
            children.append(child)
    for child in list(element):
        element.remove(child)
    element.extend(children)


def _gather(element: ElementTree.Element) -> None:
    """Say once how equal marks in a row look: of thousands of trials that is most of a figure."""
    children: list[ElementTree.Element] = []
    for style, run in itertools.groupby(element, lambda child: child.tag == "use" and child.attrib.get("style")):
        marks = list(run)
        if style and len(marks) > 2:
            group = ElementTree.Element("g", {"style": style})
            for mark in marks:
                del mark.attrib["style"]
            group.extend(marks)
            marks = [group]
        else:
            for child in marks:
                _gather(child)
        children.extend(marks)
    for child in list(element):
        element.remove(child)
    element.extend(children)


def alone(root: ElementTree.Element, title: str) -> str:
    """The figure as a file of its own, on paper's white."""
    copy = ElementTree.fromstring(ElementTree.tostring(root, encoding="unicode"))
    _strip(copy)
    _, _, width, height = copy.attrib["viewBox"].split()
    copy.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": copy.attrib["viewBox"],
        "width": f"{float(width) / 0.75:g}",
        "height": f"{float(height) / 0.75:g}",
        "role": "img",
        "style": f"font-family: {FONTS}; stroke-linejoin: round",
    }
    heading = ElementTree.Element("title")
    heading.text = title
    back = ElementTree.Element("rect", {"width": "100%", "height": "100%", "fill": PAPER})
    copy[:0] = [heading, back]
    return ElementTree.tostring(copy, encoding="unicode") + "\n"


def _strip(root: ElementTree.Element) -> None:
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]


class Sheet:
    """Collects the styles of the page's figures; each distinct one gets a class."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    def inline(self, root: ElementTree.Element, label: str) -> str:
        """The figure as markup for the page, read out as `label`."""
        copy = ElementTree.fromstring(ElementTree.tostring(root, encoding="unicode"))
        _strip(copy)
        for element in copy.iter():
            style = element.attrib.pop("style", None)
            if style:
                element.attrib["class"] = self._classes.setdefault(style, f"s{len(self._classes)}")
        copy.attrib = {"viewBox": copy.attrib["viewBox"], "role": "img", "aria-label": label}
        return ElementTree.tostring(copy, encoding="unicode")

    def css(self) -> str:
        """The rules of all classes given so far."""
        lines = []
        for style, name in self._classes.items():
            for colour, variable in VARIABLES.items():
                style = style.replace(colour, f"var(--{variable})")
            lines.append(f".{name}{{{style.replace(': ', ':').replace('; ', ';')}}}")
        return "\n".join(lines)
