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

SOONER = "the real controller waits a second to batch what happens to pods; this one writes before the node's DELETE"
RACE = "orphaned pod and its Job are released by two controllers at the same time"
DUMP = "the message quotes Go structures; reason, code and field are compared"

ALLOWED: dict[str, dict[str, str]] = {
    "09-job": {"ranks: <rv-37>": SOONER},
    "11-job-indexed": {"ranks: <rv-67>": SOONER},
    "12-job-suspend": {
        "ranks: <rv-19>": SOONER,
        **{
            f"step {step} PATCH /apis/batch/v1/namespaces/rec-12-job-suspend/jobs/s: {field} is ": DUMP
            for step in (7, 9, 18, 19, 20)
            for field in ("message", "details.causes[0].message", "details.causes[1].message")
        },
    },
    "13-job-time": {"ranks: <rv-25>": SOONER},
    "14-job-delete": {"ranks: <rv-6>": RACE},
    "15-pods": {
        f"step {request} /api/v1/namespaces/rec-15-pods/pods/p: {field} is ": DUMP
        for request in ("3 PUT", "8 PATCH")
        for field in ("message", "details.causes[0].message")
    },
}  # fmt: skip
"""What may differ: the beginning of the difference, and why it may."""


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="recorded exchanges are not beside this checkout")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_as_the_real_controller(name: str) -> None:
    allowed = ALLOWED.get(name, {})
    found = [line for line in await replay(name) if not line.startswith(tuple(allowed))]
    assert not found, "\n".join(found)
