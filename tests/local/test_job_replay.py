"""The Job controller writes what a real one wrote: every answer and every watch event, in the same order."""

from __future__ import annotations

import pytest

from local.replay import RECORDINGS, replay

SCENARIOS = [
    "09-job",
    "10-job-failure",
    "11-job-indexed",
    "12-job-suspend",
    "13-job-time",
    "14-job-delete",
    "15-pods",
]


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="recorded exchanges are not beside this checkout")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_as_the_real_controller(name: str) -> None:
    differences = await replay(name)
    assert not differences, "\n".join(differences)
