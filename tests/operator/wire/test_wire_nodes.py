"""Training over several nodes, over the wire: one Indexed Job, and the headless Service its pods meet through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srlm_contract.tasks import StageTask
from srlm_local.store.errors import forbidden
from srlm_operator.cluster.client import SERVICES
from srlm_operator.errors import Unavailable
from support.wire import JOBS, SHORT, Wire, wire

TWO_NODES = {"training": {"nodes": 2, "processesPerNode": 2}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


def training(w: Wire, node: str = "train") -> list[dict[str, Any]]:
    return [j for j in w.jobs() if j["metadata"]["labels"]["selfrewarding.dev/node"] == node]


def pods(w: Wire, job: str) -> list[dict[str, Any]]:
    return [p for p in w.cluster.list("pods") if p["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job]


def task(pod: dict[str, Any]) -> StageTask:
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    return StageTask.model_validate_json(env["SRLM_TASK"] or "")


async def test_two_pods_of_one_job_find_each_other_by_name(folder: Any) -> None:
    async with wire(*folder, local=False, gpu_resource="none") as w:
        await w.start_operator()
        w.pods.held.add("train")
        w.apply(**SHORT, **TWO_NODES)
        (job,) = await w.until(lambda: training(w))
        name = job["metadata"]["name"]
        both = await w.until(lambda: len(pods(w, name)) == 2 and pods(w, name))
        (service,) = w.cluster.list("services", "default")
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        for pod in both:
            assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            assert pod["spec"]["subdomain"] == service["metadata"]["name"]
            # What cluster DNS makes of hostname and subdomain is where all of them look for the first.
            where = f"{name}-0.{service['metadata']['name']}.default.svc"
            assert task(pod).process.master_address == where
        assert sorted(pod["spec"]["hostname"] for pod in both) == [f"{name}-0", f"{name}-1"]
        w.pods.release("train")
        await w.until(lambda: w.condition("Ready"))
        assert len(w.cluster.list("services", "default")) == 1  # one for all trainings of the run
        w.cluster.delete("selfrewardingruns.selfrewarding.dev", "run", "default", propagation="Background")
        await w.until(lambda: not w.cluster.list("services", "default"))


async def test_a_refused_service_shows_and_its_job_waits_for_it(folder: Any) -> None:
    async with wire(*folder, refused_retry_seconds=0.2) as w:

        def no_services(rt: Any, obj: dict[str, Any], request: Any) -> None:
            if rt.name == "services":
                raise forbidden("services", "", obj["metadata"]["name"], "no headless Services here")

        w.cluster.webhooks.append(no_services)
        await w.start_operator()
        w.apply(**SHORT, **TWO_NODES)
        stalled = await w.until(lambda: w.condition("Stalled"))
        assert (stalled["reason"], "no headless Services here" in stalled["message"]) == ("Forbidden", True)
        assert training(w, "sft") == []
        w.cluster.webhooks.clear()
        await w.until(lambda: w.condition("Ready"))


async def test_death_between_service_and_job(folder: Any) -> None:
    async with wire(*folder) as w:
        await w.start_operator()
        assert w.operator is not None
        seen: list[str] = []

        def dies(verb: str, resource: str) -> None:
            if SERVICES.plural in seen:
                raise Unavailable(f"the operator is dead before {verb} {resource}")
            seen.append(resource)

        w.operator.client.on_write = dies
        w.apply(**SHORT, **TWO_NODES)
        await w.until(lambda: w.cluster.list("services", "default"))
        await w.kill_operator()
        assert training(w, "sft") == []
        await w.start_operator()
        await w.until(lambda: w.condition("Ready"))
        assert len(w.cluster.list("services", "default")) == 1


@pytest.mark.parametrize(("node", "exit_code"), [(0, 1), (1, 137)])
async def test_one_lost_node_ends_the_attempt_of_all(folder: Any, node: int, exit_code: int) -> None:
    async with wire(*folder) as w:
        w.pods.held.add("train")
        await w.start_operator()
        w.apply(**SHORT, **TWO_NODES, failurePolicy={"backoffSeconds": 0})
        (job,) = await w.until(lambda: training(w))
        name = job["metadata"]["name"]
        await w.until(lambda: [p["status"]["phase"] for p in pods(w, name)] == ["Running", "Running"])
        w.pods.break_pod(name, node, exit_code)
        await w.until(lambda: len(training(w)) == 2)
        failed = w.cluster.get(JOBS, name, "default")
        assert any(c["type"] == "Failed" and c["status"] == "True" for c in failed["status"]["conditions"])
        w.pods.release("train")
        await w.until(lambda: w.condition("Ready"))
        record = next(s for s in w.status()["iterations"][1]["stages"] if s["name"] == "train")
        assert (record["attempt"], record["countedFailures"]) == (2, 1)
        assert f"{name}-{node}-" in record["lastFailure"]["message"]
