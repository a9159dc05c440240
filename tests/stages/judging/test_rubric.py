"""The judge's task: template checks, and texts that look like placeholders."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srlm_contract.errors import BadInput
from srlm_contract.tasks import JudgeParams
from srlm_stages.engines import Completion
from srlm_stages.judging.comparing import Pairing, choice, read_choice
from srlm_stages.judging.rubric import BUILT_IN_RUBRICS, DEFAULT_RUBRIC, Rubric
from srlm_stages.judging.score_words import label_of, score_lead
from srlm_stages.judging.scoring import Judge, Tally, Task, score_line
from srlm_stages.judging.verdict import parse_score


def test_the_built_in_rubric_is_additive_and_shares_its_beginning() -> None:
    text = BUILT_IN_RUBRICS[DEFAULT_RUBRIC]
    assert text.count("Add 1 point") == 5
    one, two = (Rubric.parse(text).fill("Same question?", answer) for answer in ("First.", "Second."))
    assert one[: one.index("First.")] == two[: two.index("Second.")]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("No placeholder", r"\{question\} 0 times"),
        ("{question} only", r"\{answer\} 0 times"),
        ("{question} {answer} {answer}", r"\{answer\} 2 times"),
        ("{answer} before {question}", "before"),
    ],
)
def test_templates_that_cannot_be_used(template: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as failure:
        Rubric.parse(template)
    assert failure.value.reason == "TemplateNotUsable"


@pytest.mark.parametrize(
    ("asks", "lead"),
    [
        ("请评分。最后一行只写总分：\n得分：<0到5的总分>", "得分："),
        ("最后给出得分：<0-5>", "得分："),
        ("**得分：** [0-5]", "得分："),
        ("請給出一行「評分：」和總分。", "評分："),
        ("評点: 0-5", "評点: "),
        ("Termina con Puntuación: <0-5>", "Puntuación: "),
        ("Termina con una línea: Puntuación: [0-5]", "Puntuación: "),
        ("En la última línea de tu respuesta escribe solo esto: Puntuación: <0-5>", "Puntuación: "),
        ("Justifie en cent mots au plus, puis, sur la dernière ligne, écris note finale : <0-5>", "note finale : "),
        ('Concluye con el formato: "Puntuación: <puntos totales>"', "Puntuación: "),
        ("Termine par une ligne « Note : X/5 ».", "Note : "),
        ("Итоговая оценка: [0-5]", "Итоговая оценка: "),
        ("النتيجة: <0-5>", "النتيجة: "),
        ("คะแนน: ___", "คะแนน: "),
        ("Puntazioa: <0-5>\nArrazoia: <zergatik>", "Puntazioa: "),
        ("Endnote: <0 bis 5>", "Endnote: "),
        ("Justification: <why>\n**Score:** <0-5>", "Score: "),
        ("Score: <0-5>\nReason: <at most 10 words>", "Score: "),
        ("Rating: 0-5", "Rating: "),
        ("Verdict: <0-5>", "Verdict: "),
        ("- Relevance: 1 point\n- Depth: 2 points\nGive the total.", "Score: "),
        ("Question and answer follow.", "Score: "),
        (BUILT_IN_RUBRICS[DEFAULT_RUBRIC], "Score: "),
    ],
)
def test_the_score_line_a_template_asks_for(asks: str, lead: str) -> None:
    """The constraint allows it, and what it allows is read."""
    text = asks if "{question}" in asks else f"{asks}\n\nQuestion: {{question}}\nAnswer: {{answer}}"
    assert Rubric.parse(text).lead == lead
    if "{question}" not in asks:
        assert Rubric.parse(f"Question: {{question}}\nAnswer: {{answer}}\n\n{asks}").lead == lead
    constraint = score_line(200, lead)
    verdict = f"It helps.\n{lead}4"
    assert re.fullmatch(constraint.regex, verdict)
    assert parse_score(verdict, label_of(lead)) == 4
    assert parse_score(f"It helps. So {lead}3, since it is short.", label_of(lead)) == 3


def test_a_template_that_ends_with_its_label() -> None:
    assert Rubric.parse("{question}\n{answer}\nOcjena:").lead == "Ocjena: "


@given(st.text(max_size=200))
def test_any_template_has_a_score_line_that_can_be_read(text: str) -> None:
    lead = score_lead(text)
    assert re.fullmatch(score_line(400, lead).regex, f"x\n{lead}2")
    assert parse_score(f"x\n{lead}2", label_of(lead)) == 2


def test_the_score_line_has_its_room() -> None:
    assert score_line(100, "Score: ").max_characters == 100 - 14
    assert score_line(100, "النتيجة: ").max_characters < 100 - 14
    assert score_line(10, "النتيجة: ").max_characters == 1
    assert score_line(114, "Score: ", 2.5).max_characters == 40
    assert score_line(114, "Score: ", 0.25).max_characters == 100


class Judging:
    """Answers tasks with given verdicts."""

    def __init__(self, *verdicts: str) -> None:
        self.verdicts = list(verdicts)

    def ask(self, asks: Any, on_progress: Any) -> list[Completion | None]:
        return [Completion(self.verdicts.pop(0), 3, truncated=False) for _ in asks]


def test_verdicts_are_read_by_the_label_of_the_template() -> None:
    tally = Tally()
    external: Any = Judging("Ona da.\nPuntazioa: 4", "Puntazioa: 2", "Bikaina!")
    params = JudgeParams(samples=3, min_valid_samples=2, max_reasks=0)
    judge = Judge(params, "Puntazioa: ", seed=lambda purpose, row, sample: sample, external=external)
    (score,) = judge.score("Sampled", [Task("1", "Epaitu.")], tally, None)
    assert [verdict.score for verdict in score.verdicts] == [4, 2, None]
    assert (score.score, tally.parsed, tally.asked) == (3, 2, 3)


@given(st.text(), st.text())
def test_texts_are_put_in_word_for_word(question: str, answer: str) -> None:
    rubric = Rubric.parse("Rules {with braces}\n{question}\n{answer}\nEnd")
    assert rubric.fill(question, answer) == f"Rules {{with braces}}\n{question}\n{answer}\nEnd"


def test_comparisons_keep_braces_and_swap_the_answers() -> None:
    first, second = Pairing("M1", "1", "{a} or {b}?", "mine {b}", "theirs").questions()
    assert "{a} or {b}?" in first
    assert first.index("mine {b}") < first.index("theirs")
    assert second.index("theirs") < second.index("mine {b}")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("A", "A"),
        ("The better answer is: B", "B"),
        ("Answer A and answer B are close. The better answer is: A.", "A"),
        ("The better answer is Answer B because A is long.", "B"),
        ("**The better answer is:** B, not A", "B"),
        ("**B**", "B"),
        ("Both A and B", None),
        ("neither", None),
    ],
)
def test_choices_in_words(reply: str, letter: str | None) -> None:
    assert read_choice(reply) == letter


def test_choices_by_probability() -> None:
    assert choice(0.6, 0.3) == "A"
    assert choice(0.1, 0.3) == "B"
    assert choice(0.01, 0.02) is None
    assert choice(0.4, 0.4) is None
