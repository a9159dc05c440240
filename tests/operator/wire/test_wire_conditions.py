"""What only somebody outside the run can mend, over the wire: it shows with the words of the object at fault, as
condition and as event, no attempt is counted, and once it is mended the run goes on by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from srlm_local.jobcontroller import sync
from srlm_local.store.errors import ApiError, forbidden
from srlm_local.store.request import Request
from srlm_local.store.resources import ResourceType
from srlm_operator.cluster.client import PODS
from support.cluster.admin import ACCOUNTS, CONFIG_MAPS, PRIORITIES, QUOTAS, SECRETS
from support.cluster.faults import Fail
from support.cluster.fixtures import MakeHarness
from support.cluster.harness import SHORT, Harness
from support.cluster.kubelet import tell
from support.cluster.target import given
from support.cluster.view import viewing

Object = dict[str, Any]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
WEBHOOKS = pytest.mark.one_machine("webhooks of the API server itself are Python functions there")


@asynccontextmanager
async def strict(make_harness: MakeHarness, *, secret: bool = True, **settings: Any) -> AsyncIterator[Harness]:
    """A cluster whose pods start only when all is well, with the run's Secret unless told otherwise."""
    async with make_harness(strict=True, look_again_seconds=0.1, gpu_resource="none", **settings) as h:
        if secret:
            await put_secret(h, "s3", *KEYS)
        yield h


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one-machine Job controller soon tries again to create a pod."""
    monkeypatch.setattr(sync, "RETRY_SECONDS", 0.2)


async def put_secret(h: Harness, name: str, *keys: str) -> None:
    await h.put(SECRETS, name, data=dict.fromkeys(keys, "eA=="))


async def shows(h: Harness, kind: str, reason: str, *words: str) -> None:
    """The run has the condition with these words, and an event of that reason with them."""

    def seen() -> bool:
        found = h.condition(kind)
        return found.get("reason") == reason and all(word in found["message"] for word in words)

    await h.until(seen)
    assert {c["type"]: c["reason"] for c in h.status()["conditions"] if c["status"] == "False"} == {"Ready": reason}
    await h.until(lambda: [e for e in h.events(reason) if all(word in e["message"] for word in words)])


async def goes_on(h: Harness, attempts: int = 1) -> None:
    """The run ends well; the stages that had to wait needed no more than `attempts` and counted no failure."""
    status = await h.succeeded()
    records = [status["preflightStage"], *(s for i in status["iterations"] for s in i["stages"])]
    assert [r.get("countedFailures", 0) for r in records] == [0] * len(records)
    assert max(r["attempt"] for r in records) <= attempts


async def put_both(h: Harness) -> None:
    await put_secret(h, "s3", *KEYS)
    await put_secret(h, "hf", "token")


@pytest.mark.parametrize(
    ("changes", "mend", "words"),
    [
        ({}, lambda h: put_secret(h, "s3", *KEYS), ('secret "s3" not found',)),
        (
            {"baseModel": {"uri": "hf://org/base", "tokenSecretRef": {"name": "hf", "key": "token"}}},
            put_both,
            ("secret", "not found"),
        ),
    ],
    ids=["credentials", "hub-token"],
)
async def test_missing_secret(
    make_harness: MakeHarness, changes: Object, mend: Callable[[Harness], Awaitable[None]], words: tuple[str, ...]
) -> None:
    async with strict(make_harness, secret=False) as h:
        await h.start()
        await h.create(**SHORT, **changes)
        await shows(h, "Stalled", "SecretNotFound", "preflight", *words)
        await mend(h)
        await goes_on(h)


async def test_missing_key_of_a_secret(make_harness: MakeHarness) -> None:
    async with strict(make_harness, secret=False) as h:
        await put_secret(h, "s3", KEYS[0])
        await h.start()
        await h.create(**SHORT)
        text = f"couldn't find key AWS_SECRET_ACCESS_KEY in Secret {h.namespace}/s3"
        await shows(h, "Stalled", "SecretNotFound", text)
        await put_secret(h, "s3", *KEYS)
        await goes_on(h)


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
async def test_missing_config_map_then_missing_key(make_harness: MakeHarness, changes: Object) -> None:
    async with strict(make_harness) as h:
        await h.start()
        await h.create(**SHORT, **changes)
        await shows(h, "Stalled", "SecretNotFound", 'configmap "ours" not found')
        await h.put(CONFIG_MAPS, "ours", data={"other": "text"})
        await h.until(lambda: "references non-existent config key: text" in h.condition("Stalled").get("message", ""))
        await h.put(CONFIG_MAPS, "ours", data={"text": "text"})
        await goes_on(h)


async def test_image_that_cannot_be_pulled(make_harness: MakeHarness) -> None:
    async with strict(make_harness) as h:
        await h.start()
        image = "registry.example.com/does-not-exist:1"
        await h.create(**SHORT, stages={"data": {"image": image}})
        await shows(h, "Reconciling", "ImagePullFailed", "data of M1", image, "not found")
        await h.edit({"stages": {"data": {"image": "registry.example.com/exists:1"}}})
        await goes_on(h, attempts=2)  # another image is another Job


async def test_image_that_stays_away_is_a_matter_for_a_person(make_harness: MakeHarness) -> None:
    async with strict(make_harness, image_pull_patience_seconds=0) as h:
        await h.start()
        await h.create(**SHORT, stages={"data": {"image": "registry.example.com/does-not-exist:1"}})
        await shows(h, "Stalled", "ImagePullFailed", "does-not-exist")


async def test_no_gpu(make_harness: MakeHarness) -> None:
    async with strict(make_harness) as h:
        await h.start()
        await h.create(**SHORT, stages={"train": {"resources": {"limits": {"nvidia.com/gpu": 8}}}})
        await shows(h, "Reconciling", "Unschedulable", "train of M2", "Insufficient nvidia.com/gpu")
        assert h.pods.kubelet is not None
        h.pods.kubelet.extended["nvidia.com/gpu"] = 8
        await h.view.poke()
        await goes_on(h)


@pytest.mark.skipif(given() is None, reason="the one-machine cluster has no quotas")
async def test_quota_on_jobs(h: Harness) -> None:
    await h.put(QUOTAS, "none", spec={"hard": {"count/jobs.batch": "0"}})
    async with viewing(h.admin, h.namespace, {"quotas": QUOTAS}) as view:
        await view.until(lambda: "hard" in view.objects["quotas"]["none"].get("status", {}))
    await h.start()
    await h.create(**SHORT)
    await shows(h, "Reconciling", "QuotaExceeded", "exceeded quota: none")
    await h.admin.remove(QUOTAS, h.namespace, "none")
    await goes_on(h)


@WEBHOOKS
@pytest.mark.usefixtures("impatient")
async def test_quota_on_pods_that_lets_some_of_them_through(make_harness: MakeHarness) -> None:
    async with strict(make_harness) as h:
        assert h.machine is not None
        cluster = h.machine.cluster

        def few(rt: ResourceType, obj: Object, request: Request) -> None:
            running = [pod for pod in cluster.list("pods") if pod["status"]["phase"] in ("Pending", "Running")]
            if rt.name == "pods" and running:
                raise forbidden("pods", "", obj["metadata"]["name"], "exceeded quota: few, requested: pods=1")

        cluster.webhooks.append(few)
        h.pods.held.add("generate")
        await h.start()
        await h.create(**SHORT)
        await shows(h, "Reconciling", "QuotaExceeded", "generate of M2", "exceeded quota: few")
        cluster.webhooks.clear()
        await h.pods.release("generate")
        await goes_on(h)


DENIED = (403, 'admission webhook "policy.example.com" denied the request: label team is missing')
UNREACHABLE = (500, 'failed calling webhook "policy.example.com": connect: connection refused')
REFUSALS = [
    pytest.param(DENIED, ("Stalled", "Forbidden", "preflight", DENIED[1]), id="denied"),
    pytest.param(
        UNREACHABLE,
        ("Reconciling", "WebhookFailed", "preflight", "policy.example.com", "connection refused"),
        id="unreachable",
    ),
]


@pytest.mark.parametrize(("refusal", "shown"), REFUSALS)
async def test_job_refused_by_an_admission_webhook(h: Harness, refusal: tuple[int, str], shown: list[str]) -> None:
    h.proxy.add(Fail(path="/jobs$", methods={"POST"}, status=refusal[0], message=refusal[1]))
    await h.start()
    await h.create(**SHORT)
    await shows(h, *shown)
    h.proxy.clear()
    await goes_on(h)


def deny_pods(h: Harness, code: int, message: str) -> Callable[[], None]:
    """An admission webhook that refuses what the Job controller creates. Returns what takes it away."""

    def admit(rt: ResourceType, obj: Object, request: Request) -> None:
        if rt.name == "pods":
            raise ApiError(code, "Forbidden" if code == 403 else "InternalError", message)

    assert h.machine is not None
    h.machine.cluster.webhooks.append(admit)
    return h.machine.cluster.webhooks.clear


@WEBHOOKS
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("refusal", "shown"), REFUSALS)
async def test_pod_refused_by_an_admission_webhook(
    make_harness: MakeHarness, refusal: tuple[int, str], shown: list[str]
) -> None:
    async with strict(make_harness) as h:
        allow = deny_pods(h, *refusal)
        await h.start()
        await h.create(**SHORT)
        await shows(h, *shown)
        allow()
        await goes_on(h)


@pytest.mark.usefixtures("impatient")
async def test_missing_service_account(make_harness: MakeHarness) -> None:
    async with strict(make_harness) as h:
        await h.start()
        await h.create(**SHORT, serviceAccountName="training")
        await shows(h, "Stalled", "ObjectNotFound", 'serviceaccount "training" not found')
        await h.put(ACCOUNTS, "training")
        await goes_on(h)


@pytest.mark.usefixtures("impatient")
async def test_missing_priority_class(make_harness: MakeHarness) -> None:
    async with strict(make_harness) as h:
        name = f"{h.namespace}-research"
        await h.start()
        await h.create(**SHORT, scheduling={"priorityClassName": name})
        await shows(h, "Stalled", "ObjectNotFound", f"no PriorityClass with name {name}")
        await h.put_unscoped(PRIORITIES, name, value=7)
        await goes_on(h)


async def test_a_mount_that_failed_at_first_is_forgotten_once_the_pod_is_beyond_it(make_harness: MakeHarness) -> None:
    """Pulling a large image takes minutes, in which the old event is still there."""
    async with make_harness(look_again_seconds=0.1) as h:
        h.pods.waiting["preflight"] = {"reason": "ContainerCreating"}
        await h.start()
        await h.create(**SHORT)
        await h.until(lambda: [p for p in h.pods_of("preflight") if "containerStatuses" in p.get("status", {})])
        (pod,) = h.pods_of("preflight")
        await h.admin.write_status(PODS, pod, {"startTime": "2026-01-01T00:00:00Z"})
        text = 'MountVolume.SetUp failed for volume "rubric" : configmap "ours" not found'
        await tell(h.admin, pod, "Warning", "FailedMount", text)
        await shows(h, "Stalled", "SecretNotFound", text)
        await tell(h.admin, pod, "Normal", "Pulling", 'Pulling image "x"', later=1)
        await h.until(lambda: h.condition("Reconciling").get("reason") == "Progressing")
        await h.pods.release("preflight")
        await goes_on(h)


@WEBHOOKS
@pytest.mark.usefixtures("impatient")
async def test_the_same_problem_is_written_once(make_harness: MakeHarness) -> None:
    """Every try of the Job controller names another pod; the status must not change with it."""
    async with strict(make_harness) as h:
        deny_pods(h, *DENIED)
        await h.start()
        await h.create(**SHORT)
        await shows(h, "Stalled", "Forbidden", "preflight")
        version = (await h.get())["metadata"]["resourceVersion"]

        def tries() -> int:
            events = h.view.objects["events"].values()
            return sum(e.get("count", 1) for e in events if e["reason"] == "FailedCreate")

        before = tries()
        await h.until(lambda: tries() >= before + 3)
        assert h.operator is not None
        await h.operator.reconciler.reconcile((h.namespace, "run"))
        assert (await h.get())["metadata"]["resourceVersion"] == version
        assert len(h.jobs()) == 1
