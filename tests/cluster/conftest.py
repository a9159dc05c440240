"""The operator as a process with the chart's rights."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.cluster.fixtures import MakeHarness, given_cluster, make_harness
from support.cluster.harness import Harness

__all__ = ["given_cluster", "h", "make_harness"]


@pytest.fixture
async def h(make_harness: MakeHarness) -> AsyncIterator[Harness]:
    """A namespace of the test's own."""
    async with make_harness(apart=True) as found:
        yield found
