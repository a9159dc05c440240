"""For folders whose tests need a cluster: a given one with `make test-cluster`, a one-machine one otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import hypothesis.internal.observability  # noqa: F401 - its plugin would at the end, which Python 3.11 may fail at
import pytest

from support.cluster.admin import Admin
from support.cluster.harness import Harness, harness
from support.cluster.target import Occupied, given, install, sweep

MakeHarness = Callable[..., AbstractAsyncContextManager[Harness]]


@pytest.fixture(scope="session")
def given_cluster() -> Iterator[Path | None]:
    """Kubeconfig of the cluster to test on, with the definition of runs; everything is removed at the end."""
    path = given()
    if path is None:
        yield None
        return

    async def act(what: Callable[[Admin], object]) -> None:
        async with Admin(path) as admin:
            await what(admin)  # type: ignore[misc]

    try:
        asyncio.run(act(install))
    except Occupied as problem:
        pytest.exit(str(problem), returncode=2)
    yield path
    asyncio.run(act(sweep))


@pytest.fixture
def make_harness(request: pytest.FixtureRequest, given_cluster: Path | None, tmp_path: Path) -> MakeHarness:
    """For tests that choose the operator's settings, or more than one cluster."""
    inside = request.node.get_closest_marker("one_machine")
    if inside is not None and given_cluster is not None:
        pytest.skip(f"only on the one-machine cluster: {inside.args[0]}")
    return partial(harness, tmp_path, given_cluster)


@pytest.fixture
async def h(make_harness: MakeHarness) -> AsyncIterator[Harness]:
    """A namespace of the test's own."""
    async with make_harness() as found:
        yield found
