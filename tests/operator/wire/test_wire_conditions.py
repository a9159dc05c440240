"""What only somebody outside the run can mend, over the wire: it shows with the words of the object at fault, as
condition and as event, no attempt is counted, and once it is mended the run goes on by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from srlm_local.podrunner.status import NODE
from srlm_local.store.errors import ApiError, forbidden
from srlm_local.store.events import record
from srlm_local.store.request import Request
from srlm_local.store.resources import ResourceType
from support.wire import JOBS, SHORT, Wire, wire

Object = dict[str, Any]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, pytest.MonkeyPatch]:
    return tmp_path, monkeypatch


@asynccontextmanager
async def strict(folder: Any, *, secret: bool = True, **settings: Any) -> AsyncIterator[Wire]:
    """A cluster whose pods start only when all is well, with the run's Secret unless told otherwise."""
    async with wire(*folder, strict=True, look_again_seconds=0.1, refused_retry_seconds=0.2, **settings) as w:
        if secret:
            put_secret(w, "s3", *KEYS)
        yield w


def put_secret(w: Wire, name: str, *keys: str) -> None:
    body = {"metadata": {"name": name}, "data": dict.fromkeys(keys, "eA==")}
    if w.cluster.find("secrets", name, "default") is None:
        w.cluster.create("secrets", body, "default")
    else:
        w.cluster.patch("secrets", name, {"data": body["data"]}, "default")


def put_config(w: Wire, name: str, key: str) -> None:
    body = {"metadata": {"name": name}, "data": {key: "text"}}
    if w.cluster.find("configmaps", name, "default") is None:
        w.cluster.create("configmaps", body, "default")
    else:
        w.cluster.patch("configmaps", name, {"data": body["data"]}, "default")


async def shows(w: Wire, kind: str, reason: str, *words: str) -> None:
    """The run has the condition with these words, and an event of that reason with them."""

    def seen() -> bool:
        found = w.condition(kind)
        return found.get("reason") == reason and all(word in found["message"] for word in words)

    await w.until(seen)
    assert {c["type"]: c["reason"] for c in w.status()["conditions"] if c["status"] == "False"} == {"Ready": reason}

    def told() -> bool:
        events = [e for e in w.cluster.list("events") if e["involvedObject"]["kind"] == "SelfRewardingRun"]
        return any(e["reason"] == reason and all(word in e["message"] for word in words) for e in events)

    await w.until(told)


async def goes_on(w: Wire, attempts: int = 1) -> None:
    """The run ends well; the stages that had to wait needed no more than `attempts` and counted no failure."""
    await w.until(lambda: w.condition("Ready"))
    status = w.status()
    records = [status["preflightStage"], *(s for i in status["iterations"] for s in i["stages"])]
    assert [r.get("countedFailures", 0) for r in records] == [0] * len(records)
    assert max(r["attempt"] for r in records) <= attempts


@pytest.mark.parametrize(
    ("changes", "mend", "words"),
    [
        ({}, lambda w: put_secret(w, "s3", *KEYS), ('secret "s3" not found',)),
        (
            {"baseModel": {"uri": "hf://org/base", "tokenSecretRef": {"name": "hf", "key": "token"}}},
            lambda w: (put_secret(w, "s3", *KEYS), put_secret(w, "hf", "token")),
            ("secret", "not found"),
        ),
    ],
    ids=["credentials", "hub-token"],
)
async def test_missing_secret(
    folder: Any, changes: Object, mend: Callable[[Wire], object], words: tuple[str, ...]
) -> None:
    async with strict(folder, secret=False) as w:
        await w.start_operator()
        w.apply(**SHORT, **changes)
        await shows(w, "Stalled", "SecretNotFound", "preflight", *words)
        mend(w)
        await goes_on(w)


async def test_missing_key_of_a_secret(folder: Any) -> None:
    async with strict(folder, secret=False) as w:
        put_secret(w, "s3", KEYS[0])
        await w.start_operator()
        w.apply(**SHORT)
        await shows(w, "Stalled", "SecretNotFound", "couldn't find key AWS_SECRET_ACCESS_KEY in Secret default/s3")
        put_secret(w, "s3", *KEYS)
        await goes_on(w)


