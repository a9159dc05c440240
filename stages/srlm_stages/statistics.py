"""Statistics of a stage: sums that shards add up, and the ratios made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from srlm_contract.manifest import sum_statistics

Statistics = dict[str, float]

#: Ratio → (numerator, denominator), made again from the sums after shards are merged.
RATIOS: Mapping[str, tuple[str, str]] = {
    "parseRate": ("parsed", "verdicts"),
    "freeParseRate": ("freeParsed", "freeVerdicts"),
    "meanScore": ("scoreSum", "judged"),
    "meanLength": ("characters", "answers"),
    "meanTokens": ("answerTokens", "answers"),
    "meanDigitMass": ("digitMassSum", "digitMassRows"),
    "shadowAgreement": ("shadowSame", "shadowRows"),
    "shadowDifference": ("shadowDifferenceSum", "shadowRows"),
}


def with_ratios(sums: Mapping[str, Any]) -> dict[str, Any]:
    """`sums` and every ratio whose parts are there; a ratio over nothing is left out."""
    ratios = {
        name: sums[top] / sums[bottom] for name, (top, bottom) in RATIOS.items() if top in sums and sums.get(bottom)
    }
    return {**sums, **ratios}


def merge_shards(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of the whole from those of its shards."""
    return with_ratios(sum_statistics([{k: v for k, v in part.items() if k not in RATIOS} for part in parts]))


def figures(statistics: Mapping[str, Any]) -> Statistics:
    """The plain numbers among them: what a StageResult carries."""
    return {
        name: float(value)
        for name, value in statistics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
