"""The score parser on the many shapes verdicts come in."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_stages.engines import ScoreLine
from srlm_stages.judging.rubric import BUILT_IN_RUBRICS, DEFAULT_RUBRIC
from srlm_stages.judging.verdict import parse_score

REASONING = "The answer is relevant (1 point) and covers 3 of the 4 parts, so 2 points more."

READABLE = {
    "last line": (f"{REASONING}\nScore: 3", 3),
    "first line": (f"Score: 4\n{REASONING}", 4),
    "first line, then a list": ("Score: 4\n- 1 point for relevance\n- 3 points for the rest", 4),
    "bold all": (f"{REASONING}\n**Score: 4**", 4),
    "bold name": (f"{REASONING}\n**Score:** 2", 2),
    "bold number": (f"{REASONING}\nScore: **5**", 5),
    "heading": (f"### Score: 1\n{REASONING}", 1),
    "fraction": (f"{REASONING}\nScore: 4/5", 4),
    "spaced fraction": (f"{REASONING}\nScore: 4 / 5.", 4),
    "bold fraction": (f"{REASONING}\n**Score:** **4**/5", 4),
    "out of": (f"{REASONING}\nScore: 4 out of 5", 4),
    "points": (f"{REASONING}\nScore: 3 points", 3),
    "decimal": (f"{REASONING}\nScore: 3.5", 3.5),
    "decimal comma": (f"{REASONING}\nScore: 3,5", 3.5),
    "full stop": (f"{REASONING}\nScore: 3.", 3),
    "total": (f"{REASONING}\nTotal score: 3", 3),
    "final": (f"{REASONING}\nFinal Score = 0", 0),
    "scale in brackets": (f"{REASONING}\nScore (out of 5): 3", 3),
    "brackets": (f"{REASONING}\nScore: [2]", 2),
    "boxed": (rf"{REASONING} Score: \boxed{{2}}", 2),
    "placeholder filled in": (f"{REASONING}\nScore: <3>", 3),
    "next line": (f"{REASONING}\nScore:\n4", 4),
    "capitals": (f"{REASONING}\nSCORE: 4", 4),
    "quoted line": (f'{REASONING}\n"Score: 4"', 4),
    "list item": (f"- Relevance: 1\n- Score: 4\n{REASONING}", 4),
    "within a line": (f"{REASONING} Therefore Score: 4 because it helps.", 4),
    "prose": (f"{REASONING} I give it a score of 4.", 4),
    "prose is": (f"{REASONING} The final score is 2 out of 5.", 2),
    "several, last counts": ("Score: 1 at first.\nScore: 2\nOn reflection:\nScore: 3", 3),
    "last one invalid": ("Score: 3\nScore: 9", 3),
    "remark after it": ("Score: 4\nA score of 5 would need sources.", 4),
    "quoted example": ('The line "Score: 5" was asked for. So here it is. Score: 2 then.', 2),
    "code example": ("`Score: 5` would be too much, so\nScore: 1", 1),
    "windows line ends": (f"{REASONING}\r\nScore: 3\r\n", 3),
    "full-width colon": (f"{REASONING}\nScore：3", 3),
    "integral decimal": ("Score: 4.0", 4),
    "sum with its total": (f"{REASONING}\nScore: 1 + 1 + 1 = 3", 3),
    "tight sum": (f"{REASONING}\n**Score:** 1+1+0+1+1=**4**/5", 4),
    "sum within a line": (f"{REASONING} So Score: 1+1=2 in all.", 2),
}

UNREADABLE = {
    "nothing": REASONING,
    "empty": "",
    "beyond the range": "Score: 7",
    "far beyond": "Score: 45",
    "negative": "Score: -1",
    "other scale": "Score: 8/10",
    "other scale below five": "Score: 4/10",
    "other scale in words": "Score: 4 out of 10",
    "per cent": "Score: 5%",
    "range": "Score: 0-5",
    "range in words": "Score: 0 to 5",
    "placeholder": "Score: <total points from 0 to 5>",
    "word": "Score: high",
    "cut off": f"{REASONING}\nScore:",
    "only an example": 'It should end with "Score: 5" as asked.',
    "hypothetical": "A score of 5 would need sources.",
    "points on the way": "It gets 1 point for relevance and 2 points for detail.",
    "another word": "Underscore: 4 is a name.",
    "the rubric itself": BUILT_IN_RUBRICS[DEFAULT_RUBRIC],
    "digits that go on": "Score: 4.5.1.2",
    "sum without a total": "Score: 1 + 1 + 1",
    "sum beyond the range": "Score: 3 + 4 = 7",
}


@pytest.mark.parametrize("case", READABLE)
def test_readable(case: str) -> None:
    text, score = READABLE[case]
    assert parse_score(text) == score


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_is_absent(case: str) -> None:
    assert parse_score(UNREADABLE[case]) is None


TRANSLATED = {
    "得分：4": 4, "评分: 4/5": 4, "总分：4分": 4, "最终得分：4分（满分5分）": 4, "得分：４／５": 4,
    "因此得分：3，因为它很短。": 3, "「得分：4」": 4, "**得分：** 2": 2, "得分为4": 4, "スコア：4": 4,
    "総合評価：3点": 3, "得点は4です": 4, "점수: 4점": 4, "Puntuación: 4": 4, "Puntuación total: 4 de 5": 4,
    "La puntuación es 4.": 4, "Pontuação: 3,5": 3.5, "Nota: 4": 4, "Note : 4": 4, "Note\u202f: 4/5": 4,
    "Note finale : 3 sur 5": 3, "Punteggio: 2 su 5": 2, "Gesamtpunktzahl: 4": 4, "Punkte: 4 von 5 Punkten": 4,
    "Bewertung: 4/5": 4, "Оценка: 3,5": 3.5, "Итоговая оценка: 4 из 5": 4, "Оцінка: 1": 1, "النتيجة: ٤": 4,
    "النتيجة: ٤٫٥": 4.5, "\u200fالنتيجة:\u200f ٤/٥": 4, "अंक: ३": 3, "คะแนน: ๔": 4, "امتیاز: ۴": 4,
    "คะแนนรวม: 3": 3, "合計：4点": 4,
    "Puan: 4": 4, "Điểm: 4": 4, "Ocena: 2": 2, "Βαθμολογία: 5": 5, "ציון: 4": 4,
    # No scores: another scale, a range, beyond the range, a word that means something else.
    "得分：4分（满分10分）": None, "Note : 4 sur 10": None, "Puntuación: 0-5": None, "得分：0到5": None,
    "得分：7": None, "得分：<0到5的总分>": None, "Note: this covers 4 of the 5 parts.": None,
    "Please note: 4": None, "النتيجة: ٩": None, "Оценка: 0–5": None, "Note 3 explains it.": None,
}  # fmt: skip


@pytest.mark.parametrize("verdict", TRANSLATED)
def test_verdicts_in_other_languages(verdict: str) -> None:
    assert parse_score(f"...\n{verdict}\n") == TRANSLATED[verdict]


@pytest.mark.parametrize(
    ("label", "verdict", "score"),
    [
        ("Puntazioa", "Puntazioa: 4", 4),
        ("Puntazioa", "**Puntazioa:** 4/5", 4),
        ("Puntazioa", "Horregatik Puntazioa: 2 da.", 2),
        ("Total points", "Total  points : 3", 3),
        ("Puntazioa", "Score: 3", 3),
        ("Puntazioa", "Puntazioa: 4\nScore: 3", 4),
        ("Score", "Score: 4\nNote: 3", 4),
        ("", "Score: 4\nRating: 3", 4),
        ("", "Rating: 3", 3),
        ("Note", "So Note: 3, all in all.", 3),
        ("C.(x", "C.(x: 3", 3),
        ("Puntazioa", "Arrazoia: 4", None),
        ("", "Puntazioa: 4", None),
    ],
)
def test_the_label_of_the_rubric_counts(label: str, verdict: str, score: float | None) -> None:
    assert parse_score(verdict, label) == score


prose = st.text(alphabet=string.ascii_letters + " ,;\n", max_size=200).filter(
    lambda t: "score" not in t.lower() and "points" not in t.lower()
)
score_lines = st.sampled_from(
    [
        "Score: {}",
        "**Score: {}**",
        "**Score:** {}",
        "Score: {}/5",
        "Score: {} out of 5",
        "Total score: {}",
        "score={}",
    ]
)


@given(prose, prose, st.integers(0, 5), score_lines)
def test_a_score_line_is_found_wherever_it_stands(before: str, after: str, score: int, line: str) -> None:
    assert parse_score(f"{before}\n{line.format(score)}\n{after}") == score


@given(prose, st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_last_of_several_lines_counts(before: str, scores: list[int]) -> None:
    assert parse_score(before + "".join(f"\nScore: {s}" for s in scores)) == scores[-1]


@given(prose)
def test_text_without_a_score_has_none(text: str) -> None:
    assert parse_score(text) is None


@given(st.text(max_size=300))
def test_any_text_gives_nothing_or_a_score_in_range(text: str) -> None:
    score = parse_score(text)
    assert score is None or 0 <= score <= 5


@given(st.integers(6, 10**6), score_lines)
def test_beyond_the_range_is_never_a_score(number: int, line: str) -> None:
    assert parse_score(line.format(number)) is None


@given(st.text(alphabet=string.printable.replace("\n", "").replace("\r", ""), min_size=1, max_size=50))
def test_what_the_constraint_allows_can_always_be_read(text: str) -> None:
    import re

    verdict = f"{text}\nScore: 4"
    assert re.fullmatch(ScoreLine(60).regex, verdict)
    assert parse_score(verdict) == 4
