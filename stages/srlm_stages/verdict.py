"""Reads the score out of a verdict. What cannot be read is absent, never zero.

Three kinds of places are looked at, the surest first: a line of its own (`Score: 4`, `**Score:** 4/5`), `Score: 4`
within a line, and prose (`a score of 4`). The first kind that occurs decides; within it the last valid score counts,
since models reason first and often mention other scores on the way. Scores beyond 0 .. 5, on another scale (`8/10`),
ranges (`0-5`), sums without a total (`1 + 1`; of `1 + 1 = 2` the total counts) and quoted examples within a line are
not valid.
"""

from __future__ import annotations

import re

MIN_SCORE, MAX_SCORE = 0.0, 5.0

_MARKS = r"[\s*_`\"'“”‘’(\[<{#>|]*"
_SUM = r"(?:\d+(?:\s*\+\s*\d+)+\s*=[\s*_`]*)?"
_NUMBER = (
    rf"{_SUM}"
    r"(?P<sign>[-−+]?)\s?(?P<number>\d+(?:[.,]\d+)?)"
    r"(?![\d%])(?![.,]\d)(?!\s*%)"
    r"(?![^\S\r\n]*(?:-|–|—|\+|=|to\b|or\b)\s*\d)"
    r"[\s*_`]*(?:(?:/|out\s+of\b|of\b)[\s*_`]*(?P<scale>\d+(?:\.\d+)?))?"
)
_WORD = r"(?:(?:total|final|overall|my|the)\s+)*(?:score|points)\b"
_NOTE = r"(?:\s*\([^)\n]{0,40}\))?"
_COLON = rf"{_WORD}{_NOTE}{_MARKS}[:=：]{_MARKS}(?:\\boxed\{{)?"

_LINE = re.compile(
    rf"^[\s*_#>`\"'“•\-]*{_COLON}{_NUMBER}[\s*_`\"'”’)\]>}}|.!]*(?:points?|stars?)?[\s*_`.!]*$",
    re.IGNORECASE | re.MULTILINE,
)
_INLINE = re.compile(rf"(?P<quote>[\"'“‘`]?)\b{_COLON}{_NUMBER}", re.IGNORECASE)
_PROSE = re.compile(rf"\b{_WORD}\s+(?:is|of|would be|:)?\s*{_MARKS}{_NUMBER}", re.IGNORECASE)


def parse_score(text: str) -> float | None:
    """The total a verdict gives, 0 .. 5, or None when none can be read."""
    lines = list(_LINE.finditer(text))
    if lines:
        return _last_valid(lines)
    inline = [match for match in _INLINE.finditer(text) if not _quoted(text, match)]
    if inline:
        return _last_valid(inline)
    return _last_valid([match for match in _PROSE.finditer(text) if not _hypothetical(text, match)])


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
    return bool(match["quote"]) and text[match.end() : match.end() + 2].lstrip(" .")[:1] in set("\"'”’`")


def _hypothetical(text: str, match: re.Match[str]) -> bool:
    """`a score of 5 would need sources` says what it is not."""
    return re.match(r"\W*(?:would|could|might|needs?|requires?)\b", text[match.end() :], re.IGNORECASE) is not None
