"""`srlm report NAME`: asks for a fresh report of a run and fetches it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from srlm_cli.download import ends_at_once, fetch, use
from srlm_cli.runs import add_endpoint_argument, add_run_arguments, annotate, cluster_of, fresh, read, storage_of
from srlm_contract.artifacts.layout import events_prefix, is_events, report_key
from srlm_contract.artifacts.store import Store
from srlm_operator.cluster.client import Client
from srlm_operator.errors import ConfigurationError, Unavailable
from srlm_operator.names import REPORT_ANNOTATION
from srlm_operator.values import Run

#: A running operator reacts within a second; one that is starting, within half a minute.
REACTION_SECONDS = 30.0
POLL_SECONDS = 0.5
#: With these the operator decides nothing about a run.
_UNREADABLE = ("InvalidSpec", "StorageNotSet")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm report`."""
    parser.description = (
        "Asks the operator for a report of the run as it is now (by an annotation on the run), waits for "
        "it and fetches the HTML file. S3 is read with your own AWS credentials (environment or profile), else with "
        "the Secret that the run names. Of a suspended run the last report is fetched."
    )
    add_run_arguments(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME-report.html; - for standard output")
    parser.add_argument(
        "--events",
        metavar="FOLDER",
        help="fetch TensorBoard's event files too (tracking.tensorboard), into this folder",
    )
    parser.add_argument("--no-wait", action="store_true", help="ask only, and say where the report will lie")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="longest wait (%(default)s)")
    add_endpoint_argument(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Ask, wait, fetch. Returns the exit status; raises OperatorError naming what is wrong and what to do."""
    if args.events and args.no_wait:
        raise ConfigurationError("--events fetches files, and --no-wait fetches nothing: leave one of them out")
    return asyncio.run(_report(args))


async def _report(args: argparse.Namespace) -> int:
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        if found.spec is not None and found.spec.suspend:
            _must_have_one(found)
            _say(f"{namespace}/{args.name} is suspended, so no Job may start: this is the report of {_made_at(found)}")
        else:
            token = await _ask(client, found)
            if args.no_wait:
                uri = f"{storage_of(found).uri.rstrip('/')}/{report_key(namespace, args.name)}"
                _say(f"asked for a report; it will lie at {uri} (`srlm status {args.name}` says when)")
                return 0
            found = await _wait(client, found, token, args.timeout)
        storage = storage_of(found, args.endpoint_url)
        _say(f"fetching {found.status.report.uri}")
        with ends_at_once("stopped"):
            page = await fetch(client, namespace, storage, report_key(namespace, args.name))
            events = await use(client, namespace, storage, partial(_events, found)) if args.events else {}
    _save(page, args.output or f"{args.name}-report.html", found)
    if args.events:
        _save_events(events, Path(args.events), found)
    return 0


def _events(found: Run, store: Store) -> dict[str, bytes]:
    """TensorBoard's event files by path below their folder."""
    prefix = events_prefix(found.namespace, found.name)
    paths = [info.key.removeprefix(prefix) for info in store.list_objects(prefix)]
    return {path: store.get(prefix + path).data for path in paths if is_events(path)}


def _save_events(events: Mapping[str, bytes], folder: Path, found: Run) -> None:
    if not events:
        raise ConfigurationError(
            f"run {found.namespace}/{found.name} has no event files: they are written with spec.tracking.tensorboard"
        )
    for name, data in events.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as problem:
            raise ConfigurationError(f"{path}: {problem.strerror}") from None
    _say(f"{folder}  ({len(events)} event files: tensorboard --logdir {folder})")


async def _ask(client: Client, found: Run) -> str:
    """Put a new token on the run."""
    where = f"{found.namespace}/{found.name}"
    if found.deleted_at is not None:
        raise ConfigurationError(f"run {where} is being deleted: no report can be made any more")
    if found.spec is None:
        raise ConfigurationError(f"run {where} has an invalid spec, correct it first: {found.spec_error}")
    for condition in found.status.conditions:
        if condition.type == "Stalled" and condition.reason in _UNREADABLE:
            raise ConfigurationError(f"run {where} cannot be worked on: {condition.reason}: {condition.message}")
    token = fresh()
    await annotate(client, found, REPORT_ANNOTATION, token)
    _say(f"asked for a report of {where}")
    return token


async def _wait(client: Client, found: Run, token: str, seconds: float) -> Run:
    """Until the report for `token`, or for a later request, is there. Raises when it fails or takes too long."""
    where, began = f"{found.namespace}/{found.name}", time.monotonic()
    said, seen = "", False
    while True:
        await asyncio.sleep(POLL_SECONDS)
        waited = time.monotonic() - began
        try:
            found = await read(client, found.namespace, found.name)
        except Unavailable as problem:
            if waited > seconds:
                raise
            said = _say_once(f"the API server does not answer: {problem}", said)
            continue
        seen = seen or found.status.report.token in (token, found.annotations.get(REPORT_ANNOTATION))
        stage = found.status.report_stage
        if seen and stage is not None:
            if stage.state == "Succeeded":
                return found
            if stage.state == "Failed":
                raise ConfigurationError(f"the report of {where} failed: {found.status.report.message}")
            running = f"Job {stage.job} runs" if stage.state == "Running" else "is being started"
            said = _say_once(f"report: {found.status.report.message or running}", said)
        _still_possible(found, where)
        if not seen:
            _reacted(found, waited, seconds)
        elif waited > seconds:
            raise ConfigurationError(
                f"there is no report of {where} after {seconds:.0f} s ({said}); it is still being made: "
                f"`srlm status {found.name}` says how far it is"
            )


def _reacted(found: Run, waited: float, seconds: float) -> None:
    """Raises when the operator has had time enough to see the request."""
    patience = min(REACTION_SECONDS, seconds)
    if waited > patience:
        raise ConfigurationError(
            f"the operator has not reacted within {patience:.0f} s: is it running, and does it serve namespace "
            f"{found.namespace}? See `kubectl get pods -A -l app.kubernetes.io/name=self-rewarding-operator`. "
            "The request stays on the run"
        )


def _still_possible(found: Run, where: str) -> None:
    if found.deleted_at is not None:
        raise ConfigurationError(f"run {where} is being deleted: no report can be made any more")
    if found.spec is not None and found.spec.suspend:
        raise ConfigurationError(f"run {where} was suspended meanwhile: the report is made once it is resumed")


def _must_have_one(found: Run) -> None:
    if not found.status.report.uri:
        raise ConfigurationError(
            f"run {found.namespace}/{found.name} is suspended, so no Job may start, and has no report yet: "
            "set spec.suspend to false"
        )


def _made_at(found: Run) -> str:
    return found.status.report.made_at or "an unknown time"


def _save(page: bytes, output: str, found: Run) -> None:
    if output == "-":
        sys.stdout.buffer.write(page)
        return
    try:
        Path(output).write_bytes(page)
    except OSError as problem:
        raise ConfigurationError(f"{output}: {problem.strerror}; the report is at {found.status.report.uri}") from None
    _say(f"{output}  ({len(page) / 1024:,.0f} KiB)")


def _say_once(text: str, said: str) -> str:
    if text != said:
        _say(text)
    return text


def _say(text: str) -> None:
    """To standard error: standard output may be the report."""
    print(text, file=sys.stderr, flush=True)
