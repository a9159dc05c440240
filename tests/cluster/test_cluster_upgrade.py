"""An upgrade in the middle of a run: the old operator is killed, a new version with a new defaulted field goes on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import next_version
from cluster.admin import DEFINITIONS
from cluster.bench import SHORT, Bench
from cluster.target import definition, established
from srlm_operator.cluster.client import RUNS
from srlm_operator.crd.definition import CRD_NAME
from support.kstatus import kstatus

pytestmark = pytest.mark.e2e
IMAGES = ("INFERENCE", "TRAIN", "CPU")


@pytest.fixture
async def upgradable(b: Bench) -> AsyncIterator[Bench]:
    """A bench whose cluster gets this version's definition back at the end."""
    yield b
    await define(b, definition())


async def define(b: Bench, body: dict[str, Any]) -> None:
    await b.admin.merge(DEFINITIONS, "", CRD_NAME, {"spec": body["spec"]})
    await established(b.admin)


def keys(b: Bench) -> dict[str, str]:
    """Key of every stage that status knows."""
    stages = [(n, stage) for n, i in enumerate(b.status().get("iterations", [])) for stage in i["stages"]]
    return {f"{n}/{stage['name']}": stage["key"] for n, stage in stages if stage.get("key")}


@pytest.mark.parametrize("node", ["generate", "train"])
async def test_nothing_is_keyed_anew_stopped_or_lost(upgradable: Bench, tmp_path: Path, node: str) -> None:
    b = upgradable
    b.start()
    b.pods.held.add(node)
    await b.create(**SHORT)
    await b.until(lambda: b.record(node).get("state") == "Running")
    (running,) = b.jobs(node)
    before = keys(b)

    path = next_version.make(tmp_path / "next")
    newer = next_version.definition(path)
    await define(b, newer)  # Helm writes the definition before the Deployment: the old operator is still there
    async with asyncio.timeout(60):
        while next_version.FIELD not in await sampling(b):  # servers take up a definition in their own time
            pass
    await seen(b)
    await b.stop(signal.SIGKILL)
    b.path = path
    b.settings = {**b.settings, **{f"IMAGE_{name}": f"example.com/{name.lower()}:next" for name in IMAGES}}
    b.start()
    await seen(b)
    assert [job["metadata"]["uid"] for job in b.jobs(node)] == [running["metadata"]["uid"]], "the Job goes on"
    await b.pods.release(node)
    await b.succeeded()

    after = keys(b)
    assert {name: after[name] for name in before} == before
    created = b.view.added("jobs")
    assert len(created) == len(set(created))
    assert [c for c in b.view.history if (c.kind, c.type) == ("jobs", "DELETED")] == []
    assert len(b.pods.stages.ran) == len(set(b.pods.stages.ran)) + 1, "nothing twice, but for two shards of generate"
    versions = [c.object for c in b.view.history if c.kind == "runs" and "status" in c.object]
    assert {kstatus(obj) for obj in versions} == {"InProgress", "Current"}, "nobody was alarmed"
    assert (b.run()["metadata"]["generation"], (await sampling(b))[next_version.FIELD]) == (1, 0)


async def sampling(b: Bench) -> dict[str, Any]:
    """Section of the run's spec to which the next version adds a field."""
    found: dict[str, Any] = (await b.admin.get(RUNS, b.namespace, "run"))["spec"]["generation"]["sampling"]
    return found


async def seen(b: Bench) -> None:
    """Make the operator look at the run, which the API server reads with the new default from now on."""
    name = f"look-{len(b.view.history)}"
    await b.admin.patch(RUNS, b.namespace, "run", {"metadata": {"labels": {"look": name}}})
    await b.create(name, **SHORT, suspend=True)
    await b.until(lambda: b.status(name))
