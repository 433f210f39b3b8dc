"""SVG made safe and small for a page: drawing only, names of its own, no metadata, coordinates to a hundredth of a pixel."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Final

from membound.errors import InputError

_SVG: Final = "{http://www.w3.org/2000/svg}"
_XLINK: Final = "{http://www.w3.org/1999/xlink}href"
_ELEMENTS: Final = frozenset(
    "svg g path rect circle ellipse line polyline polygon text tspan title desc defs clipPath use linearGradient stop pattern marker".split()
)
_ATTRIBUTES: Final = frozenset(
    "id x y x1 y1 x2 y2 cx cy r rx ry d dx dy points width height viewBox transform fill stroke opacity fill-opacity stroke-opacity stroke-width "
    "stroke-dasharray stroke-linecap stroke-linejoin stroke-dashoffset fill-rule clip-path clip-rule font-size font-weight font-family font-style "
    "text-anchor dominant-baseline style offset stop-color stop-opacity gradientUnits patternUnits patternTransform markerWidth markerHeight refX "
    "refY orient marker-start marker-end marker-mid preserveAspectRatio".split()
)
_NUMBER: Final = re.compile(r"-?\d+\.\d{3,}")
# A style or an attribute may refer to parts of its own drawing, and to nothing else.
_OUTSIDE: Final = re.compile(r"url\(\s*['\"]?(?!#)|@import|expression\(|javascript:|\\", re.IGNORECASE)
_REFERENCE: Final = re.compile(r"url\(\s*['\"]?#([^)'\"]+)['\"]?\s*\)")
# The page's own letters take the place of those that the drawing was measured with.
_FAMILY: Final = re.compile(r"font-family:[^;]*;?")
_NO_TURN: Final = re.compile(r"rotate\(-?0[ ,)][^)]*\)?")


def clean(text: str, prefix: str, title: str = "figure") -> str:
    """`text` with nothing in it but drawing, each id beginning with `prefix`. Raises `InputError` for what is no SVG."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"svg of {title!r}", text[:40], f"give well-formed SVG ({error})") from None
    if root.tag != f"{_SVG}svg":
        raise InputError(f"svg of {title!r}", root.tag, "give an svg element of the namespace http://www.w3.org/2000/svg")
    _size(root)
    _strip(root, _used(root), prefix)
    ElementTree.register_namespace("", _SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _size(root: ElementTree.Element) -> None:
    """A drawing without a viewBox gets one, so that it can shrink."""
    width, height = (re.sub(r"[^\d.]", "", root.get(name, "")) for name in ("width", "height"))
    if "viewBox" not in root.attrib and width and height:
        root.set("viewBox", f"0 0 {width} {height}")
    for name in ("width", "height"):
        root.attrib.pop(name, None)


def _used(root: ElementTree.Element) -> set[str]:
    found: set[str] = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            found |= set(_REFERENCE.findall(value))
            if name in {"href", _XLINK}:
                found.add(value.removeprefix("#"))
    return found


def _strip(element: ElementTree.Element, used: set[str], prefix: str) -> None:
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.removeprefix(_SVG) not in _ELEMENTS:
            element.remove(child)
        else:
            _strip(child, used, prefix)
    element.attrib.update({"href": element.attrib.pop(_XLINK)} if _XLINK in element.attrib else {})
    for name, value in list(element.attrib.items()):
        kept = _attribute(name, value, used, prefix)
        if kept is None:
            del element.attrib[name]
        else:
            element.set(name, kept)
    _hoist(element)


def _attribute(name: str, value: str, used: set[str], prefix: str) -> str | None:
    if name == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else None
    if name not in _ATTRIBUTES or _OUTSIDE.search(value):
        return None
    if name == "id":
        return f"{prefix}{value}" if value in used else None
    value = _REFERENCE.sub(lambda match: f"url(#{prefix}{match[1]})", value)
    if name == "style":
        value = _FAMILY.sub("", value.replace("; ", ";").replace(": ", ":"))
    if name == "transform":
        value = _NO_TURN.sub("", value)
        if not value.strip():
            return None
    return _NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value)


def _hoist(element: ElementTree.Element) -> None:
    """A group that says nothing and holds one thing is that thing."""
    for at, child in enumerate(list(element)):
        if child.tag == f"{_SVG}g" and not child.attrib and len(child) == 1 and not (child.text or "").strip():
            element[at] = child[0]
    if not (element.text or "").strip():
        element.text = None
    for child in element:
        if element.tag not in {f"{_SVG}text", f"{_SVG}tspan"}:
            child.tail = None
