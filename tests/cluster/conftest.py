"""The operator on a cluster: a real one with `make test-cluster`, the one-machine API server otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import hypothesis.internal.observability  # noqa: F401 - its plugin would at the end, which Python 3.11 may fail at
import pytest

from cluster.admin import Admin
from cluster.bench import Bench, bench
from cluster.target import Occupied, install, kubeconfig, sweep

MakeBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Kubeconfig of a cluster with the definition of runs; everything is removed at the end."""

    async def prepare(path: Path) -> None:
        async with Admin(path) as admin:
            await install(admin)

    async def clear(path: Path) -> None:
        async with Admin(path) as admin:
            await sweep(admin)

    with kubeconfig(tmp_path_factory.mktemp("cluster")) as path:
        try:
            asyncio.run(prepare(path))
        except Occupied as problem:
            pytest.exit(str(problem), returncode=2)
        yield path
        asyncio.run(clear(path))


@pytest.fixture
def make_bench(cluster: Path, tmp_path: Path) -> MakeBench:
    """For tests that set the operator's mode or settings."""
    return partial(bench, cluster, tmp_path)


@pytest.fixture
async def b(make_bench: MakeBench) -> AsyncIterator[Bench]:
    """A namespace of the test's own."""
    async with make_bench() as found:
        yield found
