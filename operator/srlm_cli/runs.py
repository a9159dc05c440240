"""Runs of a cluster, for every command that speaks of them: arguments, reading, and what people put on them."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from srlm_contract.spec.storage import Storage
from srlm_operator.cluster.client import RUNS, Client, default_namespace, load_configuration
from srlm_operator.cluster.views import parse_run
from srlm_operator.errors import ConfigurationError, NotFound, Refused
from srlm_operator.values import Run


class NoSuchRun(ConfigurationError):
    """The cluster has no run of this name."""


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Namespace and context."""
    parser.add_argument("-n", "--namespace", help="namespace; by default that of the kubeconfig's context")
    parser.add_argument("--context", help="context of the kubeconfig")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's name, namespace and context."""
    parser.add_argument("name", help="name of the run")
    add_cluster_arguments(parser)


def add_endpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Another way to the store than that of the pods."""
    parser.add_argument("--endpoint-url", help="reach the run's S3 store here, such as a forwarded port")


@asynccontextmanager
async def cluster_of(args: argparse.Namespace) -> AsyncIterator[tuple[Client, str]]:
    """The cluster and the namespace that the arguments mean. Raises ConfigurationError without a kubeconfig."""
    async with Client(load_configuration(args.context)) as client:
        yield client, args.namespace or default_namespace(args.context)


async def read(client: Client, namespace: str, name: str) -> Run:
    """Raises NoSuchRun, and ConfigurationError where it may not be read."""
    try:
        return parse_run(await client.get(RUNS, namespace, name))
    except NotFound:
        raise NoSuchRun(f"run {name} does not exist in namespace {namespace}") from None
    except Refused as problem:
        raise refused(problem, f"you may not read runs in namespace {namespace}") from None


def refused(problem: Refused, forbidden: str) -> ConfigurationError:
    """What a person is told. forbidden: in words, what a missing right means."""
    if problem.status == 403:
        return ConfigurationError(f"{forbidden}: {problem}")
    if problem.status == 401:
        return ConfigurationError(f"the API server does not accept the kubeconfig's credentials: {problem}")
    return ConfigurationError(str(problem))


def storage_of(found: Run, endpoint_url: str | None = None) -> Storage:
    """Where the run's artifacts lie. Raises ConfigurationError when neither spec nor operator say.

    endpoint_url: in place of the run's own.
    """
    if found.spec is None or found.spec.storage.uri is None:
        raise ConfigurationError(
            f"run {found.namespace}/{found.name} does not say where its artifacts lie: see `kubectl describe srr`"
        )
    storage = Storage.parse(found.spec.storage.wire())
    return storage.model_copy(update={"endpoint_url": endpoint_url}) if endpoint_url else storage


async def patch(client: Client, found: Run, body: Mapping[str, Any]) -> None:
    """A merge patch of the run. Raises ConfigurationError where it is refused."""
    try:
        await client.merge(RUNS, found.namespace, found.name, body)
    except Refused as problem:
        raise refused(
            problem,
            f"you may not change run {found.namespace}/{found.name}; ask for the right to patch selfrewardingruns (the "
            "chart's edit role has it)",
        ) from None


async def annotate(client: Client, found: Run, annotation: str, value: str) -> None:
    """Put an annotation on the run, which the operator acts on."""
    await patch(client, found, {"metadata": {"annotations": {annotation: value}}})


def fresh() -> str:
    """A value that no annotation has had."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{token_hex(4)}"
