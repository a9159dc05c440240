"""`srlm report NAME`: asks for a fresh report of a run and fetches it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

from srlm_cli.download import fetch
from srlm_contract.artifacts.layout import report_key
from srlm_contract.spec.storage import Storage
from srlm_operator.cluster.client import RUNS, Client, default_namespace, load_configuration
from srlm_operator.cluster.views import parse_run
from srlm_operator.errors import ConfigurationError, NotFound, Refused, Unavailable
from srlm_operator.names import REPORT_ANNOTATION
from srlm_operator.values import Run

#: A running operator reacts within a second; one that is starting, within half a minute.
REACTION_SECONDS = 30.0
POLL_SECONDS = 0.5
#: With these the operator decides nothing about a run.
_UNREADABLE = ("InvalidSpec", "StorageNotSet")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "report",
        help="ask for a fresh report of a run and fetch it",
        description="Asks the operator for a report of the run as it is now (by an annotation on the run), waits for "
        "it and fetches the HTML file. S3 is read with your own AWS credentials (environment or profile), else with "
        "the Secret that the run names. Of a suspended run the last report is fetched.",
    )
    parser.add_argument("name", help="name of the run")
    parser.add_argument("-n", "--namespace", help="namespace; by default that of the kubeconfig's context")
    parser.add_argument("--context", help="context of the kubeconfig")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: NAME-report.html; - for standard output")
    parser.add_argument("--no-wait", action="store_true", help="ask only, and say where the report will lie")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="longest wait (%(default)s)")
    parser.add_argument("--endpoint-url", help="reach the run's S3 store here, such as a forwarded port")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Ask, wait, fetch. Returns the exit status; raises OperatorError naming what is wrong and what to do."""
    namespace = args.namespace or default_namespace(args.context)
    return asyncio.run(_report(args, namespace))


async def _report(args: argparse.Namespace, namespace: str) -> int:
    async with Client(load_configuration(args.context)) as client:
        found = await _read(client, namespace, args.name)
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
        storage = storage_of(found)
        if args.endpoint_url:
            storage = storage.model_copy(update={"endpoint_url": args.endpoint_url})
        page = await fetch(client, namespace, storage, report_key(namespace, args.name))
    _save(page, args.output or f"{args.name}-report.html", found)
    return 0


async def _read(client: Client, namespace: str, name: str) -> Run:
    try:
        return parse_run(await client.get(RUNS, namespace, name))
    except NotFound:
        raise ConfigurationError(f"run {name} does not exist in namespace {namespace}") from None
    except Refused as problem:
        raise ConfigurationError(f"you may not read runs in namespace {namespace}: {problem}") from None


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
    token = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{token_hex(4)}"
    body = {"metadata": {"annotations": {REPORT_ANNOTATION: token}}}
    try:
        await client.merge(RUNS, found.namespace, found.name, body)
    except Refused as problem:
        raise ConfigurationError(
            f"you may not annotate run {where}, which asks for a report; ask for the right to patch "
            f"selfrewardingruns (the chart's edit role has it): {problem}"
        ) from None
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
            found = await _read(client, found.namespace, found.name)
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


def storage_of(found: Run) -> Storage:
    """Where the run's artifacts lie. Raises ConfigurationError when neither spec nor operator say."""
    if found.spec is None or found.spec.storage.uri is None:
        raise ConfigurationError(
            f"run {found.namespace}/{found.name} does not say where its artifacts lie: see `kubectl describe srr`"
        )
    return Storage.parse(found.spec.storage.wire())


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
    _say(f"{output}  ({len(page) / 1024:,.0f} KiB, from {found.status.report.uri})")


def _say_once(text: str, said: str) -> str:
    if text != said:
        _say(text)
    return text


def _say(text: str) -> None:
    """To standard error: standard output may be the report."""
    print(text, file=sys.stderr, flush=True)
