"""`srlm logs NAME [STAGE] [-f]`: what the pods of a run write."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from srlm_cli.runs import add_run_arguments, cluster_of, read
from srlm_operator.cluster.client import PODS, Client
from srlm_operator.errors import ApiError, ConfigurationError, NotFound
from srlm_operator.names import CONTAINER, LABEL_ATTEMPT, LABEL_ITERATION, LABEL_NODE, LABEL_RUN_UID, LABEL_STAGE
from srlm_operator.values import Run

#: Seconds between two tries of a log that is not there yet.
RETRY_SECONDS = 1.0
_JOB = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, order=True)
class StagePod:
    """A pod of the run; sorts by when it was made, then by shard."""

    created: str
    index: int
    name: str
    iteration: int
    node: str
    stage: str
    attempt: int
    phase: str
    job: str

    @classmethod
    def of(cls, pod: dict[str, Any]) -> StagePod:
        meta = pod["metadata"]
        labels = meta["labels"]
        return cls(
            meta["creationTimestamp"],
            int((meta.get("annotations") or {}).get(_INDEX, 0)),
            meta["name"],
            int(labels.get(LABEL_ITERATION, 0)),
            labels.get(LABEL_NODE, ""),
            labels.get(LABEL_STAGE, ""),
            int(labels.get(LABEL_ATTEMPT, 0)),
            (pod.get("status") or {}).get("phase", ""),
            labels.get(_JOB, ""),
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm logs`."""
    parser.description = (
        "Prints what the pods of a stage write: of the stage that runs now, or that ran last, unless one is named; of "
        "its newest attempt. With several pods each line begins with the number of the shard. Pods go with their Job, "
        "an hour or so after its end."
    )
    add_run_arguments(parser)
    parser.add_argument("stage", nargs="?", help="such as generate or judge-heldout")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the pods end")
    parser.add_argument("--model", metavar="M2", help="the iteration that leads to this model (default: the newest)")
    parser.add_argument("--shard", type=int, help="this one only, from 0")
    parser.add_argument("--tail", type=int, metavar="LINES", help="only so many of the last lines of each pod")
    parser.set_defaults(func=lambda args: asyncio.run(_run(args)))


async def _run(args: argparse.Namespace) -> int:
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        chosen = await _pods(client, found, args)
        first = chosen[0]
        what = f"{first.node}, attempt {first.attempt}" + (f" of {len(chosen)} pods" if len(chosen) > 1 else "")
        print(f"# {namespace}/{args.name} M{first.iteration + 1} {what}", file=sys.stderr)
        printing = [_print(client, found, pod, args, alone=len(chosen) == 1) for pod in chosen]
        if args.follow:
            await asyncio.gather(*printing)
        else:
            for pod_log in printing:
                await pod_log
    return 0


async def _pods(client: Client, found: Run, args: argparse.Namespace) -> list[StagePod]:
    """The pods that are meant, by shard. Raises ConfigurationError where there is none."""
    listed = await client.list(PODS, found.namespace, labels=f"{LABEL_RUN_UID}={found.uid}")
    pods = sorted(StagePod.of(item) for item in listed.items)
    model = args.model.upper() if args.model is not None else None
    jobs = _jobs(found, args.stage, model)
    if args.stage is not None:
        pods = [pod for pod in pods if args.stage in (pod.node, pod.stage) or pod.job in jobs]
    if model is not None:
        pods = [pod for pod in pods if f"M{pod.iteration + 1}" == model or pod.job in jobs]
    if args.shard is not None:
        pods = [pod for pod in pods if pod.index == args.shard]
    if not pods:
        which = " ".join(word for word in (args.stage or "", args.model or "") if word)
        raise ConfigurationError(
            f"run {found.namespace}/{found.name} has no pod{f' of {which}' if which else ''}: it has not begun, or its "
            "pods went with their Jobs"
        )
    last = next((pod for pod in reversed(pods) if pod.phase == "Running"), pods[-1])
    same = (last.iteration, last.node, last.attempt)
    return sorted(
        (pod for pod in pods if (pod.iteration, pod.node, pod.attempt) == same),
        key=lambda pod: (pod.index, pod.created),
    )


def _jobs(found: Run, stage: str | None, model: str | None) -> set[str]:
    """Jobs that did or will do it: several stages may come in one."""
    iterations = [i for i in found.status.iterations if model in (None, i.name)]
    return {s.job for i in iterations for s in i.stages if s.job and stage in (None, s.name, s.stage)}


async def _print(client: Client, found: Run, pod: StagePod, args: argparse.Namespace, *, alone: bool) -> None:
    prefix = "" if alone else f"[{pod.index}] "
    waiting = ""
    while True:
        said, problem = False, ""
        try:
            async for line in client.log_lines(
                found.namespace, pod.name, CONTAINER, follow=args.follow, lines=args.tail
            ):
                print(f"{prefix}{line}", flush=args.follow)
                said = True
        except ApiError as error:
            problem = str(error)
        if said or not args.follow or not await _pending(client, found, pod):
            if problem:  # and the other pods' are read all the same
                print(f"{prefix}(the log of pod {pod.name} cannot be read: {problem})", file=sys.stderr)
            return
        if problem != waiting:
            waiting = problem
            print(f"{prefix}(pod {pod.name} has not started: {problem})", file=sys.stderr)
        await asyncio.sleep(RETRY_SECONDS)


async def _pending(client: Client, found: Run, pod: StagePod) -> bool:
    try:
        now = await client.get(PODS, found.namespace, pod.name)
    except NotFound:
        return False
    return (now.get("status") or {}).get("phase") == "Pending"
