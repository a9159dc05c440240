"""The charts of `srlm ui`: scales, and that they say in words what they show."""

from __future__ import annotations

import re
from xml.etree import ElementTree as XML

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_cli.ui.chart import MAX_POINTS, TICKS, Chart, Line, draw, nice_ticks, numbers

SHOW = "{:.2f}".format


def drawn(*lines: Line, **more: object) -> Chart:
    chart = draw("Loss", lines, SHOW, **more)  # type: ignore[arg-type]  # the options of draw
    assert chart is not None
    return chart


def texts(chart: Chart) -> list[str]:
    return [element.text or "" for element in XML.fromstring(chart.svg).iter("text")]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_all_around(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert 2 <= len(ticks) <= TICKS + 2
    assert ticks == sorted(ticks)
    assert ticks[0] <= low + 1e-6 * span + 1e-9 * abs(low)
    assert ticks[-1] >= low + span - 1e-6 * span - 1e-9 * abs(low)


@pytest.mark.parametrize(
    ("low", "high", "least", "ticks"),
    [
        (0, 1, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 5, 0, [0, 1, 2, 3, 4, 5]),
        (4, 4, 1, [3, 4, 5]),
        (0, 0, 0, [-1, -0.5, 0, 0.5, 1]),
        (3, 4, 1, [3, 4]),
    ],
)
def test_ticks(low: float, high: float, least: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high, least) == pytest.approx(ticks)


def test_a_chart_says_in_words_what_it_shows() -> None:
    chart = drawn(Line("M2", [(1, 0.5), (2, 0.25)]), Line("M3", [(1, 0.7)], place=1))
    assert XML.fromstring(chart.svg).get("aria-label") == "Loss. M2: from 0.50 to 0.25, 2 points; M3: 0.70"
    assert [name for name, _ in chart.legend] == ["M2", "M3"]
    assert re.findall(r"<g class=\"(s\d)\"", str(chart.svg)) == ["s0", "s1"]
    assert "<title>M2: 0.50</title>" in chart.svg


def test_a_line_alone_needs_no_legend_and_nothing_no_chart() -> None:
    assert drawn(Line("M2", [(0, 1)]), Line("M3", [])).legend == ()
    assert draw("Loss", [Line("M2", [])], SHOW) is None


def test_names_stand_below_their_places() -> None:
    line = Line("x", list(numbers([0.5, None, 0.7, float("nan")])))
    assert line.points == [(0, 0.5), (2, 0.7)]
    assert texts(drawn(line, labels=["M1", "M2", "M3", "M4"], limits=(0, 1)))[-4:] == ["M1", "M2", "M3", "M4"]
    many = [f"M{number}" for number in range(1, 51)]
    assert len(texts(drawn(line, labels=many, limits=(0, 1)))) <= TICKS + 2 + 8


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    chart = drawn(Line("M2", [(float(step), float(step)) for step in range(100_000)]))
    path = re.findall(r'class="line" d="([^"]*)"', str(chart.svg))[0]
    assert path.count("L") <= MAX_POINTS + 1
    assert "from 0.00 to 99999.00" in chart.svg
    assert chart.svg.count("<title>") <= 13


def test_names_are_no_markup() -> None:
    chart = draw('<script>"', [Line("</svg><script>", [(0, 1)]), Line("&", [(0, 2)])], SHOW)
    assert chart is not None
    assert "<script" not in chart.svg


def test_a_point_beyond_the_scale_moves_it() -> None:
    assert texts(drawn(Line("x", [(0, 7)]), limits=(0, 5)))[-3] == "8.00"
