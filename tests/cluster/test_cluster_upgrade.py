"""An upgrade in the middle of a run: the old operator is killed, a new version with a new defaulted field goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster import next_version
from srlm_operator.cluster.client import RUNS
from support.cluster.harness import SHORT, Harness
from support.kstatus import kstatus

pytestmark = pytest.mark.e2e
IMAGES = ("inference", "train", "cpu")


@pytest.mark.parametrize("node", ["generate", "train"])
async def test_nothing_is_keyed_anew_stopped_or_lost(h: Harness, tmp_path: Path, node: str) -> None:
    await h.start()
    h.pods.held.add(node)
    await h.create(**SHORT)
    await h.until(lambda: h.record(node).get("state") == "Running")
    (running,) = h.jobs(node)
    before = h.keys()

    path = next_version.make(tmp_path / "next")
    newer = next_version.definition(path)
    await h.define(newer)  # Helm writes the definition before the Deployment: the old operator is still there
    async with asyncio.timeout(60):
        while next_version.FIELD not in await sampling(h):  # servers take up a definition in their own time
            pass
    await seen(h)
    await h.kill()
    h.path = path
    h.settings = {**h.settings, **{f"image_{name}": f"example.com/{name}:next" for name in IMAGES}}
    await h.start()
    await seen(h)
    assert [job["metadata"]["uid"] for job in h.jobs(node)] == [running["metadata"]["uid"]], "the Job goes on"
    await h.pods.release(node)
    await h.succeeded()

    after = h.keys()
    assert {name: after[name] for name in before} == before
    assert len(h.made()) == len(set(h.made()))
    assert [c for c in h.view.history if (c.kind, c.type) == ("jobs", "DELETED")] == []
    assert len(h.pods.stages.ran) == len(set(h.pods.stages.ran)) + 1, "nothing twice, but for two shards of generate"
    versions = [c.object for c in h.view.history if c.kind == "runs" and "status" in c.object]
    assert {kstatus(obj) for obj in versions} == {"InProgress", "Current"}, "nobody was alarmed"
    assert (h.run()["metadata"]["generation"], (await sampling(h))[next_version.FIELD]) == (1, 0)


async def sampling(h: Harness) -> dict[str, Any]:
    """Section of the run's spec to which the next version adds a field."""
    found: dict[str, Any] = (await h.get())["spec"]["generation"]["sampling"]
    return found


async def seen(h: Harness) -> None:
    """Make the operator look at the run, which the API server reads with the new default from now on."""
    name = f"look-{len(h.view.history)}"
    await h.admin.merge(RUNS, h.namespace, "run", {"metadata": {"labels": {"look": name}}})
    await h.create(name, **SHORT, suspend=True)
    await h.until(lambda: h.status(name))
