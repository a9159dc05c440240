"""Whether the trackers of a run can be told: what cannot is a warning, as no tracker stops a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from ..runtime.redaction import redacted
from ..tracking.tracker import Tracker, TrackerError

#: Longest wait for all of them.
PATIENCE_SECONDS = 20.0
#: Characters of an answer that are told.
_SHOWN = 300


def unreachable(told: Sequence[Tracker], environ: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each tracker that does not answer, or refuses."""
    if not told:
        return
    pool = ThreadPoolExecutor(len(told))
    asked = [(tracker, pool.submit(_problem, tracker.check)) for tracker in told]
    wait([answer for _, answer in asked], PATIENCE_SECONDS)
    pool.shutdown(wait=False)
    for tracker, answer in asked:
        if problem := _answer(answer):
            yield f"{tracker.name}: {redacted(problem, environ)[:_SHOWN]}. The run goes on without it"


def _problem(check: Callable[[], None]) -> str:
    try:
        check()
    except TrackerError as error:
        return str(error).rstrip(".")
    except Exception as error:  # a client's own, too: none of them is worth a run
        return f"{type(error).__name__}: {error}".rstrip(".")
    return ""


def _answer(asked: Future[str]) -> str:
    return asked.result() if asked.done() else f"does not answer within {PATIENCE_SECONDS:.0f} s"
