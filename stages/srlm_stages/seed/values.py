"""Values of seed data as files give them: texts in parts, numbers and truth values that went through pandas or Arrow.

A column with nulls comes back from pandas and Arrow as floats, with NaN or null for what was absent: `rank` 0 as 0.0,
`deleted` false as 0.0. A text may be a list of parts or an object around it. None of them may become text by `str()`.
"""

from __future__ import annotations

import json
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

#: Spellings of "absent" that `str()` of a null leaves behind.
NULL_WORDS = frozenset({"", "nan", "none", "null", "<na>", "nat"})
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
#: Parts that are no part of what was said.
THOUGHT_PARTS = frozenset({"thinking", "redacted_thinking", "reasoning"})
#: Names of the text in a part, a message or an answer.
TEXT_FIELDS = ("text", "content", "value", "answer", "response")


class Dropped(Exception):
    """A row or an answer cannot be used; `cause` is the name it is counted under."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def absent(value: Any) -> bool:
    """Null, or the NaN that stands for it."""
    return value is None or (isinstance(value, float) and isnan(value))


def identity(value: Any) -> str | None:
    """An id, or None when there is none: empty, null, NaN, or a spelling of these. 7 and 7.0 are the same id."""
    if absent(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    return None if text.lower() in NULL_WORDS else text


def number(value: Any) -> float | None:
    """A finite number, also when it is spelled as text; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if isfinite(found) else None


def flag(value: Any) -> bool | None:
    """True or false, also as 0/1, 0.0/1.0 or a word; None when absent."""
    if isinstance(value, str):
        word = value.strip().lower()
        return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(word)
    return None if absent(value) else bool(value)


def listed(value: Any) -> list[Any] | None:
    """The elements of a list, however a table stores one; None for what is no list.

    Columns hold lists of objects as JSON text, as an object of equally long lists (Arrow's form of a sequence of
    objects), or as lists of pairs (maps).

    >>> listed('[{"role": "user"}]') == listed({"role": ["user"]}) == listed([[("role", "user")]]) == [{"role": "user"}]
    True
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict):
        columns = list(value.values())
        if not columns or not all(isinstance(column, (list, tuple)) for column in columns):
            return None
        if len({len(column) for column in columns}) > 1:
            return None
        value = [dict(zip(value, items, strict=True)) for items in zip(*columns, strict=True)]
    if not isinstance(value, (list, tuple)):
        return None
    return [dict(item) if _is_map(item) else item for item in value]


def _is_map(value: Any) -> bool:
    """Whether these are Arrow's pairs of a map; JSON has no tuples."""
    return isinstance(value, list) and bool(value) and all(isinstance(p, tuple) and len(p) == 2 for p in value)


def rank_of(value: Any) -> int | None:
    """A human rank, 0 the best; None when there is none. Raises Dropped `invalidRank` for what is no rank."""
    if absent(value) or (isinstance(value, str) and value.strip().lower() in NULL_WORDS):
        return None
    found = number(value)
    if found is None or found < 0 or not found.is_integer():
        raise Dropped("invalidRank")
    return int(found)


def ranks_by_score(scores: list[float | None]) -> list[int | None]:
    """Ranks of answers by their scores, the highest 0; equal scores share a rank, without a score there is none.

    >>> ranks_by_score([3.0, 4.5, None, 4.5, 1.0])
    [1, 0, None, 0, 2]
    """
    order = sorted({score for score in scores if score is not None}, reverse=True)
    return [None if score is None else order.index(score) for score in scores]


def content_text(value: Any) -> str:
    """The text of a message's content, without blanks at its ends; parts are joined by line ends.

    Raises Dropped: `empty`; `notText` for images, numbers and other things that are no text; `invalidUnicode` for half
    of a surrogate pair, which no tokenizer can read.

    >>> content_text([{"type": "text", "text": "What is this?"}, {"type": "text", "text": "In a word."}])
    'What is this?\\nIn a word.'
    """
    try:
        text = _joined(value).strip()
    except RecursionError as error:
        raise Dropped("notText") from error
    if not text:
        raise Dropped("empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Dropped("invalidUnicode") from error
    return text


def _joined(value: Any) -> str:
    if absent(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "\n".join(text for text in map(_joined, value) if text)
    if isinstance(value, dict):
        return _part(value)
    raise Dropped("notText")


def _part(part: dict[str, Any]) -> str:
    """A part of a text, a message or an answer with a text in it."""
    kind = part.get("type")
    if isinstance(kind, str) and kind in THOUGHT_PARTS:
        return ""
    of_text = absent(kind) or (isinstance(kind, str) and kind in TEXT_PARTS) or isinstance(part.get("role"), str)
    if not of_text:
        raise Dropped("notText")
    for name in TEXT_FIELDS:
        if name in part and not absent(part[name]):
            return _joined(part[name])
    if any(name in part for name in TEXT_FIELDS):
        return ""
    raise Dropped("notText")
