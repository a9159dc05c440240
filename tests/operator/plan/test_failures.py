"""How the planner answers failures: what counts, what is retried, what needs a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from srlm_contract.tasks import ArtifactRef
from srlm_operator.values import Refusal
from support.builders import spec
from support.fake_cluster import FakeCluster, attempts, until_node
from support.stage_script import Ending, error


def test_crash_counts_backs_off_and_ends_in_attempts_exhausted() -> None:
    world = FakeCluster()
    world.stages.fail("pairs", *[Ending(1, "boom")] * 3)
    name = until_node(world, "1/pairs")
    world.finish(name)
    found = world.reconcile()
    record = world.record("1/pairs")
    assert (record.state, record.counted_failures, record.last_failure.reason) == ("Retrying", 1, "Crashed")
    assert record.last_failure.exit_code == 1
    assert found.requeue_after == 10
    assert world.condition("Reconciling") == "Retrying"
    world.advance(10)
    world.reconcile()
    world.finish(world.active()[0])
    assert world.reconcile().requeue_after == 20
    world.settle()
    assert world.condition("Stalled") == "AttemptsExhausted"
    assert (world.status.phase, attempts(world, "1/pairs")) == ("Failed", 3)
    writes = world.writes
    world.advance(100_000)
    world.reconcile()
    assert world.writes == writes


def test_spec_change_gives_new_attempts() -> None:
    world = FakeCluster()
    world.stages.fail("pairs", *[Ending(1)] * 3)
    world.settle()
    world.edit(failure_policy=world.spec.failure_policy.model_copy(update={"max_attempts": 4}))
    world.settle()
    assert world.status.phase == "Succeeded"
    assert attempts(world, "1/pairs") == 4


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending(137, "", "OOMKilled"), "OutOfMemory"),
        (error(1, "DiskFull", "no space left on device"), "DiskFull"),
        (Ending(1, "Traceback: KeyError"), "Crashed"),
    ],
)
def test_cause_of_a_crash_is_named(ending: Ending, reason: str) -> None:
    world = FakeCluster()
    world.stages.fail("train", ending)
    world.finish(until_node(world, "1/train"))
    world.reconcile()
    failure = world.record("1/train").last_failure
    assert failure.reason == reason
    if reason == "OutOfMemory":
        assert "stages.train.resources.limits.memory" in failure.message


def test_disruption_is_free() -> None:
    world = FakeCluster()
    world.stages.fail("train", *[Ending(143, "", "Error", disrupted=True)] * 5)
    world.settle()
    assert world.status.phase == "Succeeded"
    record = world.record("1/train")
    assert (record.counted_failures, record.attempt) == (0, 6)


def test_job_deleted_by_hand_is_free() -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    world.remove(name)
    world.reconcile()
    assert world.record("1/train").last_failure.reason == "JobGone"
    world.settle()
    assert (world.status.phase, world.record("1/train").counted_failures) == ("Succeeded", 0)


@pytest.mark.parametrize("message", ["", "no JSON", '{"stage": "train", "contentDigest": "sha256:'])
def test_a_complete_job_that_says_nothing_readable_is_tried_as_often_as_others(message: str) -> None:
    world = FakeCluster()
    world.stages.fail("train", *[Ending(0, message, "Completed")] * 99)
    world.settle()
    record = world.record("1/train")
    assert (record.state, record.counted_failures, attempts(world, "1/train")) == ("Failed", 3, 3)
    assert record.last_failure.reason == "NoResult"
    assert world.pods[record.job][0].name in record.last_failure.message
    assert world.condition("Stalled") == "AttemptsExhausted"


def complete_without_pods(world: FakeCluster, job: str, *, committed: bool = True) -> None:
    """The Job ends well, and its pods are removed before anybody reads them."""
    if committed:
        world.finish(job)
    world.jobs[job] = replace(world.jobs[job], state="Complete", active=0, finished_at=world.now)
    world.pods[job] = []


@pytest.mark.parametrize("most", [1, 3])
def test_pods_gone_and_the_artifact_found(most: int) -> None:
    world = FakeCluster()
    world.edit(failure_policy=world.spec.failure_policy.model_copy(update={"max_attempts": most}))
    complete_without_pods(world, until_node(world, "1/generate"))
    world.reconcile()
    assert world.record("1/generate").last_failure.reason == "PodsGone"
    world.settle()
    assert world.status.phase == "Succeeded"
    assert attempts(world, "1/generate") == 1, "preflight has found what it committed"
    assert world.record("1/generate").reused
    assert world.stages.ran.count("1/generate") == 2, "once for each shard"


def test_pods_gone_and_the_artifact_of_an_old_iteration_kept() -> None:
    """Iterations that status has shortened are not made again."""
    world = FakeCluster(spec=spec(iterations=8, evaluation={"enabled": False}))
    complete_without_pods(world, until_node(world, "8/train"))
    world.settle()
    assert world.status.phase == "Succeeded"
    assert {attempts(world, f"{t}/train") for t in range(1, 9)} == {1}


@pytest.mark.parametrize("node", ["0/data", "0/preflight", "1/generate"])
def test_pods_that_always_go_unread_are_not_replaced_for_ever(node: str) -> None:
    world = FakeCluster()
    for _ in range(3):
        complete_without_pods(world, until_node(world, node), committed=False)
    world.settle()
    assert world.condition("Stalled") == "AttemptsExhausted"
    assert len([name for name in world.created if world.node_of(name) == node]) == 3


def test_a_report_whose_pod_went_is_there() -> None:
    world = FakeCluster()
    complete_without_pods(world, until_node(world, "0/report"))
    world.settle()
    assert world.status.report.uri
    assert attempts(world, "0/report") == 1


def test_temporary_failures_have_a_budget_of_time_not_a_count() -> None:
    world = FakeCluster()
    world.stages.fail("data", *[error(75, "StorageUnavailable", "S3 does not answer")] * 8)
    world.finish(until_node(world, "0/data"))
    world.reconcile()
    assert world.condition("Reconciling") == "StorageUnavailable"
    world.settle()
    assert world.status.phase == "Succeeded"
    record = world.record("0/data")
    assert (record.attempt, record.counted_failures) == (9, 0)


def test_temporary_budget_spent_counts() -> None:
    policy = {"temporaryBudgetSeconds": 60, "maxAttempts": 2}
    world = FakeCluster(spec=spec(failurePolicy=policy))
    world.stages.fail("data", *[error(75, "StorageUnavailable")] * 100)
    world.settle()
    assert world.condition("Stalled") == "StorageUnavailable" or world.condition("Stalled") == "AttemptsExhausted"
    assert world.record("0/data").counted_failures == 2


def test_not_permitted_stalls_is_checked_slowly_and_recovers() -> None:
    world = FakeCluster()
    world.stages.fail("preflight", *[error(77, "StorageNotPermitted", "403")] * 3)
    world.reconcile()
    world.finish(world.active()[0])
    found = world.reconcile()
    assert world.condition("Stalled") == "StorageNotPermitted"
    assert (world.status.phase, found.requeue_after) == ("Failed", 60)
    for _ in range(3):
        world.advance((found.requeue_after or 0) + 1)
        world.reconcile()
        assert world.condition("Stalled") == "StorageNotPermitted"
        world.finish(world.active()[0])
        found = world.reconcile()
    assert world.condition("Stalled") == ""
    world.settle()
    assert world.status.phase == "Succeeded"


def test_the_condition_ends_with_what_to_do() -> None:
    world = FakeCluster()
    world.stages.fail("preflight", error(77, "StorageNotPermitted", "s3://bucket: 403 AccessDenied"))
    world.reconcile()
    name = world.active()[0]
    _set(world, name, replace, unschedulable="0/3 nodes: Insufficient memory")
    world.reconcile()
    ready = next(c.message for c in world.status.conditions if c.type == "Ready")
    assert world.status.phase == "Waiting"
    assert ready.endswith("0/3 nodes: Insufficient memory. Check resources, node selectors and free GPUs.")
    world.finish(name)
    world.reconcile()
    for condition in world.status.conditions:
        assert condition.message.endswith("403 AccessDenied. Correct the Secret or the policy.")
    writes = world.writes
    world.reconcile()
    assert world.writes == writes


def stalled_for(world: FakeCluster, checks: int) -> list[float]:
    """Pauses of a run whose storage refuses it all the time."""
    pauses = []
    for _ in range(checks):
        world.reconcile()
        world.finish(world.active()[0])
        pauses.append(world.reconcile().requeue_after or 0)
        world.advance(pauses[-1])
    return pauses


def test_rechecks_become_rare_and_leave_one_job() -> None:
    world = FakeCluster()
    world.stages.fail("preflight", *[error(77, "StorageNotPermitted", "403")] * 20)
    assert stalled_for(world, 10) == [60, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert (len(world.created), len(world.jobs)) == (10, 1)
    world.reconcile()
    assert list(world.jobs) == [world.created[-1]]


@pytest.mark.parametrize("by", ["edit", "annotation"])
def test_a_person_has_it_checked_at_once(by: str) -> None:
    world = FakeCluster()
    world.stages.fail("preflight", *[error(77, "StorageNotPermitted", "403")] * 8)
    stalled_for(world, 7)
    world.reconcile()
    world.finish(world.active()[0])
    world.reconcile()
    assert not world.active()
    if by == "edit":
        world.edit(ttl_seconds_after_finished=60)
    else:
        world.annotations["selfrewarding.dev/retry"] = "now"
    world.reconcile()
    assert world.active()
    world.finish(world.active()[0])
    world.settle()
    assert world.status.phase == "Succeeded"


def test_an_annotation_gives_new_attempts_once() -> None:
    world = FakeCluster()
    world.stages.fail("pairs", *[Ending(1)] * 6)
    world.settle()
    world.annotations["selfrewarding.dev/retry"] = "1"
    world.settle()
    assert (world.condition("Stalled"), attempts(world, "1/pairs")) == ("AttemptsExhausted", 6)
    world.annotations["selfrewarding.dev/retry"] = "2"
    world.settle()
    assert (world.status.phase, attempts(world, "1/pairs")) == ("Succeeded", 7)


def test_a_recheck_that_does_not_start_says_why_and_not_what_was_wrong_before() -> None:
    world = FakeCluster()
    world.stages.fail("preflight", error(77, "StorageNotPermitted", "403"))
    world.reconcile()
    world.finish(world.active()[0])
    world.reconcile()
    world.advance(61)
    world.reconcile()
    (name,) = world.active()
    waiting = {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "s3" not found'}
    _set(world, name, replace, **waiting)
    world.reconcile()
    assert (world.condition("Stalled"), world.status.phase) == ("SecretNotFound", "Stalled")
    _set(world, name, replace, waiting_reason="", waiting_message="", phase="Running")
    world.reconcile()
    assert world.condition("Stalled") == "StorageNotPermitted"
    world.finish(name)
    world.reconcile()
    assert world.condition("Stalled") == ""


@pytest.mark.parametrize(
    ("node", "ending", "reason"),
    [
        ("data", error(65, "InvalidSeedData", "no ranks"), "InvalidSeedData"),
        ("preflight", error(65, "ModelNotUsable", "no such model"), "ModelNotUsable"),
        ("judge", error(65, "JudgeNotUsable", "0 of 16 verdicts"), "JudgeNotUsable"),
        ("pairs", error(65, "NoPairs", "all tied"), "NoPairs"),
        ("pairs", error(64, "InvalidTask", "unknown field"), "InvalidTask"),
    ],
)
def test_what_only_a_person_can_fix(node: str, ending: Ending, reason: str) -> None:
    world = FakeCluster()
    world.stages.fail(node, ending)
    for _ in range(300):
        if world.condition("Stalled"):
            break
        world.step()
    assert world.condition("Stalled") == reason
    assert world.status.phase == "Failed"


def test_only_missing_shards_run_again() -> None:
    world = FakeCluster(spec=spec(generation={"shards": 4}))
    name = until_node(world, "1/generate")
    good = world.stages.run
    task = world.tasks[name]
    pods = [world._end(pod, Ending(1) if pod.index in (1, 3) else good(task, pod.index)) for pod in world.pods[name]]
    world.pods[name] = pods
    world.jobs[name] = replace(world.jobs[name], state="Failed", completed=(0, 2), active=0, finished_at=world.now)
    world.reconcile()
    assert world.record("1/generate").finished_shards == "0,2"
    world.advance(11)
    world.reconcile()
    again = world.active()[0]
    assert world.missing_of(again) == (1, 3)
    assert world.jobs[again].completions == 2
    assert world.tasks[again].shards == 4
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.stages.ran.count("1/generate") == 4


def test_damaged_artifact_is_made_again_by_its_producer() -> None:
    world = FakeCluster()
    name = until_node(world, "1/pairs")
    judged = world.tasks[name].inputs["judgements-1"]
    world.stages.fail("pairs", error(65, "InputDamaged", "sha256 differs", judged))
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.stages.ran.count("1/judge") == 2
    repaired = [world.tasks[n] for n in world.created if world.node_of(n) == "1/judge"]
    assert [task.repair for task in repaired] == [False, True]
    assert world.record("1/pairs").counted_failures == 1


def test_damaged_artifact_of_nobody_stalls() -> None:
    world = FakeCluster()
    stranger = ArtifactRef(stage="train", key="0" * 24, content_digest="sha256:" + "0" * 64)
    world.stages.fail("pairs", error(65, "InputDamaged", "gone", stranger))
    for _ in range(300):
        if world.condition("Stalled"):
            break
        world.step()
    assert world.condition("Stalled") == "ArtifactDamaged"


def test_a_figure_that_is_no_number_does_no_harm() -> None:
    world = FakeCluster()
    world.stages.statistics = {"train": {"loss": float("nan"), "rewardMargin": 3.0, "tokens": float("inf")}}
    world.settle()
    assert world.status.phase == "Succeeded"
    assert world.record("1/train").statistics == {"rewardMargin": 3.0}


def test_a_job_suspended_by_its_queue_waits() -> None:
    world = FakeCluster(spec=spec(scheduling={"cpuQueueName": "cpu-queue"}))
    world.reconcile()
    world.reconcile()
    assert (world.condition("Reconciling"), world.status.phase) == ("WaitingForQueue", "Queued")
    name = world.created[0]
    world.jobs[name] = replace(world.jobs[name], state="Active")  # the queue lets it start
    world.start_pods(name)
    world.finish(name)
    world.reconcile()
    assert world.node_of(world.created[1]) == "0/data"


def _refusal(world: FakeCluster, name: str, reason: str) -> None:
    world.refuse = {name: Refusal(reason, "the server says no", world.now)}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("QuotaExceeded", "Reconciling"), ("Forbidden", "Stalled"), ("NameConflict", "Stalled")],
)
def test_refused_creation_shows_and_is_tried_again(reason: str, kind: str) -> None:
    world = FakeCluster()
    probe = FakeCluster()
    probe.reconcile()
    _refusal(world, probe.created[0], reason)
    found = world.reconcile()
    assert world.condition(kind) == reason
    assert (world.created, found.requeue_after) == ([], 30)
    world.advance(31)
    world.settle()
    assert world.status.phase == "Succeeded"


def _set(world: FakeCluster, name: str, change: Callable[..., object], **fields: object) -> None:
    world.pods[name] = [change(pod, **fields) for pod in world.pods[name]]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"unschedulable": "0/3 nodes: Insufficient nvidia.com/gpu"}, "Reconciling", "Unschedulable"),
        ({"waiting_reason": "ImagePullBackOff", "waiting_message": "no such image"}, "Reconciling", "ImagePullFailed"),
        (
            {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "s3" not found'},
            "Stalled",
            "SecretNotFound",
        ),
        ({"waiting_reason": "CreateContainerConfigError", "waiting_message": "odd"}, "Reconciling", "PodConfigError"),
    ],
)
def test_waiting_pods_say_why_and_recover(fields: dict[str, str], kind: str, reason: str) -> None:
    world = FakeCluster()
    name = until_node(world, "0/data")
    _set(world, name, replace, **fields)
    world.reconcile()
    assert world.condition(kind) == reason
    assert reason in world.events
    condition = next(c for c in world.status.conditions if c.type == kind)
    assert next(iter(v for k, v in fields.items() if k != "waiting_reason")) in condition.message
    _set(world, name, replace, unschedulable="", waiting_reason="", phase="Running")
    world.reconcile()
    assert world.condition("Reconciling") == "Progressing"
    assert world.record("0/data").attempt == 1


@pytest.mark.parametrize(
    ("waiting", "message", "reason"),
    [
        ("ImagePullBackOff", "no such image", "ImagePullFailed"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "PodConfigError"),
    ],
)
def test_what_lasts_is_a_matter_for_a_person(waiting: str, message: str, reason: str) -> None:
    world = FakeCluster()
    name = until_node(world, "0/data")
    _set(world, name, replace, waiting_reason=waiting, waiting_message=message)
    assert world.reconcile().requeue_after == pytest.approx(600, abs=2)
    assert world.condition("Reconciling") == reason
    world.advance(601)
    world.reconcile()
    assert world.condition("Stalled") == reason


def test_a_stopped_pod_that_its_job_never_replaces_costs_nothing_but_time() -> None:
    world = FakeCluster()
    name = until_node(world, "1/generate")
    world.start_pods(name)
    world.pods[name][0] = replace(world.pods[name][0], phase="Failed", deleting=True, deleted_at=world.now)
    assert world.reconcile().requeue_after == 900
    assert name in world.active()
    world.advance(900)
    world.reconcile()
    assert name not in world.active()
    world.settle()
    assert (world.status.phase, world.record("1/generate").counted_failures) == ("Succeeded", 0)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0", "Reconciling", "QuotaExceeded"),
        ("failed quota: r: must specify limits.cpu for: stage", "Stalled", "LimitsRequired"),
        ("maximum cpu usage per Container is 1, but limit is 2", "Stalled", "Forbidden"),
        ('violates PodSecurity "restricted:latest": hostPath volumes (volume "model-cache")', "Stalled", "Forbidden"),
        (
            'error looking up service account team/none: serviceaccount "none" not found',
            "Stalled",
            "ObjectNotFound",
        ),
        ("no PriorityClass with name none was found", "Stalled", "ObjectNotFound"),
        ('pod rejected: RuntimeClass "none" not found', "Stalled", "ObjectNotFound"),
        ('admission webhook "policy" denied the request: image not found in the allow list', "Stalled", "Forbidden"),
    ],
)
def test_why_a_job_gets_no_pods(text: str, kind: str, reason: str) -> None:
    """The words are those of a recorded API server; the Job controller repeats them in an event."""
    world = FakeCluster()
    name = until_node(world, "0/data")
    message = f'Error creating: pods "{name}-0" is forbidden: {text}'
    pods, world.pods[name] = world.pods[name], []
    world.jobs[name] = replace(world.jobs[name], create_error=message)
    found = world.reconcile()
    assert world.condition(kind) == reason
    assert any(c.type == kind and message in c.message for c in world.status.conditions)
    assert found.requeue_after == 5
    world.jobs[name] = replace(world.jobs[name], create_error="")
    world.pods[name] = pods
    world.settle()
    assert (world.status.phase, world.record("0/data").attempt) == ("Succeeded", 1)


def test_what_a_quota_demands_is_named_as_a_field() -> None:
    world = FakeCluster()
    name = until_node(world, "1/train")
    text = 'pods "x-0-abc" is forbidden: failed quota: r: must specify limits.cpu for: stage; limits.memory for: stage'
    world.jobs[name] = replace(world.jobs[name], create_error=text)
    world.pods[name] = []
    world.reconcile()
    (said,) = {c.message for c in world.status.conditions}
    assert said.endswith("set spec.stages.train.resources.limits.cpu and spec.stages.train.resources.limits.memory")
