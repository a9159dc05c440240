"""How far a run has come, in figures and one sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srlm_contract.graph import NodeId
from srlm_contract.progress import Progress
from srlm_contract.status import ProgressStatus, StageStatus

from .attempts import missing_shards
from .world import Records, World, title


@dataclass(frozen=True)
class Work:
    """The rows of a stage over all its shards; a shard that has said nothing yet counts as long as the others."""

    done: int = 0
    total: int = 0
    estimated: bool = False
    """Whether a shard is among them that has not told its rows."""
    finished: int = 0
    """Shards that are committed."""
    lines: tuple[Progress, ...] = ()
    """What the shards say that are not done; when all are, what they said last."""
    silent: bool = False
    """Whether a shard that is not done has said nothing yet."""


def run_progress(world: World, records: Records, total: int, done: int, running: Sequence[NodeId]) -> ProgressStatus:
    """Progress of the whole run.

    total, done: nodes of the graph. running: ids of the nodes with a running Job, in graph order.
    """
    if not running:
        percent = round(100 * done / total) if total else 0
        return ProgressStatus(percent=percent, text=f"{percent}%")
    record = records[running[0]]
    node_id, before = at_work(world, running[0], record)
    work = _look(world, record, _places(world, running[0], record), before)
    rows = work.done / work.total if work.total else 0.0
    share = min(1.0, max(rows, work.finished / record.shards))
    percent, eta = min(99, round(100 * (done + before + share) / max(total, 1))), _eta(work)
    return ProgressStatus(
        percent=percent,
        text=f"{percent}%",
        shards_done=work.finished,
        shards_total=record.shards,
        message=f"{title(node_id)}: {describe(work) or _without_a_line(world, record)}",
        eta_seconds=eta,
        eta="" if eta is None else short_time(eta),
    )


def at_work(world: World, node_id: NodeId, record: StageStatus) -> tuple[NodeId, int]:
    """Of a running node and its chain the one that the last pod has come to, and how many the Job has done before."""
    places, finished = _places(world, node_id, record), _finished(world, record)
    place = min((n for shard, n in places.items() if shard not in finished), default=max(places.values(), default=0))
    return _nodes(world, node_id, record)[place], place


def _nodes(world: World, node_id: NodeId, record: StageStatus) -> tuple[NodeId, ...]:
    job = world.job(record.job)
    return (node_id, *(job.chain if job is not None else ()))


def _places(world: World, node_id: NodeId, record: StageStatus) -> dict[int, int]:
    """How far in the chain each shard is. Its line names the stage alone: of two nodes with that stage it is the one
    that comes next after what status has shown."""
    nodes = _nodes(world, node_id, record)
    shown = next((n for n, node in enumerate(nodes) if node.name == world.run.status.stage), 0)
    found = {}
    for shard, line in _lines(world, record).items():
        fitting = [n for n, node in enumerate(nodes) if node.stage == line.stage]
        found[shard] = next((n for n in fitting if n >= shown), fitting[0] if fitting else 0)
    return found


def short_time(seconds: int) -> str:
    """`40s`, `21m`, `2h05m`, `3d04h`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    return f"{minutes // 1440}d{minutes % 1440 // 60:02}h"


def _look(world: World, record: StageStatus, places: Mapping[int, int], place: int) -> Work:
    """What the lines of the Job's pods say of the stage at this place of its chain, and what earlier attempts have
    done. places: of the shards."""
    said = {shard: line for shard, line in _lines(world, record).items() if places[shard] == place}
    if record.shards == 1:
        lines = tuple(said.values())
        return Work(sum(r.done for r in lines), sum(r.total for r in lines), lines=lines, silent=not lines)
    finished = _finished(world, record) | {shard for shard, n in places.items() if n > place}
    told = [line.total for line in said.values() if line.total]
    typical = round(sum(told) / len(told)) if told else 0
    totals = {shard: said[shard].total if shard in said else typical for shard in range(record.shards)}
    done = {shard: line.done for shard, line in said.items()} | {shard: totals[shard] for shard in finished}
    working = [line for shard, line in said.items() if shard not in finished and not _all_done(line)]
    return Work(
        done=sum(done.values()),
        total=sum(totals.values()),
        estimated=len(said) < record.shards,
        finished=len(finished),
        lines=tuple(working or said.values()),
        silent=any(shard not in said and shard not in finished for shard in range(record.shards)),
    )


def _lines(world: World, record: StageStatus) -> dict[int, Progress]:
    """The last line of each shard, by its number."""
    job = world.job(record.job)
    # A training has one shard, and of its nodes the first one speaks.
    covered = (job.shard_indexes if job is not None else ()) or tuple(range(record.shards))
    known = world.observed.progress
    # A pod that replaces another one of the same index began later.
    pods = sorted(world.pods(record.job), key=lambda pod: (pod.index, pod.started_at or world.now))
    return {covered[pod.index]: known[pod.name] for pod in pods if pod.name in known and pod.index < len(covered)}


def _finished(world: World, record: StageStatus) -> set[int]:
    """Shards that are committed, by this attempt or an earlier one."""
    job = world.job(record.job)
    every = range(record.shards)
    finished = set(every) - set(missing_shards(record) or every)
    if job is not None:
        covered = job.shard_indexes or tuple(every)
        finished |= {covered[index] for index in job.completed if index < len(covered)}
    return finished


def _all_done(line: Progress) -> bool:
    return line.total > 0 and line.done >= line.total


def describe(work: Work) -> str:
    """`4,120/12,000 verdicts, 3,900 tok/s, loss 0.6931`, `~` before a total that is partly a guess; or empty."""
    if not work.lines:
        return ""
    parts = []
    unit = work.lines[0].unit
    if work.total:
        parts.append(f"{work.done:,}/{'~' if work.estimated else ''}{work.total:,} {unit}")
    elif work.done:
        parts.append(f"{work.done:,} {unit}")
    busy = [line for line in work.lines if not line.activity]
    speed = [line.tokens_per_second for line in busy if line.tokens_per_second is not None]
    if speed:
        parts.append(f"{sum(speed):,.0f} tok/s")
    losses = [line.loss for line in busy if line.loss is not None]
    if losses:
        parts.append(f"loss {losses[-1]:.4f}")
    if not busy:
        parts.append(work.lines[0].activity)
    return ", ".join(parts) or f"0 {unit}"


def _without_a_line(world: World, record: StageStatus) -> str:
    """One sentence until the first line, as each costs a write; conditions say what a pod is held up by."""
    running = any(pod.name in world.observed.unread for pod in world.pods(record.job) if pod.phase == "Running")
    return "runs (no log)" if running else "its pods start and read their inputs"


def _eta(work: Work) -> int | None:
    """The longest of the shards at work; unknown while one of them has not begun, and when all have said their last."""
    if work.silent or any(_all_done(line) or line.eta_seconds is None for line in work.lines):
        return None
    return max((line.eta_seconds for line in work.lines if line.eta_seconds is not None), default=None)
