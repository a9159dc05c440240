"""Which new prompts are accepted, and why the others are not (Self-Instruct, Wang et al. 2023)."""

from __future__ import annotations

import re
import unicodedata

from srlm_contract.spec import PromptFiltersSpec

from .similarity import SimilarityIndex, rouge_tokens

#: Share of letters that must belong to the script of the language.
MIN_SCRIPT_SHARE = 0.9
#: First word of the Unicode name of the letters of languages that are not written in Latin script.
SCRIPTS = {
    "ru": ("CYRILLIC",), "uk": ("CYRILLIC",), "bg": ("CYRILLIC",), "el": ("GREEK",), "ar": ("ARABIC",),
    "fa": ("ARABIC",), "he": ("HEBREW",), "hi": ("DEVANAGARI",), "th": ("THAI",), "ko": ("HANGUL",),
    "zh": ("CJK",), "ja": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
}  # fmt: skip
#: From this many words on, an English prompt has at least one of these.
ENGLISH_FROM_WORDS = 6
ENGLISH = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "describe",
        "do",
        "does",
        "explain",
        "find",
        "for",
        "from",
        "give",
        "have",
        "how",
        "i",
        "if",
        "in",
        "is",
        "it",
        "list",
        "make",
        "me",
        "my",
        "name",
        "of",
        "on",
        "or",
        "please",
        "should",
        "some",
        "that",
        "the",
        "their",
        "there",
        "these",
        "this",
        "to",
        "was",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "write",
        "you",
        "your",
    ]
)

_NUMBERING = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*")


def cleaned(text: str) -> str:
    """A prompt without list numbers, quotation marks around it and blanks at its ends."""
    text = _NUMBERING.sub("", text.strip()).strip()
    for left, right in (('"', '"'), ("“", "”"), ("'", "'")):
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
        words = "|".join(re.escape(word) for word in filters.banned_keywords)
        self._banned = re.compile(rf"\b(?:{words})s?\b", re.IGNORECASE) if words else None

    def remember(self, prompt: str) -> None:
        """A prompt that new ones must not repeat."""
        self._exact.add(_normal(prompt))
        if self._index is not None:
            self._index.add(prompt)

    def refusal(self, prompt: str) -> str | None:
        """Why `prompt` (cleaned) is not accepted, as a counter's name, or None; the cheapest tests come first."""
        if not any(c.isalpha() for c in prompt):
            return "droppedEmpty"
        if not self._filters.min_words <= len(prompt.split()) <= self._filters.max_words:
            return "droppedLength"
        if self._banned is not None and self._banned.search(prompt):
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
    letters = [c for c in text if c.isalpha()]
    scripts = SCRIPTS.get(language.split("-")[0].lower(), ("LATIN",))
    fitting = sum(unicodedata.name(c, "?").split(" ")[0] in scripts for c in letters)
    if not letters or fitting / len(letters) < MIN_SCRIPT_SHARE:
        return False
    words = rouge_tokens(text)
    return not language.startswith("en") or len(words) < ENGLISH_FROM_WORDS or not ENGLISH.isdisjoint(words)


def _normal(prompt: str) -> str:
    return " ".join(rouge_tokens(prompt)) or prompt.strip()
