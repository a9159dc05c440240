"""From judgements to preference pairs or positives: pure, every dropped row counted by cause.

Best against worst by mean score (Self-Rewarding Language Models section 2.3). With a length penalty rho, the
chosen answer is the shortest with score >= S_max - rho (S_max - S_min) and the rejected one the longest with
score <= S_min + rho (S_max - S_min); overlapping bands give no pair. At rho 0, ties in score are broken by the
lower variance of the judge samples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from srlm_contract.rows import Judgement, Positive, PreferencePair

#: Scores closer than this are equal: means of a few small integers carry float noise.
EPSILON = 1e-9


def usable(rows: Iterable[Judgement], truncated: str, counts: Counter[str]) -> dict[str, list[Judgement]]:
    """Rows that may be trained on, by prompt id; counts the others."""
    prompts: dict[str, list[Judgement]] = defaultdict(list)
    for row in rows:
        counts["rows"] += 1
        prompts.setdefault(row.prompt_id, [])
        if row.score is None:
            counts["droppedUnjudged"] += 1
        elif row.truncated and truncated == "Drop":
            counts["droppedTruncated"] += 1
        elif not row.answer.strip():
            counts["droppedEmpty"] += 1
        else:
            prompts[row.prompt_id].append(row)
    counts["prompts"] = len(prompts)
    return prompts


def preference_pairs(
    rows: Iterable[Judgement], *, min_margin: float, length_penalty: float, truncated: str
) -> tuple[list[PreferencePair], Counter[str]]:
    """One pair a prompt at most, in order of prompt id, with counts of what was dropped and why."""
    counts: Counter[str] = Counter()
    pairs: list[PreferencePair] = []
    for prompt_id, candidates in sorted(usable(rows, truncated, counts).items()):
        if len(candidates) < 2:
            counts["droppedTooFewAnswers"] += 1
            continue
        counts["comparable"] += 1
        scores = [_score(c) for c in candidates]
        top, bottom = max(scores), min(scores)
        if top - bottom <= EPSILON:
            counts["ties"] += 1
        elif top - bottom <= min_margin + EPSILON:
            counts["droppedMargin"] += 1
        else:
            pair = _pair(prompt_id, candidates, top, bottom, length_penalty)
            if pair is None:
                counts["droppedBandsOverlap"] += 1
            elif pair.chosen.strip() == pair.rejected.strip():
                counts["droppedEqualText"] += 1
            else:
                pairs.append(pair)
    counts["pairs"] = len(pairs)
    return pairs, counts


def _pair(prompt_id: str, candidates: list[Judgement], top: float, bottom: float, rho: float) -> PreferencePair | None:
    band = rho * (top - bottom)
    if top - band <= bottom + band + EPSILON:
        return None
    if rho > 0:
        good = [c for c in candidates if _score(c) >= top - band - EPSILON]
        bad = [c for c in candidates if _score(c) <= bottom + band + EPSILON]
        chosen = min(good, key=lambda c: (_length(c), c.id))
        rejected = min(bad, key=lambda c: (-_length(c), c.id))
    else:
        chosen = min(candidates, key=lambda c: (-_score(c), c.variance or 0.0, c.id))
        rejected = min(candidates, key=lambda c: (_score(c), c.variance or 0.0, c.id))
    return PreferencePair(
        id=prompt_id,
        prompt=chosen.prompt,
        chosen=chosen.answer,
        rejected=rejected.answer,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        chosen_score=_score(chosen),
        rejected_score=_score(rejected),
        chosen_tokens=chosen.tokens or 0,
        rejected_tokens=rejected.tokens or 0,
    )


def positives(rows: Iterable[Judgement], *, min_score: float, truncated: str) -> tuple[list[Positive], Counter[str]]:
    """Every distinct answer of at least `min_score`, in order of prompt and answer id."""
    counts: Counter[str] = Counter()
    found: list[Positive] = []
    for prompt_id, candidates in sorted(usable(rows, truncated, counts).items()):
        texts: set[str] = set()
        for row in sorted(candidates, key=lambda c: c.id):
            if _score(row) < min_score - EPSILON:
                counts["droppedScore"] += 1
            elif row.answer in texts:
                counts["droppedEqualText"] += 1
            else:
                texts.add(row.answer)
                found.append(Positive(id=prompt_id, prompt=row.prompt, answer=row.answer, score=row.score))
    counts["pairs"] = len(found)
    return found, counts


def _score(row: Judgement) -> float:
    assert row.score is not None  # `usable` left out the others
    return row.score


def _length(row: Judgement) -> int:
    """Tokens where they were counted, else characters."""
    return row.tokens if row.tokens is not None else len(row.answer)
