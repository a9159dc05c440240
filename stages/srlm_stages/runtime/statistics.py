"""Statistics of a stage: sums that shards add up, and the ratios made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log2, sqrt
from typing import Any

from srlm_contract.artifacts.manifest import sum_statistics

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
    "lengthCorrelation": ("lengthCorrelationSum", "lengthCorrelationPrompts"),
}
#: Correlation → the moments it is made from.
CORRELATIONS: Mapping[str, str] = {"shadowCorrelation": "shadowMoments"}
#: Entropy → the histogram it is made from.
ENTROPIES: Mapping[str, str] = {"scoreEntropy": "scores"}
_DERIVED = frozenset({*RATIOS, *CORRELATIONS, *ENTROPIES})


def with_ratios(sums: Mapping[str, Any]) -> dict[str, Any]:
    """`sums` and every ratio, correlation and entropy whose parts are there; what is not defined is left out."""
    derived: dict[str, float | None] = {
        name: sums[top] / sums[bottom] for name, (top, bottom) in RATIOS.items() if top in sums and sums.get(bottom)
    }
    derived |= {name: correlation(sums[parts]) for name, parts in CORRELATIONS.items() if parts in sums}
    derived |= {name: entropy(sums[parts]) for name, parts in ENTROPIES.items() if sums.get(parts)}
    return {**sums, **{name: value for name, value in derived.items() if value is not None}}


def moments(pairs: Iterable[tuple[float, float]]) -> dict[str, float]:
    """Number and sums of (x, y), from which shards together make a correlation."""
    rows = list(pairs)
    return {
        "n": len(rows),
        "x": sum(x for x, _ in rows),
        "y": sum(y for _, y in rows),
        "xx": sum(x * x for x, _ in rows),
        "yy": sum(y * y for _, y in rows),
        "xy": sum(x * y for x, y in rows),
    }


def correlation(m: Mapping[str, float]) -> float | None:
    """Pearson's r from `moments`; None when either side is constant."""
    spread_x, spread_y = m["n"] * m["xx"] - m["x"] ** 2, m["n"] * m["yy"] - m["y"] ** 2
    # Rounding leaves a little spread in constant values.
    if spread_x <= 1e-9 * m["n"] * m["xx"] or spread_y <= 1e-9 * m["n"] * m["yy"]:
        return None
    return max(-1.0, min(1.0, (m["n"] * m["xy"] - m["x"] * m["y"]) / sqrt(spread_x * spread_y)))


def entropy(histogram: Mapping[str, float]) -> float:
    """Shannon entropy in bits: 0 when all is one value, log2(6) = 2.58 when scores 0 to 5 are equally frequent."""
    total = sum(histogram.values())
    return -sum(n / total * log2(n / total) for n in histogram.values() if n) + 0.0


def merge_shards(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of the whole from those of its shards."""
    return with_ratios(sum_statistics([{k: v for k, v in part.items() if k not in _DERIVED} for part in parts]))


def figures(statistics: Mapping[str, Any]) -> Statistics:
    """The plain numbers among them: what a StageResult carries."""
    return {
        name: float(value)
        for name, value in statistics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
