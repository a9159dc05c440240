"""The end of the demo: the report that the operator had made is fetched, or why there is none is said."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from srlm_cli.demo.command import _page
from srlm_contract.tasks import StageTask
from support.cluster.harness import SHORT, Harness, harness
from support.s3_world import Server, server
from support.stage_script import Ending, error


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("s3")) as made:
        yield made


async def page(h: Harness, s3: Server) -> tuple[bytes | None, str]:
    """What the demo gets, and what it says."""
    assert h.machine is not None
    machine: Any = SimpleNamespace(cluster=h.machine.cluster, s3=s3.seaweed.store)
    out = io.StringIO()
    found = await _page(machine, await h.get("demo"), Console(file=out, width=200), asyncio.Event())
    return found, out.getvalue()


def storage(h: Harness, s3: Server) -> dict[str, Any]:
    def write(task: StageTask) -> None:
        key = f"{h.folder.name}/runs/default/demo/report.html"
        s3.client().put_object(Bucket="made", Key=key, Body=b"<!doctype html>")

    h.pods.stages.on_report = write
    return {"uri": f"s3://made/{h.folder.name}", "endpointUrl": s3.url}


async def test_the_demo_waits_for_its_report(tmp_path: Path, s3: Server) -> None:
    async with harness(tmp_path, namespace="default") as h:
        await h.start()
        h.pods.held.add("report")
        await h.create("demo", **SHORT, storage=storage(h, s3))
        await h.until(lambda: h.condition("Ready", "demo"))
        waiting = asyncio.create_task(page(h, s3))
        await asyncio.sleep(0)
        await h.pods.release("report")
        found, said = await waiting
        assert (found, said) == (b"<!doctype html>", "Making the report.\n")


async def test_a_report_that_failed_is_told(tmp_path: Path, s3: Server) -> None:
    async with harness(tmp_path, namespace="default") as h:
        await h.start()
        h.pods.stages.fail("report", Ending(1, "no plot for you"))
        await h.create("demo", **SHORT, storage=storage(h, s3), failurePolicy={"maxAttempts": 1})
        await h.until(lambda: h.condition("Ready", "demo"))
        found, said = await page(h, s3)
        assert found is None
        assert "There is no report: Crashed" in said
        assert "no plot for you" in said


async def test_a_run_that_never_began_has_none(tmp_path: Path, s3: Server) -> None:
    async with harness(tmp_path, namespace="default") as h:
        await h.start()
        h.pods.stages.fail("preflight", error(65, "InvalidSeedData"))
        await h.create("demo", **SHORT, storage=storage(h, s3))
        await h.until(lambda: h.status("demo").get("phase") == "Failed")
        assert await page(h, s3) == (None, "")
