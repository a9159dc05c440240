"""Small parts of the report: text made visible, drawings, tables, examples."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from srlm_contract.text import visible
from srlm_stages.judging.metrics import Estimate
from srlm_stages.report.collect import first_and_last
from srlm_stages.report.curves import thin
from srlm_stages.report.examples import cut
from srlm_stages.report.figures import Figures, Meeting, ModelFigures
from srlm_stages.report.page import digest, policy
from srlm_stages.report.plots import duration, win_rates
from srlm_stages.report.svg import INK, SERIES, draw
from srlm_stages.report.tables import judge_table, win_matrix
from srlm_stages.report.text import finalize


def model(number: int, **fields: object) -> ModelFigures:
    from srlm_contract.status import IterationMetrics

    return ModelFigures(f"M{number}", number - 1, IterationMetrics(), **fields)  # type: ignore[arg-type]  # a test's


@pytest.mark.parametrize(
    ("text", "shown_as"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("windows\r\nlines", "windows\nlines"),
        ("a\rb", "a⟨U+000D⟩b"),
        ("\u202egnp", "⟨U+202E⟩gnp"),
        ("\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("\x00\x1b[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
        ("line\u2028separator", "line⟨U+2028⟩separator"),
        ("\ud800", "⟨U+D800⟩"),
        ("سلام بر شما", "سلام بر شما"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🔬 ok", "👩\u200d🔬 ok"),
    ],
)
def test_invisible_characters_are_shown(text: str, shown_as: str) -> None:
    assert visible(text) == shown_as
    visible(text).encode()  # a page can be written


def test_own_markup_is_left_alone() -> None:
    markup = Markup("<b>\u200b</b>")
    assert finalize(markup) is markup
    assert finalize(3) == 3


class TestDrawing:
    def drawing(self, name: str = "test") -> str:
        def paint(figure: object) -> None:
            axes = figure.subplots()  # type: ignore[attr-defined]  # matplotlib's
            axes.plot([1, 2, 3], [3, 1, 2], color=SERIES[2], marker="o")
            axes.set_title("a < b & $c$", color=INK)

        return draw(name, 'said "so" <b>', (4, 2), paint)

    def test_colours_are_classes_and_nothing_is_styled_inline(self) -> None:
        drawing = self.drawing()
        ElementTree.fromstring(drawing)
        assert "style" not in drawing
        assert "<metadata" not in drawing
        assert 's-c2"' in drawing
        assert "#10000" not in drawing
        assert "#0" not in re.sub(r"#test-\w+", "", drawing)

    def test_it_scales_and_has_a_name(self) -> None:
        root = ElementTree.fromstring(self.drawing())
        assert {"width", "height"}.isdisjoint(root.attrib)
        assert root.attrib["viewBox"] == "0 0 288 144"
        assert root.attrib["aria-label"] == 'said "so" <b>'

    def test_texts_are_text_and_escaped(self) -> None:
        assert ">a &lt; b &amp; $c$</" in self.drawing()

    def test_ids_belong_to_one_drawing(self) -> None:
        drawing = self.drawing("one") + self.drawing("two")
        ids = re.findall(r' id="([^"]*)"', drawing)
        assert ids
        assert len(set(ids)) == len(ids)
        used = set(re.findall(r'href="#([^"]*)"', drawing)) | set(re.findall(r"url\(#([^)]*)\)", drawing))
        assert used == set(ids)

    def test_the_same_again(self) -> None:
        assert self.drawing() == self.drawing()


def test_long_series_are_thinned_with_the_last_step() -> None:
    points = [(float(i), float(i * i)) for i in range(1, 10_001)]
    few = thin(points)
    assert len(few) <= 401
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert thin(points[:7]) == points[:7]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.44, "0.4s"), (9.96, "10s"), (42, "42s"), (185, "3m 05s"), (3720, "1h 02m"), (90000, "25h 00m")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_of_many_the_first_and_last_are_shown() -> None:
    assert first_and_last(range(1, 31), 4) == [1, 2, 29, 30]
    assert first_and_last(range(1, 31), 5) == [1, 2, 29, 30]
    assert first_and_last([1, 2, 3], 4) == [1, 2, 3]


def test_win_matrix_by_hand() -> None:
    """M2 wins 3, ties 2, loses 1 of 6 against M1: 4/6; M1 against M2 is the rest."""
    met = Meeting(opponent="M1", wins=3, ties=2, losses=1, unreadable=0)
    unread = Meeting(opponent="M2", wins=0, ties=0, losses=0, unreadable=6)
    matrix = win_matrix(Figures([model(1), model(2, against={"M1": met}), model(3, against={"M2": unread})]))
    assert [(name, [c.text for c in cells]) for name, cells in matrix] == [
        ("M1", ["", "33.3%", "–"]),
        ("M2", ["66.7%", "", "–"]),
        ("M3", ["–", "–", ""]),
    ]
    assert [c.shade for c in matrix[1][1]] == ["h7", "none", "none"]
    assert win_matrix(Figures([model(1)])) == []


def test_wins_are_drawn_for_readable_meetings_only() -> None:
    unread = Meeting(opponent="M1", wins=0, ties=0, losses=0, unreadable=6)
    assert win_rates(Figures([model(1), model(2, against={"M1": unread})])) is None


def test_judge_table_tells_count_interval_and_what_is_left_out() -> None:
    estimates = {"pairwise": Estimate(0.5, 40, 0.25, 0.75), "spearman": Estimate(0.1, 9, None, None, 2)}
    table = judge_table(Figures([model(1, judge=estimates, length_only={"pairwise": Estimate(None, 0)})]))
    assert table.rows == (
        ("M1", "50.0%\n25.0% to 75.0%\nn=40", "–", "–", "–", "0.10\ntoo few\nn=9, 2 excluded", "–"),
        ("“longer wins”", "–", "–", "–", "–", "–", "–"),
    )


def test_long_texts_say_how_much_is_missing() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("a" * 1503, 500) == "a" * 500 + "… [1,003 more characters]"


def test_policy_names_the_hashes() -> None:
    found = policy("a{}", "1")
    assert found.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in found
    assert policy("b{}", "1") != found


def test_digests_are_short() -> None:
    assert digest("sha256:0123456789abcdef") == "0123456789ab"
