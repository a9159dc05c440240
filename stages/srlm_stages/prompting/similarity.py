"""ROUGE-L against everything seen, without comparing all pairs.

ROUGE-L F-measure (Lin 2004) of token sequences a and b is 2·LCS / (|a| + |b|). For it to reach t, they must have at
least t·(|a| + |b|) / 2 tokens in common, in whatever order. How many a new text has in common with each text seen is
counted for all of them at once, from lists of the texts that have a token; the few with enough get the exact measure.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ..seed.languages import tokens


def rouge_tokens(text: str) -> list[str]:
    """Lower-case words: the tokens of the rouge-score library for English, words or letters of any script otherwise."""
    return tokens(text)


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004)."""
    places: dict[str, int] = defaultdict(int)
    for i, token in enumerate(a):
        places[token] |= 1 << i
    row = ones = (1 << len(a)) - 1
    for token in b:
        hit = row & places.get(token, 0)
        row = ((row + hit) | (row - hit)) & ones
    return len(a) - row.bit_count()


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """F-measure of two token lists, 0 .. 1; 0 when one is empty."""
    return 2 * lcs_length(a, b) / (len(a) + len(b)) if a and b else 0.0


class SimilarityIndex:
    """Texts seen so far; finds one whose ROUGE-L with a new text is at least `threshold`."""

    def __init__(self, threshold: float) -> None:
        """threshold: above 0; at 1 or more only equal token sequences count."""
        self._threshold = threshold
        self._texts: list[list[str]] = []
        self._lengths = array("i")
        self._postings: dict[tuple[str, int], array[int]] = {}
        """Numbers of the texts with a token for the first, second, ... time: shared entries are common tokens."""
        self.compared = 0
        """Texts that got the exact measure so far."""

    def add(self, text: str) -> None:
        """Remember a text."""
        tokens = rouge_tokens(text)
        for entry in _numbered(tokens):
            self._postings.setdefault(entry, array("i")).append(len(self._texts))
        self._texts.append(tokens)
        self._lengths.append(len(tokens))

    def similar(self, text: str) -> bool:
        """Whether some text seen reaches the threshold."""
        tokens = rouge_tokens(text)
        return any(self._reaches(tokens, self._texts[number]) for number in self._likely(tokens))

    def _likely(self, tokens: Sequence[str]) -> list[int]:
        """Numbers of the texts that have enough tokens in common, whatever their order."""
        found = [self._postings[entry] for entry in _numbered(tokens) if entry in self._postings]
        if not found:
            return []
        common = np.bincount(np.concatenate([np.frombuffer(numbers, np.intc) for numbers in found]))
        lengths = np.frombuffer(self._lengths, np.intc)[: len(common)]
        needed = self._threshold * (len(tokens) + lengths) / 2 - 1e-6
        likely: list[int] = np.flatnonzero(common >= needed).tolist()
        return likely

    def _reaches(self, tokens: list[str], other: list[str]) -> bool:
        self.compared += 1
        return rouge_l(tokens, other) >= self._threshold - 1e-9


def _numbered(tokens: Sequence[str]) -> list[tuple[str, int]]:
    """Each token with the number of times it has occurred before."""
    seen: Counter[str] = Counter()
    entries = []
    for token in tokens:
        entries.append((token, seen[token]))
        seen[token] += 1
    return entries
