"""The termination message: a `StageResult` as JSON, never longer than what the kubelet keeps of it.

A message cut by the kubelet is no JSON, and its stage has answered nothing. So it is made to fit here, least needed
parts first: warnings, the end of an error's message, digits of figures beyond the seventh, figures, committed
artifacts (preflight is asked again for those), the address of the manifest. What the operator cannot do without is
never cut: where that alone is too long, the stage fails and says why.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path

from srlm_contract.figures import by_need
from srlm_contract.tasks import MAX_RESULT_BYTES, StageError, StageResult

#: Room for the note about what was left out.
_NOTE_BYTES = 192
_MOST_ERRORS = 2**53
_MAX_REASON = 128


def write_result(result: StageResult, environ: Mapping[str, str]) -> StageResult:
    """Write the termination message. Returns what was written: an error instead of a result that cannot fit."""
    written = fitted(result)
    path = environ.get("SRLM_TERMINATION_LOG")
    if path:
        Path(path).write_bytes(encoded(written))
    return written


def encoded(result: StageResult) -> bytes:
    """`result` as JSON. Half characters, which file names and other people's texts may bring, become `?`."""
    text = json.dumps(result.wire(defaults=False), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def fitted(result: StageResult) -> StageResult:
    """`result` cut so that its JSON has at most MAX_RESULT_BYTES."""
    result = _plain(result)
    if len(encoded(result)) <= MAX_RESULT_BYTES:
        return result
    cut = result
    for most, kept in _cuts(result):
        if len(encoded(cut)) <= MAX_RESULT_BYTES - _NOTE_BYTES:
            break
        cut = _longest(cut, most, kept)
    if len(encoded(cut)) > MAX_RESULT_BYTES - _NOTE_BYTES:
        return _too_long(result)
    note = _left_out(result, cut)
    return cut.model_copy(update={"warnings": (*cut.warnings, note)}) if note else cut


def _plain(result: StageResult) -> StageResult:
    """Without what JSON has no form for: figures that are no finite numbers."""
    changes: dict[str, object] = {
        "committed": tuple(c.model_copy(update={"statistics": _finite(c.statistics)}) for c in result.committed),
        "storage_errors": min(max(result.storage_errors, 0), _MOST_ERRORS),
    }
    return _each(result.model_copy(update=changes), _finite)


def _finite(statistics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in statistics.items() if isfinite(value)}


def _statistics(result: StageResult) -> list[dict[str, float]]:
    """Those of its stage, and of those chained to it."""
    return [result.statistics, *(chained.statistics for chained in result.chained)]


def _each(result: StageResult, change: Callable[[Mapping[str, float]], dict[str, float]]) -> StageResult:
    """`result` with all of these changed."""
    chained = tuple(c.model_copy(update={"statistics": change(c.statistics)}) for c in result.chained)
    return result.model_copy(update={"statistics": change(result.statistics), "chained": chained})


def _rounded(statistics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.7g}") if value % 1 else value for name, value in statistics.items()}


Cut = Callable[[StageResult, int], StageResult]
"""(a result, how many parts of something to keep) → the result with so many."""


def _cuts(whole: StageResult) -> Iterator[tuple[int, Cut]]:
    """How many parts there are of what may be cut, and how; least needed first."""
    yield len(whole.warnings), lambda r, n: r.model_copy(update={"warnings": whole.warnings[:n]})
    error = whole.error
    if error is not None:
        yield (
            len(error.message),
            lambda r, n: r.model_copy(update={"error": error.model_copy(update={"message": error.message[:n]})}),
        )
    yield 1, lambda r, n: r if n else _each(r, _rounded)
    yield (
        max(len(figures) for figures in _statistics(whole)),
        lambda r, n: _each(r, lambda figures: dict(list(by_need(figures).items())[:n])),
    )
    yield (
        len(whole.committed),
        lambda r, n: r.model_copy(update={"committed": whole.committed[:n], "more": True}),
    )
    yield 1, lambda r, n: r.model_copy(update={"manifest_uri": whole.manifest_uri if n else ""})


def _longest(result: StageResult, most: int, kept: Cut) -> StageResult:
    """`result` with as many parts as fit, or with none."""

    def too_long(count: int) -> bool:
        return len(encoded(kept(result, count))) > MAX_RESULT_BYTES - _NOTE_BYTES

    return kept(result, bisect_left(range(1, most + 1), True, key=too_long))


def _left_out(whole: StageResult, cut: StageResult) -> str:
    parts = {
        "warnings": len(whole.warnings) - len(cut.warnings),
        "characters of the error": len(_message(whole)) - len(_message(cut)),
        "figures": sum(map(len, _statistics(whole))) - sum(map(len, _statistics(cut))),
    }
    said = ", ".join(f"{number} {name}" for name, number in parts.items() if number)
    return f"left out, as only {MAX_RESULT_BYTES:,} bytes can be said: {said}; see the pod's log" if said else ""


def _message(result: StageResult) -> str:
    return result.error.message if result.error is not None else ""


def _too_long(result: StageResult) -> StageResult:
    """The failure of a stage whose answer cannot be told; that of a stage that had failed anyway keeps its reason."""
    if result.error is not None:
        reason, text = result.error.reason[:_MAX_REASON], "the message of this failure is too long; see the pod's log"
    else:
        sizes = sorted(
            ((len(json.dumps(value, ensure_ascii=False)), name) for value, name in _leaves(result.wire(), "")),
            reverse=True,
        )
        longest = ", ".join(f"{name} ({size:,})" for size, name in sizes[:3])
        reason = "InvalidTask"
        text = (
            f"what this stage found does not fit into the {MAX_RESULT_BYTES:,} bytes that a pod can answer; shorten"
            f" what the spec names. Longest: {longest}"
        )
    failure = StageError(reason=reason, message=text[:1000])
    return StageResult(stage=result.stage, error=failure, storage_errors=result.storage_errors)


def _leaves(value: object, path: str) -> Iterator[tuple[object, str]]:
    """Every plain value of JSON data with its path."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{path}.{name}" if path else name)
    elif not isinstance(value, list):
        yield value, path[:100]
