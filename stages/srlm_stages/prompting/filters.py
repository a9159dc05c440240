"""Which new prompts are accepted, and why the others are not (Self-Instruct, Wang et al. 2023)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import regex

from srlm_contract.spec.loop import PromptFiltersSpec

from ..seed.languages import SPACED_CHARACTER, in_script, primary_language, word_count
from .similarity import SimilarityIndex, rouge_tokens

#: From this many words on, an English prompt has at least one of these.
ENGLISH_FROM_WORDS = 6
ENGLISH = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "describe", "do", "does", "explain", "find", "for",
    "from", "give", "have", "how", "i", "if", "in", "is", "it", "list", "make", "me", "my", "name", "of", "on",
    "or", "please", "should", "some", "that", "the", "their", "there", "these", "this", "to", "was", "what", "when",
    "where", "which", "who", "why", "will", "with", "would", "write", "you", "your",
})  # fmt: skip

_NUMBERING = re.compile(r"^\s*(?:[(（]?\d+\s*[.):．）：、]|[-*•・])\s*")
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("„", "“"), ("«", "»"), ("「", "」"), ("『", "』"))


def cleaned(text: str) -> str:
    """A prompt without list numbers, quotation marks around it and blanks at its ends."""
    text = _NUMBERING.sub("", text.strip()).strip()
    for left, right in _QUOTES:
        if len(text) > 1 and text[0] == left and text[-1] == right and left not in text[1:-1]:
            text = text[1:-1].strip()
    return text


class PromptFilter:
    """Accepts prompts one by one against everything seen before."""

    def __init__(self, filters: PromptFiltersSpec, language: str) -> None:
        self._filters, self._language = filters, language
        self._exact: set[str] = set()
        # Refused is what is above maxRougeL, so the index looks for a little more than that.
        self._index = SimilarityIndex(filters.max_rouge_l + 1e-6) if filters.max_rouge_l < 1 else None
        self._banned = keyword_pattern(filters.banned_keywords) if filters.banned_keywords else None

    def remember(self, prompt: str) -> None:
        """A prompt that new ones must not repeat."""
        self._exact.add(_normal(prompt))
        if self._index is not None:
            self._index.add(prompt)

    def refusal(self, prompt: str) -> str | None:
        """Why `prompt` (cleaned) is not accepted, as a counter's name, or None; the cheapest tests come first."""
        if not any(c.isalpha() for c in prompt):
            return "droppedEmpty"
        if not self._filters.min_words <= word_count(prompt) <= self._filters.max_words:
            return "droppedLength"
        if self._banned is not None and self._banned.search(_folded(prompt)):
            return "droppedKeyword"
        if not in_language(prompt, self._language):
            return "droppedLanguage"
        if _normal(prompt) in self._exact:
            return "droppedDuplicate"
        if self._index is not None and self._index.similar(prompt):
            return "droppedSimilar"
        return None


def in_language(text: str, language: str) -> bool:
    """A cheap guess: letters of the language's script, and for English a common word in longer texts."""
    if not in_script(text, language):
        return False
    words = rouge_tokens(text)
    english = primary_language(language) == "en"
    return not english or len(words) < ENGLISH_FROM_WORDS or not ENGLISH.isdisjoint(words)


def keyword_pattern(keywords: Iterable[str]) -> regex.Pattern[str]:
    """Finds keywords in texts made alike by `_folded`: as whole words, also with a plural s.

    Letters of scripts without blanks between words are no word's end, and Korean joins particles to words.
    """
    return regex.compile("(?V1)" + "|".join(map(_keyword, keywords)))


def _keyword(keyword: str) -> str:
    word = _folded(keyword.strip())
    spaced = [regex.match(rf"(?V1){SPACED_CHARACTER}", c) is not None for c in (word[:1], word[-1:])]
    plural = "s?" if regex.match(r"\p{scx=Latn}", word[-1:]) else ""
    before = rf"(?<!{SPACED_CHARACTER})" if spaced[0] else ""
    after = rf"(?!{SPACED_CHARACTER})" if spaced[1] and not regex.match(r"\p{scx=Hang}", word[-1:]) else ""
    return f"{before}{regex.escape(word)}{plural}{after}"


def _folded(text: str) -> str:
    """A text as it is compared: full-width and composed letters alike, upper and lower case alike."""
    return unicodedata.normalize("NFKC", text).casefold()


def _normal(prompt: str) -> str:
    return " ".join(rouge_tokens(prompt)) or prompt.strip()
