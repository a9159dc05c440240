"""The stages that a pod runs after that of its task.

Each leaves the artifact that it leaves alone, under the key that the operator gives it. What is committed is told after
each, so that a pod killed in the third has told of two. Where one fails the chain ends and the pod has succeeded: the
operator starts that stage in a Job of its own, which says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from srlm_contract.artifacts.shards import Shards
from srlm_contract.errors import InvalidTask
from srlm_contract.graph import Node, NodeId, node_key
from srlm_contract.tasks import ArtifactRef, ChainedResult, Link, StageResult, StageTask

from .runtime.failures import failure
from .runtime.progress import ProgressReporter

#: Seconds that a pod waits beside its idle GPUs for the other shards of a stage.
LONGEST_WAIT = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 15.0
#: Looks in a row (half a minute and more) at which a shard has no pod: the machine has no room for it.
LOOKS = 6
#: Characters of a failure in the warning about it; the log has all of them.
SHOWN = 160

Look = Callable[[], ArtifactRef | None]
Wait = Callable[[Look], ArtifactRef | None]
"""Asks `Look` until it finds something or there is no use in waiting."""


class Ended(Exception):
    """The chain ends here, and nothing is wrong."""


def waited(
    look: Look, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> ArtifactRef | None:
    """What `look` finds, asked again after growing pauses; None after LONGEST_WAIT."""
    until, pause = clock() + LONGEST_WAIT, FIRST_PAUSE
    while (found := look()) is None:
        left = until - clock()
        if left <= 0:
            return None
        sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
    return found


class Chain:
    """A task whose own stage is committed, or its shard of it, and what follows."""

    def __init__(
        self,
        task: StageTask,
        artifacts: Shards,
        run: Callable[[StageTask], StageResult],
        environ: Mapping[str, str],
        wait: Wait = waited,
    ) -> None:
        self._task, self._artifacts, self._run, self._environ, self._wait = task, artifacts, run, environ, wait
        self._done: dict[str, StageResult] = {}
        """By node id; without a content digest where other shards may still be missing."""

    def follow(self, result: StageResult, tell: Callable[[StageResult], object]) -> StageResult:
        """Run the links, `tell` what is committed after each, and return that. result: of the task itself."""
        self._done[NodeId(self._task.iteration, self._task.node)] = result
        for link in self._task.chain:
            try:
                task = self._task_of(link)
                began = time.monotonic()
                # Also for one that is committed already: the operator reads from it how far the pod is.
                ProgressReporter(link.stage).begin(0, "rows", "looking for what is committed")
                found = self._run(task)
            except Exception as error:  # as the entry of the stages does, but what is committed stays told
                why = str(error) if isinstance(error, Ended) else _said(link.stage, error, self._environ)
                text = f"the chain ended at {link.stage} of iteration {link.iteration}: {why}"
                result = result.model_copy(update={"warnings": (text, *result.warnings)})
                tell(result)
                return result
            self._done[NodeId(link.iteration, link.node)] = found
            result = _with(result, link, found, time.monotonic() - began)
            tell(result)
        return result

    def _task_of(self, link: Link) -> StageTask:
        """The task that the operator would give a pod of its own."""
        inputs = {**link.inputs, **{name: self._whole(node, link) for name, node in link.awaited.items()}}
        node = Node(
            link.iteration, link.node, link.stage, link.params,
            artifacts=inputs, sources=link.sources, round=link.round, image=link.image,
        )  # fmt: skip
        changes = {name: getattr(link, name) for name in ("iteration", "node", "stage", "round", "revision", "params")}
        key = node_key(node, {}, self._task.seed, link.revision)
        more = {"inputs": inputs, "sources": link.sources, "key": key, "chain": (), "repair": False}
        return self._task.model_copy(update=changes | more)

    def _whole(self, node: str, link: Link) -> ArtifactRef:
        """The artifact of a stage before `link`. Waits for its other shards; raises Ended where they take too long."""
        if node not in self._done:
            raise InvalidTask("InvalidTask", f"{link.node} awaits {node}, which is not before it in the chain")
        done = self._done[node]
        if done.content_digest:
            return ArtifactRef(stage=done.stage, key=done.key, content_digest=done.content_digest)

        lonely = 0

        def look() -> ArtifactRef | None:
            nonlocal lonely
            manifest = self._artifacts.lookup(done.stage, done.key)
            if manifest is not None:
                return manifest.ref
            absent = self._artifacts.absent_shards(done.stage, done.key, self._task.shards)
            lonely = lonely + 1 if absent else 0
            if lonely == LOOKS:
                raise Ended(f"nobody works on shard {absent[0]} of {node}")
            return None

        ProgressReporter(link.stage).begin(self._task.shards, "shards", "waiting for the other shards")
        found = self._wait(look)
        if found is None:
            raise Ended(f"the other shards of {node} took longer than {LONGEST_WAIT / 60:.0f} minutes")
        return found


def _said(stage: str, error: Exception, environ: Mapping[str, str]) -> str:
    _, problem = failure(stage, error, environ)
    return f"{problem.reason}: {problem.message[:SHOWN]}"


def _with(result: StageResult, link: Link, found: StageResult, seconds: float) -> StageResult:
    """The pod's result with that of a link; who has only committed a shard of it has nothing to tell but warnings."""
    told = result.chained
    if found.content_digest:
        one = ChainedResult(
            node=NodeId(link.iteration, link.node),
            key=found.key,
            content_digest=found.content_digest,
            revision=link.revision,
            statistics=found.statistics,
            reused=found.reused,
            seconds=round(seconds, 3),
        )
        told = (*told, one)
    warnings = (*result.warnings, *(f"{link.node}: {text}" for text in found.warnings))
    return result.model_copy(update={"chained": told, "warnings": warnings})
