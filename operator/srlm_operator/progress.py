"""How far a run has come, in figures and one sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from srlm_contract.progress import Progress
from srlm_contract.status import ProgressStatus, StageStatus

from .attempts import missing_shards
from .draft import Draft, title


def run_progress(draft: Draft, total: int, done: int, running: Sequence[str]) -> ProgressStatus:
    """Progress of the whole run.

    total, done: nodes of the graph. running: ids of the nodes with a running Job, in graph order.
    """
    if not running:
        percent = round(100 * done / total) if total else 0
        return ProgressStatus(percent=percent)
    node_id = running[0]
    record = draft.records[node_id]
    shards_done, lines = _look(draft, record)
    share = _share(record, shards_done, lines)
    percent = min(99, round(100 * (done + share) / max(total, 1)))
    return ProgressStatus(
        percent=percent,
        shards_done=shards_done,
        shards_total=record.shards,
        message=describe(title(node_id), lines) or f"{title(node_id)}: starting",
        eta_seconds=_eta(lines, record.shards - shards_done),
    )


def _look(draft: Draft, record: StageStatus) -> tuple[int, Mapping[str, Progress]]:
    job = draft.job(record.job)
    pods = draft.pods(record.job)
    earlier = record.shards - len(missing_shards(record) or range(record.shards))
    finished = len(job.completed) if job is not None and record.shards > 1 else 0
    known = draft.observed.progress
    return earlier + finished, {p.name: known[p.name] for p in pods if p.name in known}


def _share(record: StageStatus, shards_done: int, lines: Mapping[str, Progress]) -> float:
    """Share of the stage that is done; rows of running shards count within their shard."""
    running = sum(line.done / line.total for line in lines.values() if line.total)
    if record.shards > 1:
        return min(1.0, max(shards_done, running) / record.shards)
    return min(1.0, running)


def describe(what: str, lines: Mapping[str, Progress]) -> str:
    """`judge of M2: 4,120/12,000 verdicts, 3,900 tok/s, loss 0.6931`; empty without any line."""
    if not lines:
        return ""
    rows = list(lines.values())
    done, total = sum(r.done for r in rows), sum(r.total for r in rows)
    parts = [f"{done:,}/{total:,} {rows[0].unit}" if total else f"{done:,} {rows[0].unit}"]
    speed = [r.tokens_per_second for r in rows if r.tokens_per_second is not None]
    if speed:
        parts.append(f"{sum(speed):,.0f} tok/s")
    losses = [r.loss for r in rows if r.loss is not None]
    if losses:
        parts.append(f"loss {losses[-1]:.4f}")
    return f"{what}: {', '.join(parts)}"


def _eta(lines: Mapping[str, Progress], unfinished: int) -> int | None:
    """The longest of the pods that are at work; unknown while a shard has not begun."""
    left = [line.eta_seconds for line in lines.values() if line.eta_seconds is not None]
    working = [line for line in lines.values() if not line.total or line.done < line.total]
    return max(left) if left and len(working) >= unfinished else None
