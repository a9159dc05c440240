"""ROUGE-L against everything seen, without comparing all pairs.

ROUGE-L F-measure (Lin 2004) of token sequences a and b is 2·LCS / (|a| + |b|). For it to reach t, the LCS, and so the
number of common tokens, must be at least t·|a| / (2 − t) whatever b is. So b contains at least one of the
|a| − that + 1 rarest tokens of a: only texts that share a rare token are looked at (prefix filtering, Chaudhuri et al.
2006), and of those only the ones with enough tokens in common get the exact measure.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil

_WORD = re.compile(r"[^\W_]+")


def rouge_tokens(text: str) -> list[str]:
    """Lower-case words: the tokens of the rouge-score library for English, letters of any script otherwise."""
    return _WORD.findall(text.lower())


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
        self._postings: dict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> None:
        """Remember a text."""
        tokens = rouge_tokens(text)
        for token in set(tokens):
            self._postings[token].append(len(self._texts))
        self._texts.append(tokens)

    def similar(self, text: str) -> bool:
        """Whether some text seen reaches the threshold."""
        tokens = rouge_tokens(text)
        if not tokens:
            return False
        counts = Counter(tokens)
        needed = max(1, ceil(self._threshold * len(tokens) / (2 - min(self._threshold, 1.0)) - 1e-9))
        rarest = sorted(tokens, key=lambda t: (len(self._postings.get(t, ())), t))
        looked_at: set[int] = set()
        for token in dict.fromkeys(rarest[: len(tokens) - needed + 1]):
            for number in self._postings.get(token, ()):
                if number not in looked_at:
                    looked_at.add(number)
                    if self._reaches(tokens, counts, self._texts[number]):
                        return True
        return False

    def _reaches(self, tokens: list[str], counts: Counter[str], other: list[str]) -> bool:
        needed = self._threshold * (len(tokens) + len(other)) / 2 - 1e-9
        if min(len(tokens), len(other)) < needed:
            return False
        common = 0
        left = dict(counts)
        for token in other:
            if left.get(token, 0):
                left[token] -= 1
                common += 1
        return common >= needed and lcs_length(tokens, other) >= needed