@pytest.mark.parametrize(
    "changes",
    [
        {"baseModel": {"uri": "hf://org/base", "chatTemplateRef": {"name": "ours", "key": "text"}}},
        {"judging": {"shards": 1, "templateRef": {"name": "ours", "key": "text"}}},
        {
            "storage": {
                "uri": "s3://bucket/prefix",
                "credentialsSecretRef": {"name": "s3"},
                "caBundleRef": {"name": "ours", "key": "text"},
            }
        },
    ],
    ids=["chat-template", "rubric", "ca-bundle"],
)
async def test_missing_config_map_then_missing_key(folder: Any, changes: Object) -> None:
    async with strict(folder) as w:
        await w.start_operator()
        w.apply(**SHORT, **changes)
        await shows(w, "Stalled", "SecretNotFound", 'configmap "ours" not found')
        put_config(w, "ours", "other")
        await w.until(lambda: "references non-existent config key: text" in w.condition("Stalled").get("message", ""))
        put_config(w, "ours", "text")
        await goes_on(w)


async def test_image_that_cannot_be_pulled(folder: Any) -> None:
    async with strict(folder) as w:
        await w.start_operator()
        image = "registry.example.com/does-not-exist:1"
        w.apply(**SHORT, stages={"data": {"image": image}})
        await shows(w, "Reconciling", "ImagePullFailed", "data of M1", image, "not found")
        w.edit({"stages": {"data": {"image": "registry.example.com/exists:1"}}})
        await goes_on(w, attempts=2)  # another image is another Job


async def test_image_that_stays_away_is_a_matter_for_a_person(folder: Any) -> None:
    async with strict(folder, image_pull_patience_seconds=0) as w:
        await w.start_operator()
        w.apply(**SHORT, stages={"data": {"image": "registry.example.com/does-not-exist:1"}})
        await shows(w, "Stalled", "ImagePullFailed", "does-not-exist")


async def test_no_gpu(folder: Any) -> None:
    async with strict(folder) as w:
        await w.start_operator()
        w.apply(**SHORT, stages={"train": {"resources": {"limits": {"nvidia.com/gpu": 8}}}})
        await shows(w, "Reconciling", "Unschedulable", "train of M2", "Insufficient nvidia.com/gpu")
        node = w.cluster.get("nodes", NODE)
        capacity = {**node["status"]["allocatable"], "nvidia.com/gpu": "8"}
        status = {**node["status"], "allocatable": capacity, "capacity": capacity}
        w.cluster.update("nodes", {**node, "status": status}, subresource="status")
        await goes_on(w)


async def test_quota_on_pods_that_lets_some_of_them_through(folder: Any) -> None:
    async with strict(folder) as w:

        def few(rt: ResourceType, obj: Object, request: Request) -> None:
            running = [pod for pod in w.cluster.list("pods") if pod["status"]["phase"] in ("Pending", "Running")]
            if rt.name == "pods" and running:
                raise forbidden("pods", "", obj["metadata"]["name"], "exceeded quota: few, requested: pods=1")

        w.cluster.webhooks.append(few)
        w.pods.held.add("generate")
        await w.start_operator()
        w.apply(**SHORT)
        await shows(w, "Reconciling", "QuotaExceeded", "generate of M2", "exceeded quota: few")
        w.cluster.webhooks.clear()
        w.pods.release("generate")
        await goes_on(w)


def deny(plural: str, message: str, code: int = 403) -> Callable[[ResourceType, Object, Request], None]:
    """An admission webhook that refuses what the operator or a controller creates."""

    def admit(rt: ResourceType, obj: Object, request: Request) -> None:
        if rt.plural == plural and code == 403:
            why = f'admission webhook "policy.example.com" denied the request: {message}'
            raise forbidden(rt.plural, rt.group, obj["metadata"]["name"], why)
        if rt.plural == plural:
            why = f'Internal error occurred: failed calling webhook "policy.example.com": {message}'
            raise ApiError(code, "InternalError", why)

    return admit


