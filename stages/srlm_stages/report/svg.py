"""matplotlib figures as inline SVG: colours become CSS classes, so that one drawing serves light, dark and print."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as XML

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

#: Stand-in colours: matplotlib draws with them, the style sheet gives them their meaning.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
#: Colours of the models, again and again.
COLOURS = 8
SERIES = tuple(f"#10000{i}" for i in range(COLOURS))
_CLASSES = {INK: "ink", MUTED: "mut", GRID: "grd", PAPER: "pap"} | {c: f"c{i}" for i, c in enumerate(SERIES)}

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def draw(name: str, title: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> Markup:
    """One figure.

    name: unique in the page, for ids. title: what it shows, for people who cannot see it. size: inches.
    """
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _inline(text.getvalue(), name, title)


def _inline(text: str, name: str, title: str) -> Markup:
    """Without styles, sizes and unused ids: only a view box, attributes and classes are left."""
    XML.register_namespace("", _SVG)
    root = XML.fromstring(text)  # noqa: S314 - what matplotlib has just written
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    used = {r for e in root.iter() for v in e.attrib.values() for r in _REFERENCE.findall(v)}
    used |= {e.attrib[_LINK].removeprefix("#") for e in root.iter() if _LINK in e.attrib}
    for element in root.iter():
        _tidy(element, used, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": title}
    return Markup(XML.tostring(root, encoding="unicode"))  # noqa: S704 - drawn here; texts were escaped by matplotlib


def _tidy(element: XML.Element, used: set[str], name: str) -> None:
    attributes = element.attrib
    if attributes.get("id") in used:
        attributes["id"] = f"{name}-{attributes['id']}"
    else:
        attributes.pop("id", None)
    if _LINK in attributes:
        attributes["href"] = f"#{name}-{attributes.pop(_LINK).removeprefix('#')}"
    if "d" in attributes:
        attributes["d"] = " ".join(_shorter(part) for part in attributes["d"].split())
    classes = []
    for declaration in attributes.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in ("fill", "stroke") and value in _CLASSES:
            classes.append(f"{key[0]}-{_CLASSES[value]}")
        elif key and key != "font-family":
            attributes[key] = value.removesuffix("px") if key == "font-size" else value
    if element.tag == f"{{{_SVG}}}text" and not any(c.startswith("f-") for c in classes):
        classes.append("f-ink")
    if classes:
        attributes["class"] = " ".join(classes)
    for key, value in attributes.items():
        attributes[key] = _REFERENCE.sub(lambda found: f"url(#{name}-{found.group(1)})", value)
    if element.text is not None and not element.text.strip():
        element.text = None
    if element.tail is not None and not element.tail.strip():
        element.tail = None


def _shorter(part: str) -> str:
    """Coordinates to a hundredth of a point."""
    return f"{float(part):.2f}".rstrip("0").rstrip(".") if "." in part else part
