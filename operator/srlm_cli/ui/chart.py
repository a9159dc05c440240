"""Line charts as SVG: colours are classes, so that light and dark are the style sheet's, and markers tell lines apart
without colours. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree as XML

from markupsafe import Markup

Point = tuple[float, float]
#: Size of the view box and of its margins: drawn at the width of a telephone, so that letters keep their size there.
WIDTH, HEIGHT = 340.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 26.0
#: Colours and markers of lines, again and again.
LINES = 8
#: Lines of the grid at most.
TICKS = 5
#: Points drawn of a line at most, and markers.
MAX_POINTS, MAX_MARKERS = 300, 12
#: Half of a marker's size.
_R = 3.2
#: Paths of the markers around their place.
_MARKERS = (
    f"m-{_R} 0a{_R} {_R} 0 1 0 {2 * _R} 0a{_R} {_R} 0 1 0 -{2 * _R} 0",
    f"m-{_R} -{_R}h{2 * _R}v{2 * _R}h-{2 * _R}z",
    f"m0 -{_R}l{_R} {2 * _R}h-{2 * _R}z",
    f"m0 -{_R}l{_R} {_R}l-{_R} {_R}l-{_R} -{_R}z",
    f"m0 {_R}l{_R} -{2 * _R}h-{2 * _R}z",
    f"m-{_R} -{_R}l{2 * _R} {2 * _R}m0 -{2 * _R}l-{2 * _R} {2 * _R}",
    f"m0 -{_R}v{2 * _R}m-{_R} -{_R}h{2 * _R}",
    f"m-{_R} 0h{2 * _R}",
)


@dataclass(frozen=True)
class Line:
    """A named line; points in the order of x."""

    name: str
    points: Sequence[Point]
    place: int = 0
    """Its colour and marker: what has the same name in several charts has the same place."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and the names of its lines."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, Markup], ...] = ()
    """Name and marker of each line; empty where one line needs no name."""


def draw(
    title: str,
    lines: Sequence[Line],
    show: Callable[[float], str],
    *,
    labels: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    step: float = 0.0,
) -> Chart | None:
    """None when no line has a point.

    show: a value as people read it. labels: what stands below x = 0, 1, ..., in place of numbers. limits: ends of the
    scale, where the figure has such; a point beyond moves them. step: the smallest that `show` tells apart.
    """
    lines = [replace(line, points=_thin(line.points)) for line in lines if line.points]
    if not lines:
        return None
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = min(ys), max(ys)
    ticks = nice_ticks(*((min(limits[0], low), max(limits[1], high)) if limits else (low, high)), step)
    low, high = min(*ticks, min(ys)), max(*ticks, max(ys))
    first, last = (0.0, float(max(len(labels) - 1, 1))) if labels else (min(xs), max(xs))
    last = last if last > first else first + 1

    def place(point: Point) -> Point:
        x = LEFT + (point[0] - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return x, HEIGHT - BOTTOM - (point[1] - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    root = XML.Element("svg", {"class": "plot", "viewBox": box, "role": "img", "aria-label": _said(title, lines, show)})
    for tick in ticks:
        y = place((first, tick))[1]
        XML.SubElement(root, "path", {"class": "grid", "d": f"M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"})
        _text(root, show(tick), LEFT - 6, y + 4, "end")
    names = list(enumerate(labels)) if labels else [(x, f"{x:,.0f}") for x in _whole_ticks(first, last)]
    every = math.ceil(len(names) / 8)
    for x, name in names[::every]:
        _text(root, name, place((x, low))[0], HEIGHT - 8, "middle")
    for line in lines:
        _draw_line(root, line, place, show)
    legend = tuple((line.name, _sign(line.place % LINES)) for line in lines) if len(lines) > 1 else ()
    return Chart(title, _markup(root), legend)


def nice_ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Round numbers around low to high, at most TICKS + 2 of them. least: the smallest step."""
    if high - low < 1e-12:
        pad = max(abs(high) / 10, least) or 1.0
        low, high = low - pad, high + pad
    rough = max((high - low) / TICKS, least)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    begin, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(begin, end + 1)]


def _whole_ticks(first: float, last: float) -> list[float]:
    return [tick for tick in nice_ticks(first, last, 1.0) if first <= tick <= last and tick == int(tick)]


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """Every n-th point, the last one always."""
    every = math.ceil(len(points) / MAX_POINTS)
    few = list(points[::every])
    return few if few[-1] == points[-1] else [*few, points[-1]]


def _draw_line(root: XML.Element, line: Line, place: Callable[[Point], Point], show: Callable[[float], str]) -> None:
    number = line.place % LINES
    group = XML.SubElement(root, "g", {"class": f"s{number}"})
    places = [place(point) for point in line.points]
    XML.SubElement(group, "path", {"class": "line", "d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)})
    every = math.ceil(len(places) / MAX_MARKERS)
    for (x, y), (_, value) in list(zip(places, line.points, strict=True))[::-1][::every]:
        mark = XML.SubElement(group, "path", {"class": "mark", "d": f"M{x:.1f} {y:.1f}{_MARKERS[number]}"})
        XML.SubElement(mark, "title").text = f"{line.name}: {show(value)}"


def _text(root: XML.Element, text: str, x: float, y: float, anchor: str) -> None:
    XML.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text


def _sign(number: int) -> Markup:
    """A line's marker for the legend."""
    root = XML.Element("svg", {"class": f"sign s{number}", "viewBox": "-8 -6 16 12", "aria-hidden": "true"})
    XML.SubElement(root, "path", {"class": "line", "d": "M-8 0H8"})
    XML.SubElement(root, "path", {"class": "mark", "d": f"M0 0{_MARKERS[number]}"})
    return _markup(root)


def _said(title: str, lines: Sequence[Line], show: Callable[[float], str]) -> str:
    """The chart in words, for people who cannot see it."""
    return f"{title}. " + "; ".join(_ends(line, show) for line in lines)


def _ends(line: Line, show: Callable[[float], str]) -> str:
    begin, end = line.points[0][1], line.points[-1][1]
    if len(line.points) == 1:
        return f"{line.name}: {show(end)}"
    return f"{line.name}: from {show(begin)} to {show(end)}, {len(line.points)} points"


def _markup(root: XML.Element) -> Markup:
    return Markup(XML.tostring(root, encoding="unicode"))  # noqa: S704 - drawn here; ElementTree has escaped the texts


def numbers(points: Sequence[float | None]) -> Iterator[Point]:
    """(place, value) of those that are there."""
    return ((float(x), y) for x, y in enumerate(points) if y is not None and math.isfinite(y))
