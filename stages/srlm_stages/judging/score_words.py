"""What verdicts call a score: the label that a rubric asks for, and the usual words of some languages beside it."""

from __future__ import annotations

import re
import unicodedata

#: What a score line begins with unless the rubric says otherwise.
SCORE_LEAD = "Score: "
#: Words between which a blank or a line end stands, and that mean nothing but a score.
SPACED = (
    "score", "points", "puntuación", "puntaje", "calificación", "pontuação", "punteggio", "(?:gesamt|end)?punktzahl",
    "punctaj", "pontszám", "điểm số", "điểm", "puan", "skor", "skóre", "poäng", "poeng", "pisteet", "бал+[иы]?",
    "оценка", "оцінка", "оценката", "βαθμολογία", "βαθμός", "النتيجة", "الدرجة", "التقييم", "النقاط", "امتیاز", "نمره",
    "ציון", "ניקוד", "स्कोर", "अंक", "স্কোর",
)  # fmt: skip
#: Words of scripts, or languages, in which others may stand right before them.
JOINED = (
    "得分", "评分", "評分", "总分", "總分", "分数", "分數", "スコア", "得点", "点数", "評点", "採点", "合計点", "合計",
    "評価", "점수", "총점", "평점", "คะแนนรวม", "คะแนน", "ຄະແນນ", "ពិន្ទុ", "ရမှတ်",
)  # fmt: skip
#: Words that mean other things too: a score only on a line of their own.
AMBIGUOUS = (
    "rating", "grade", "note", "nota", "voto", "bewertung", "punkte", "punten", "beoordeling", "cijfer", "ocena",
    "wynik", "punkty", "hodnocení", "nilai", "betyg", "karakter", "arvosana", "puntos", "pontos", "punti", "notă",
    "osztályzat",
)  # fmt: skip
#: What may stand beside the word: the total, the final score.
BESIDE = (
    r"(?:total[ea]?|final[ea]?|overall|my|the|global[e]?|general|gesamt|итогов\w+|общ\w+|загальн\w+|підсумков\w+|toplam"
    r"|son|tổng|cuối cùng|akhir|łączn\w+|końcow\w+|celkov\w+|النهائية|الإجمالية|الكلية|نهایی|कुल|अंतिम|최종|총|最终|最終"
    r"|总|總|総合|รวม)"
)
UNIT = (
    r"(?:points?|stars?|puntos?|pontos?|punti|punto|punkte?n?|punten|балл\w*|бал\w*|очк\w*|puan|điểm|poäng|poeng|pkt"
    r"|نقاط|نقطة|अंक|คะแนน|分|点|點|점)"
)
_ANY = re.compile("|".join((*SPACED, *JOINED, *AMBIGUOUS)), re.IGNORECASE)
_QUOTES = "\"'“”„‘’`«»‹›「」『』"
_OPEN = rf"(?:^[\s*_#>\-•·]*|[{_QUOTES}][\s*_]*)"
_LABEL = r"(?P<label>[^\W\d_][^\n:：=<>\[\]{}()（）【】.,;!?，。；！？、" + _QUOTES + r"*]{0,39}?)"
_COLON = r"[*_]*(?P<colon>\s?[:：])[*_]*"
_BRACKETS = r"<[^>\n]*>|\[[^\]\n]*\]|\{[^}\n]*\}|\([^)\n]*\)|（[^）\n]*）|【[^】\n]*】"
_BLANK = rf"\s*[*_]*(?:{_BRACKETS}|_+|\.{{3}}|…|[XxNn](?![^\W_])|[?#])"
#: A label before a place to fill in, in quotation marks of its own, at the end of the rubric, or before a number.
_BEFORE_BLANK = re.compile(rf"{_OPEN}{_LABEL}{_COLON}(?P<blank>{_BLANK})", re.MULTILINE)
_QUOTED = re.compile(rf"[{_QUOTES}][\s*_]*{_LABEL}{_COLON}\s*[{_QUOTES}]", re.MULTILINE)
_AT_END = re.compile(rf"{_OPEN}{_LABEL}{_COLON}\s*\Z", re.MULTILINE)
_BEFORE_NUMBER = re.compile(rf"{_OPEN}{_LABEL}{_COLON}\s*\d", re.MULTILINE)
#: A label with a known word anywhere in a sentence.
_IN_SENTENCE = re.compile(rf"(?<![A-Za-z]){_LABEL}{_COLON}(?P<blank>{_BLANK})", re.MULTILINE)
#: Most words of a label that no known word is in: more is a sentence.
MAX_LABEL_WORDS = 3

#: Full-width ASCII, Arabic signs, and the several signs for a fraction and a minus.
_PLAIN: dict[int, int | str] = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_PLAIN |= {ord("٫"): ".", ord("٪"): "%", ord("⁄"): "/", ord("∕"): "/", ord("−"): "-"}


def plain(text: str) -> str:
    """`text` with ASCII digits, colons, slashes and the like for those of other scripts, without invisible marks."""
    if text.isascii():
        return text
    kept = (c for c in unicodedata.normalize("NFC", text).translate(_PLAIN) if unicodedata.category(c) != "Cf")
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in kept)


def score_lead(rubric: str) -> str:
    """What the score line begins with that a rubric asks for, such as `Score: ` or `得分：`.

    It is the label before a place to fill in (`Puntuación: <0-5>`), a label in quotation marks (`"Note : "`), or one at
    the rubric's end. A label with a known word is preferred, then a place with digits, then the last.

    >>> score_lead("Termine par une ligne « Note : X ».")
    'Note : '
    """
    found: list[tuple[bool, bool, int, str]] = []
    for pattern in (_BEFORE_BLANK, _QUOTED, _AT_END, _BEFORE_NUMBER, _IN_SENTENCE):
        for match in pattern.finditer(rubric):
            label = " ".join(match["label"].split())
            known = list(_ANY.finditer(label))
            if known:
                label = label[_beginning(label, known[-1].start()) :]
            elif pattern in (_BEFORE_NUMBER, _IN_SENTENCE) or len(label.split()) > MAX_LABEL_WORDS:
                continue
            blank = match.groupdict().get("blank") or ""
            if blank.strip("*_ ") in ("{question}", "{answer}"):
                continue
            colon = match["colon"].replace("\n", " ")
            lead = label + colon + ("" if colon.endswith("：") else " ")
            clear = pattern is _QUOTED or any(map(str.isdecimal, blank))
            found.append((bool(known), clear, match.start(), lead))
    return max(found)[3] if found else SCORE_LEAD


def label_of(lead: str) -> str:
    """The label of a score line without its colon."""
    return lead.rstrip(" :：")


def _beginning(label: str, word: int) -> int:
    """Where a label begins whose known word begins at `word`: with what may stand beside it, not with a sentence."""
    beside = re.compile(rf"(?:{BESIDE}\s*)*$", re.IGNORECASE)
    match = beside.search(label[:word])
    start = word if match is None else match.start()
    return start if start == 0 or not label[start - 1].isalpha() or not label[start].isascii() else 0
