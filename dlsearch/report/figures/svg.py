"""From a matplotlib figure to small SVG: a file of its own, and markup for the page.

Matplotlib writes a style attribute on every mark. In the page these become classes of one style
sheet, so that the page needs no inline style (its content-security policy allows none), weighs
little, and turns dark with its reader.
"""

from __future__ import annotations

import io
import itertools
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from dlsearch.report.figures.canvas import PAPER, VARIABLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Fonts of the stand-alone figures; in the page text inherits the page's.
FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', "
    "'Liberation Sans', sans-serif"
)
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
POINTS_PER_CSS_PIXEL = 0.75

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COORDINATES = ("d", "x", "y", "width", "height", "transform", "points")
_TAGS_WITH_TEXT = ("text", "title", "tspan")
_BOLD_WEIGHTS = ("bold", "600", "700")
# The root of the page sets these for every figure.
_INHERITED_STYLES = (("stroke-linejoin", "round"), ("opacity", "1"))
_FEWEST_MARKS_OF_A_GROUP = 3


def figure_to_svg(figure: Figure, key: str) -> ElementTree.Element:
    """Write the figure as SVG, without metadata, comments, name spaces or idle ids.

    Args:
        figure: What to write.
        key: Prefix of the ids that remain, unique in the page.
    """
    root = _save_figure(figure)
    _strip_namespaces(root)
    _remove_metadata(root)
    used = _referenced_ids(root)
    for element in root.iter():
        _compact_element(element, key, used)
    _flatten_groups(root)
    _group_equal_marks(root)
    root.attrib = {"xmlns": SVG_NAMESPACE, "viewBox": root.attrib["viewBox"]}
    return root


def _save_figure(figure: Figure) -> ElementTree.Element:
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="svg",
        metadata={
            "Date": None,
            "Creator": None,
            "Format": None,
            "Type": None,
        },
    )
    return ElementTree.fromstring(buffer.getvalue())


def _strip_namespaces(root: ElementTree.Element) -> None:
    for element in root.iter():
        element.tag = _local_name(element.tag)
        for name in list(element.attrib):
            if "}" in name:
                element.attrib[_local_name(name)] = element.attrib.pop(name)


