"""The operator works with the chart's rights, is refused nothing, and uses every single one of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from wire import RUNS, SHORT, Wire, wire

from charts import chart_kit as kit
from charts.test_chart_rbac import CLUSTER, LEADING, SERVING, Right
from srlm_local import provision
from srlm_local.access import Authorizer
from srlm_local.errors import ApiError
from srlm_local.request import User
from srlm_local.routing import Route

pytestmark = pytest.mark.e2e

_RBAC = "rbac.authorization.k8s.io"
KINDS = {"Role": "roles", "RoleBinding": "rolebindings", "ClusterRole": "clusterroles"}
KINDS["ClusterRoleBinding"] = "clusterrolebindings"


class Recorder(Authorizer):
    """RBAC that writes down what the operator was granted and what it was refused."""

    def __init__(self, wired: Wire) -> None:
        super().__init__(wired.cluster)
        self.granted: set[Right] = set()
        self.refused: set[Right] = set()

    def check(self, user: User, route: Route) -> None:
        resource = f"{route.plural}/{route.subresource}" if route.subresource else route.plural
        right = (route.group, resource, route.verb)
        own = user.name.endswith(f":{provision.ACCOUNT}")
        try:
            super().check(user, route)
        except ApiError:
            self.refused |= {right} if own else set()
            raise
        self.granted |= {right} if own else set()


def use_chart(wired: Wire, watched: list[str]) -> Recorder:
    """Exchange the account's rights for those of the chart."""
    cluster = wired.cluster
    cluster.delete(f"clusterrolebindings.{_RBAC}", provision.ACCOUNT)
    cluster.delete(f"clusterroles.{_RBAC}", provision.ACCOUNT)
    values = {"fullnameOverride": provision.ACCOUNT, "watchNamespaces": watched}
    for obj in kit.manifests(values, namespace=provision.SYSTEM_NAMESPACE):
        if obj["kind"] in KINDS:
            cluster.create(f"{KINDS[obj['kind']]}.{_RBAC}", obj, obj["metadata"].get("namespace", ""))
    recorder = Recorder(wired)
    wired.server.authorizer = recorder
    return recorder


def job_of(wired: Wire, node: str) -> dict[str, Any]:
    found = [job for job in wired.jobs() if job["metadata"]["labels"]["selfrewarding.dev/node"] == node]
    return found[-1] if found else {}


def state_of(wired: Wire, node: str) -> str:
    """State of a stage of the first iteration as the run's status has it."""
    iterations = wired.status().get("iterations", [])
    return next((s["state"] for s in iterations[-1]["stages"] if s["name"] == node), "") if iterations else ""


async def live_through_everything(wired: Wire, recorder: Recorder) -> None:
    """One run that makes the operator do all it can: start again, lose a Job, ask for events, clean up."""
    await wired.start_operator()
    # A pod that waits for a volume: only events on it say why.
    wired.pods.waiting["data"] = {"reason": "ContainerCreating"}
    wired.pods.held.add("train")
    storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
    training = {"nodes": 2}
    wired.apply(**SHORT, storage=storage, training=training, ttlSecondsAfterFinished=3600)

    def waiting() -> list[dict[str, Any]]:
        pods = [p for p in wired.cluster.list("pods") if p["metadata"]["labels"]["selfrewarding.dev/node"] == "data"]
        return [pod for pod in pods if pod.get("status", {}).get("containerStatuses")]

    (pod,) = await wired.until(waiting)
    since = {**pod["status"], "startTime": "2020-01-01T00:00:00Z"}
    wired.cluster.update("pods", {**pod, "status": since}, subresource="status")
    # The run is looked at again with the next event, and then asks.
    wired.cluster.patch("pods", pod["metadata"]["name"], {"metadata": {"annotations": {"x": "y"}}}, "default")
    await wired.until(lambda: ("", "events", "list") in recorder.granted)
    wired.pods.release("data")

    # Two nodes train, and the operator is away while their Job is deleted by hand.
    for node in ("sft", "prompts", "generate", "judge", "pairs", "train"):
        await wired.until(functools.partial(job_of, wired, node))  # each has the time limit of a wait
    job = job_of(wired, "train")
    await wired.until(lambda: state_of(wired, "train") == "Running")
    await wired.until(lambda: ("", "pods/log", "get") in recorder.granted)
    await wired.stop_operator()
    wired.cluster.delete("jobs.batch", job["metadata"]["name"], "default", propagation="Background")
    await wired.until(lambda: not job_of(wired, "train"))
    await wired.start_operator()
    await wired.until(lambda: job_of(wired, "train").get("status", {}).get("active"))

    wired.edit({"suspend": True})
    await wired.until(lambda: wired.status()["phase"] == "Suspended" and not job_of(wired, "train"))
    wired.pods.release("train")
    wired.edit({"suspend": False})
    await wired.until(lambda: wired.condition("Ready"))
    wired.cluster.delete(RUNS, "run", "default", propagation="Background")
    await wired.until(lambda: wired.cluster.find(RUNS, "run", "default") is None)
    await wired.stop_operator()


@pytest.mark.parametrize("watched", [[], ["default"]], ids=["cluster", "namespaced"])
async def test_rights_are_enough_and_none_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: list[str]
) -> None:
    election = {
        "leader_elect": True,
        "lease_name": provision.ACCOUNT,
        "lease_namespace": provision.SYSTEM_NAMESPACE,
        "lease_seconds": 5,
    }
    settings = {"namespaces": tuple(watched), "progress_seconds": 0.2} | election
    async with wire(tmp_path, monkeypatch, **settings) as wired:
        recorder = use_chart(wired, watched)
        await live_through_everything(wired, recorder)
        assert recorder.refused == set()
        assert recorder.granted == SERVING | LEADING | (set() if watched else CLUSTER)