@pytest.mark.parametrize("plural", ["jobs", "pods"])
async def test_refusal_of_an_admission_webhook(folder: Any, plural: str) -> None:
    async with strict(folder) as w:
        w.cluster.webhooks.append(deny(plural, "label team is missing"))
        await w.start_operator()
        w.apply(**SHORT)
        text = 'admission webhook "policy.example.com" denied the request: label team is missing'
        await shows(w, "Stalled", "Forbidden", "preflight", text)
        w.cluster.webhooks.clear()
        await goes_on(w)


@pytest.mark.parametrize("plural", ["jobs", "pods"])
async def test_webhook_that_cannot_be_called(folder: Any, plural: str) -> None:
    async with strict(folder) as w:
        w.cluster.webhooks.append(deny(plural, "connect: connection refused", code=500))
        await w.start_operator()
        w.apply(**SHORT)
        await shows(w, "Reconciling", "WebhookFailed", "preflight", "policy.example.com", "connection refused")
        w.cluster.webhooks.clear()
        await goes_on(w)


async def test_missing_service_account(folder: Any) -> None:
    async with strict(folder) as w:
        await w.start_operator()
        w.apply(**SHORT, serviceAccountName="training")
        await shows(w, "Stalled", "ObjectNotFound", 'serviceaccount "training" not found')
        w.cluster.create("serviceaccounts", {"metadata": {"name": "training"}}, "default")
        await goes_on(w)


async def test_missing_priority_class(folder: Any) -> None:
    async with strict(folder) as w:
        await w.start_operator()
        w.apply(**SHORT, scheduling={"priorityClassName": "research"})
        await shows(w, "Stalled", "ObjectNotFound", "no PriorityClass with name research")
        w.cluster.create("priorityclasses.scheduling.k8s.io", {"metadata": {"name": "research"}, "value": 7})
        await goes_on(w)


async def test_a_mount_that_failed_at_first_is_forgotten_once_the_pod_is_beyond_it(folder: Any) -> None:
    """Pulling a large image takes minutes, in which the old event is still there."""
    async with strict(folder) as w:
        w.pods.waiting["preflight"] = {"reason": "ContainerCreating"}
        w.pods.folder = None
        await w.start_operator()
        w.apply(**SHORT)
        await w.until(lambda: w.cluster.list("pods") and "containerStatuses" in w.cluster.list("pods")[0]["status"])
        (pod,) = w.cluster.list("pods")
        status = {**pod["status"], "startTime": "2026-01-01T00:00:00Z"}
        pod = w.cluster.update("pods", {**pod, "status": status}, subresource="status")
        text = 'MountVolume.SetUp failed for volume "rubric" : configmap "ours" not found'
        record(w.cluster, pod, "Warning", "FailedMount", text, "kubelet")
        await shows(w, "Stalled", "SecretNotFound", text)
        record(w.cluster, pod, "Normal", "Pulling", 'Pulling image "x"', "kubelet")
        await w.until(lambda: w.condition("Reconciling").get("reason") == "Progressing")
        w.pods.release("preflight")
        await goes_on(w)


async def test_the_same_problem_is_written_once(folder: Any) -> None:
    """Every try of the Job controller names another pod; the status must not change with it."""
    async with strict(folder) as w:
        w.cluster.webhooks.append(deny("pods", "label team is missing"))
        await w.start_operator()
        w.apply(**SHORT)
        await shows(w, "Stalled", "Forbidden", "preflight")
        version = w.cluster.get("selfrewardingruns.selfrewarding.dev", "run", "default")["metadata"]["resourceVersion"]

        def tries() -> int:
            events = w.cluster.list("events")
            return sum(e.get("count", 1) for e in events if e["reason"] == "FailedCreate")

        before = tries()
        await w.until(lambda: tries() >= before + 3)
        assert w.operator is not None
        await w.operator.reconciler.reconcile(("default", "run"))
        run = w.cluster.get("selfrewardingruns.selfrewarding.dev", "run", "default")
        assert run["metadata"]["resourceVersion"] == version
        assert len(w.cluster.list(JOBS)) == 1