def _local_name(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _remove_metadata(root: ElementTree.Element) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if _is_idle(child):
                parent.remove(child)


def _is_idle(element: ElementTree.Element) -> bool:
    """Whether an element is metadata, a style sheet, or definitions of nothing but these."""
    if element.tag in ("metadata", "style"):
        return True
    return element.tag == "defs" and all(child.tag == "style" for child in element)


def _referenced_ids(root: ElementTree.Element) -> set[str]:
    used: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href" and value.startswith("#"):
                used.add(value[1:])
            used.update(_REFERENCE.findall(value))
    return used


def _compact_element(element: ElementTree.Element, key: str, used: set[str]) -> None:
    _prefix_id(element, key, used)
    for name, value in list(element.attrib.items()):
        element.attrib[name] = _prefix_references(name, value, key)
        if name in _COORDINATES and element.tag != "image":
            element.attrib[name] = _round_coordinates(value)
    if element.tag == "image":
        element.attrib.pop("preserveAspectRatio", None)
    _compact_style(element)
    if element.tag not in _TAGS_WITH_TEXT:
        element.text = None
    element.tail = None


def _prefix_id(element: ElementTree.Element, key: str, used: set[str]) -> None:
    """Prefix the element's id where something refers to it, and remove it elsewhere."""
    identity = element.attrib.pop("id", None)
    if identity in used:
        element.attrib["id"] = f"{key}-{identity}"


def _prefix_references(name: str, value: str, key: str) -> str:
    if name == "href" and value.startswith("#"):
        return f"#{key}-{value[1:]}"
    return _REFERENCE.sub(lambda match: f"url(#{key}-{match.group(1)})", value)


def _round_coordinates(value: str) -> str:
    rounded = _NUMBER.sub(_round_number, value)
    single_spaced = re.sub(r"\s+", " ", rounded).strip()
    return single_spaced.replace("-0 ", "0 ")


def _round_number(match: re.Match[str]) -> str:
    return f"{float(match.group()):.2f}".rstrip("0").rstrip(".")


def _compact_style(element: ElementTree.Element) -> None:
    style = element.attrib.get("style")
    if style is None:
        return
    parts = _parse_style(style)
    if "font" in parts:
        parts |= _font_properties(parts.pop("font"))
    kept = sorted(part for part in parts.items() if part not in _INHERITED_STYLES)
    if kept:
        element.attrib["style"] = "; ".join(f"{name}: {value}" for name, value in kept)
    else:
        del element.attrib["style"]


def _parse_style(style: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for declaration in style.split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            parts[name.strip()] = value.strip()
    return parts


def _font_properties(font: str) -> dict[str, str]:
    """Size and weight of a font; matplotlib writes `[style weight …] 9px 'DejaVu Sans', …`."""
    head, _, _ = font.partition("px")
    *weights, size = head.split()
    properties = {"font-size": f"{float(size):g}px"}
    if any(weight in _BOLD_WEIGHTS for weight in weights):
        properties["font-weight"] = "600"
    return properties


def _replace_children(
    element: ElementTree.Element,
    children: list[ElementTree.Element],
) -> None:
    for child in list(element):
        element.remove(child)
    element.extend(children)


def _flatten_groups(element: ElementTree.Element) -> None:
    """Lift children out of groups that carry nothing, and drop empty groups."""
    children: list[ElementTree.Element] = []
    for child in list(element):
        _flatten_groups(child)
        is_group = child.tag == "g"
        if is_group and not child.attrib:
            children.extend(child)
        elif not is_group or len(child) > 0:
            children.append(child)
    _replace_children(element, children)


def _group_equal_marks(element: ElementTree.Element) -> None:
    """Say once how equal marks in a row look: of thousands of trials that is most of a figure."""
    children: list[ElementTree.Element] = []
    for style, run in itertools.groupby(element, _style_of_mark):
        marks = list(run)
        if style and len(marks) >= _FEWEST_MARKS_OF_A_GROUP:
            children.append(_group_of(marks, style))
            continue
        for child in marks:
            _group_equal_marks(child)
        children.extend(marks)
    _replace_children(element, children)


def _style_of_mark(element: ElementTree.Element) -> str | None:
    """The style of a mark; None for what is no mark or has none."""
    return element.attrib.get("style") if element.tag == "use" else None


def _group_of(marks: list[ElementTree.Element], style: str) -> ElementTree.Element:
    group = ElementTree.Element("g", {"style": style})
    for mark in marks:
        del mark.attrib["style"]
    group.extend(marks)
    return group


def standalone_svg(root: ElementTree.Element, title: str) -> str:
    """The figure as a file of its own, on paper's white."""
    copy = _copied(root)
    view_box = copy.attrib["viewBox"]
    _, _, width, height = view_box.split()
    copy.attrib = {
        "xmlns": SVG_NAMESPACE,
        "viewBox": view_box,
        "width": f"{float(width) / POINTS_PER_CSS_PIXEL:g}",
        "height": f"{float(height) / POINTS_PER_CSS_PIXEL:g}",
        "role": "img",
        "style": f"font-family: {FONTS}; stroke-linejoin: round",
    }
    heading = ElementTree.Element("title")
    heading.text = title
    background = ElementTree.Element(
        "rect",
        {
            "width": "100%",
            "height": "100%",
            "fill": PAPER,
        },
    )
    copy[:0] = [heading, background]
    return ElementTree.tostring(copy, encoding="unicode") + "\n"


def _copied(root: ElementTree.Element) -> ElementTree.Element:
    copy = ElementTree.fromstring(ElementTree.tostring(root, encoding="unicode"))
    for element in copy.iter():
        element.tag = _local_name(element.tag)
    return copy


class StyleSheet:
    """Collects the styles of the page's figures; each distinct one gets a class."""

    def __init__(self) -> None:
        self._classes: dict[str, str] = {}

    def inline_figure(self, root: ElementTree.Element, label: str) -> str:
        """The figure as markup for the page, read out as `label`."""
        copy = _copied(root)
        for element in copy.iter():
            style = element.attrib.pop("style", None)
            if style:
                element.attrib["class"] = self._class_of(style)
        copy.attrib = {
            "viewBox": copy.attrib["viewBox"],
            "role": "img",
            "aria-label": label,
        }
        return ElementTree.tostring(copy, encoding="unicode")

    def _class_of(self, style: str) -> str:
        return self._classes.setdefault(style, f"s{len(self._classes)}")

    def css_rules(self) -> str:
        """The rules of all classes given so far."""
        return "\n".join(_css_rule(name, style) for style, name in self._classes.items())


def _css_rule(name: str, style: str) -> str:
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var(--{variable})")
    compact = style.replace(": ", ":").replace("; ", ";")
    return f".{name}{{{compact}}}"
