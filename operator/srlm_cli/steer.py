"""`srlm suspend | resume | retry | continue NAME`: what people decide about a run."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from srlm_cli.runs import add_run_arguments, annotate, cluster_of, fresh, patch, read
from srlm_operator.cluster.client import Client
from srlm_operator.errors import ConfigurationError
from srlm_operator.names import CONTINUE_ANNOTATION, RETRY_ANNOTATION
from srlm_operator.plan.gates import released
from srlm_operator.values import Run

#: Does it, and says in a sentence what happens now.
Change = Callable[[Client, Run, argparse.Namespace], Awaitable[str]]
#: In place of a model: whatever any gate says.
ALL = "all"


def suspend(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm suspend`."""
    _configure(parser, _suspend)


def resume(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm resume`."""
    _configure(parser, _resume)


def retry(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm retry`."""
    _configure(parser, _retry)


def go_on(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm continue`."""
    _configure(parser, _continue)
    parser.add_argument("--model", help="the model whose missed gate is accepted, or `all` (default: the held one)")


def _configure(parser: argparse.ArgumentParser, change: Change) -> None:
    add_run_arguments(parser)
    parser.set_defaults(func=lambda args: asyncio.run(_run(args, change)))


async def _run(args: argparse.Namespace, change: Change) -> int:
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        if found.deleted_at is not None:
            raise ConfigurationError(f"run {namespace}/{args.name} is being deleted: nothing can be changed any more")
        print(f"{namespace}/{args.name}: {await change(client, found, args)}")
    return 0


async def _suspend(client: Client, found: Run, args: argparse.Namespace) -> str:
    if found.status.phase == "Succeeded":
        raise ConfigurationError(f"run {found.namespace}/{found.name} is done: nothing runs")
    if found.spec is not None and found.spec.suspend:
        return "is suspended already"
    await patch(client, found, {"spec": {"suspend": True}})
    return "suspended; its Jobs go, and what is committed stays. `srlm resume` goes on"


async def _resume(client: Client, found: Run, args: argparse.Namespace) -> str:
    if found.spec is not None and not found.spec.suspend:
        return "is not suspended"
    await patch(client, found, {"spec": {"suspend": False}})
    return "goes on"


async def _retry(client: Client, found: Run, args: argparse.Namespace) -> str:
    if found.status.phase == "Succeeded":
        raise ConfigurationError(f"run {found.namespace}/{found.name} is done: nothing has failed")
    await annotate(client, found, RETRY_ANNOTATION, fresh())
    return "what failed is tried again, with all its attempts"


async def _continue(client: Client, found: Run, args: argparse.Namespace) -> str:
    where, spec = f"run {found.namespace}/{found.name}", found.spec
    if spec is not None and spec.gates.on_failure != "Hold":
        raise ConfigurationError(f"{where} waits for nobody's word: its gates.onFailure is {spec.gates.on_failure}")
    model = args.model and (ALL if args.model.lower() == ALL else args.model.upper())
    possible = [f"M{number}" for number in range(1, spec.iterations + 2)] if spec is not None else [model]
    if model is None:
        missed = [iteration.name for iteration in found.status.iterations if iteration.gates]
        if found.status.phase != "Held" or not missed:
            raise ConfigurationError(
                f"{where} is not held by a gate (it is {found.status.phase}); "
                "name the model with --model to accept a gate that it may miss"
            )
        model = missed[-1]
    elif model not in (ALL, *possible):
        raise ConfigurationError(f"{where} makes no {model}: it makes {possible[0]} to {possible[-1]}")
    accepted = dict.fromkeys([*released(found.annotations), model])
    await annotate(client, found, CONTINUE_ANNOTATION, ",".join(accepted))
    return "goes on whatever gates say" if model == ALL else f"goes on although {model} missed a gate"
