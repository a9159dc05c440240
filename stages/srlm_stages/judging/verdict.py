"""Reads the score out of a verdict. What cannot be read is absent, never zero.

Three kinds of places are looked at, the surest first: a line of its own (`Score: 4`, `**Score:** 4/5`), `Score: 4`
within a line, and prose (`a score of 4`). The first kind that occurs decides; within it the last valid score counts,
since models reason first and often mention other scores on the way. Scores beyond 0 .. 5, on another scale (`8/10`),
ranges (`0-5`), sums without a total (`1 + 1`; of `1 + 1 = 2` the total counts) and quoted examples within a line are
not valid. The score's name is the one the rubric asks for (`Rubric.lead`); usual words of some languages count too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .score_words import AMBIGUOUS, BESIDE, JOINED, SPACED, UNIT, plain

MIN_SCORE, MAX_SCORE = 0.0, 5.0

_MARKS = r"[\s*_`\"'“”‘’«»„「」『』【】《》(\[<{#>|]*"
_SUM = r"(?:\d+(?:\s*\+\s*\d+)+\s*=[\s*_`]*)?"
_OUT_OF = r"(?:/|out\s+of\b|of\b|sur\b|de\b|von\b|su\b|van\b|av\b|из\b|з\b|\(?(?:满分|滿分|満点))"
_TO = r"(?:-|–|—|~|\+|=|to\b|or\b|à\b|bis\b|oder\b|до\b|至|到|から)"
_NUMBER = (
    rf"{_SUM}"
    r"(?P<sign>[-−+]?)\s?(?P<number>\d+(?:[.,]\d+)?)"
    r"(?![\d%])(?![.,]\d)(?!\s*%)"
    rf"(?![^\S\r\n]*{_TO}\s*\d)"
    rf"[\s*_`]*(?:[分点點점]?[\s*_`]*{_OUT_OF}[\s*_`]*(?P<scale>\d+(?:\.\d+)?))?"
)
_LONG_BLANK = re.compile(r"\s{4,}")
_NOTE = r"(?:\s*\([^)\n]{0,40}\))?"
_IS = r"(?:\s+(?:is|of|would be|es|de|é|est|de|ist|von|è|di|:)?\s*|\s*(?:为|為|是|は|이|는|은)\s*)"


@dataclass(frozen=True)
class _Words:
    """Where a score of some name is looked for."""

    line: re.Pattern[str]
    inline: re.Pattern[str]
    prose: re.Pattern[str]

    @classmethod
    def named(cls, word: str) -> _Words:
        """word: a pattern of the name."""
        colon = rf"{_NOTE}{_MARKS}[:=]{_MARKS}(?:\\boxed\{{)?"
        end = rf"[\s*_`\"'”’«»」』】)\]>}}|.!。]*{UNIT}?[\s*_`.!。\"'”’»」』)\]]*$"
        start = r"^[\s*_#>`\"'“„«「『【•\-]*"
        return cls(
            re.compile(rf"{start}(?:{word}){colon}{_NUMBER}{end}", re.IGNORECASE | re.MULTILINE),
            re.compile(rf"(?P<quote>[\"'“‘`«「『]?)\s?(?:{word}){colon}{_NUMBER}", re.IGNORECASE),
            re.compile(rf"(?:{word}){_IS}{_MARKS}{_NUMBER}", re.IGNORECASE),
        )

    def lines(self, text: str) -> list[re.Match[str]]:
        return list(self.line.finditer(text))

    def within(self, text: str) -> list[re.Match[str]]:
        return [match for match in self.inline.finditer(text) if not _quoted(text, match)]

    def said(self, text: str) -> list[re.Match[str]]:
        return [match for match in self.prose.finditer(text) if not _hypothetical(text, match)]


_USUAL = _Words.named(
    rf"(?<!\w)(?:{BESIDE}\s+){{0,3}}(?:{'|'.join(SPACED)})\b(?:\s+{BESIDE})?|(?:{BESIDE}\s*){{0,3}}(?:{'|'.join(JOINED)})"
)
_UNCLEAR = _Words.named(rf"(?<!\w)(?:{BESIDE}\s+){{0,3}}(?:{'|'.join(AMBIGUOUS)})\b(?:\s+{BESIDE})?")


@lru_cache(maxsize=8)
def _labelled(label: str) -> _Words:
    before = r"(?<!\w)" if label[:1].isascii() else ""
    return _Words.named(before + re.escape(label).replace(r"\ ", r"\s+"))


def parse_score(text: str, label: str = "") -> float | None:
    """The total a verdict gives, 0 .. 5, or None when none can be read.

    label: what the rubric calls the total, such as `Puntuación`; it counts before the usual words.
    """
    text = _LONG_BLANK.sub(_shortened, plain(text))
    own = _labelled(plain(label)) if label else _USUAL
    for places in (own.lines, own.within, _USUAL.lines, _USUAL.within, _UNCLEAR.lines, own.said, _USUAL.said):
        found = places(text)
        if found:
            return _last_valid(found)
    return None


def _shortened(blank: re.Match[str]) -> str:
    """A judge that has lost its way writes thousands of blanks, and patterns would try them all with each other."""
    return "\n\n" if "\n" in blank[0] else " "


def _last_valid(matches: list[re.Match[str]]) -> float | None:
    for match in reversed(matches):
        score = _value(match)
        if score is not None:
            return score
    return None


def _value(match: re.Match[str]) -> float | None:
    scale = match["scale"]
    if scale is not None and float(scale) != MAX_SCORE:
        return None
    score = float(match["number"].replace(",", "."))
    if match["sign"] in ("-", "−") and score != 0:
        return None
    return score if MIN_SCORE <= score <= MAX_SCORE else None


def _quoted(text: str, match: re.Match[str]) -> bool:
    """Whether the words `Score: x` stand in quotation marks or code: an example, not a verdict."""
    return bool(match["quote"]) and text[match.end() : match.end() + 2].lstrip(" .")[:1] in set("\"'”’`»」』")


def _hypothetical(text: str, match: re.Match[str]) -> bool:
    """`a score of 5 would need sources` says what it is not."""
    return re.match(r"\W*(?:would|could|might|needs?|requires?)\b", text[match.end() :], re.IGNORECASE) is not None
