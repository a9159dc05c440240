"""What is read off Jobs and pods as a real cluster writes them."""

from __future__ import annotations

from typing import Any

import pytest

from srlm_contract.base import Contract
from srlm_operator.cluster.views import ParsedRuns, job_view, parse_run, pod_view
from srlm_operator.settings import Settings
from support.builders import manifest_spec

CREATING = {"reason": "PodInitializing"}
PULL = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}


def pod(phase: str = "Pending", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "uid": "u", "labels": {}},
        "spec": {"containers": [{"name": "stage"}]},
        "status": {"phase": phase, **status},
    }


def container(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "state": state}


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": [container("stage", waiting=PULL)]},
        {"containerStatuses": [container("stage", running={}), container("sidecar", waiting=PULL)]},
        {"containerStatuses": [container("sidecar", waiting=PULL), container("stage", waiting=CREATING)]},
        {
            "initContainerStatuses": [container("init", waiting=PULL)],
            "containerStatuses": [container("stage", waiting=CREATING)],
        },
    ],
    ids=["stage", "sidecar", "sidecar-first", "init"],
)
def test_the_container_that_holds_the_pod_up_is_found(status: dict[str, Any]) -> None:
    found = pod_view(pod(**status))
    assert (found.waiting_reason, found.waiting_message) == ("ImagePullBackOff", 'Back-off pulling image "x"')


def test_a_failed_init_container_is_no_answer_of_the_stage() -> None:
    """Its 65 says nothing about an input of the stage, which has not even begun."""
    found = pod_view(
        pod(
            "Failed",
            initContainerStatuses=[container("fetch", terminated={"exitCode": 65, "reason": "Error", "message": "no"})],
            containerStatuses=[container("stage", waiting=CREATING)],
        )
    )
    assert (found.exit_code, found.message) == (1, "init container fetch ended with exit code 65: no")
    assert found.waiting_reason == ""


def test_a_pod_belongs_to_the_job_that_made_it() -> None:
    """Whoever may create pods could label one like a pod of the Job, and have it report a result."""
    forged = pod("Succeeded")
    forged["metadata"]["labels"] = {"batch.kubernetes.io/job-name": "train", "job-name": "train"}
    assert pod_view(forged).job == ""
    owner = {"kind": "Job", "name": "train", "uid": "j"}
    forged["metadata"]["ownerReferences"] = [owner]
    assert pod_view(forged).job == "", "an owner that does not control it"
    forged["metadata"]["ownerReferences"] = [{**owner, "kind": "ReplicaSet", "controller": True}]
    assert pod_view(forged).job == ""
    forged["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    assert (pod_view(forged).job, pod_view(forged).job_uid) == ("train", "j")


def test_gpus_are_counted_over_all_containers() -> None:
    body = pod("Running")
    body["spec"]["containers"] = [
        {"name": "stage", "resources": {"limits": {"nvidia.com/gpu": "8", "cpu": "4"}}},
        {"name": "judge", "resources": {"limits": {"nvidia.com/mig-1g.10gb": "2"}}},
    ]
    assert pod_view(body).gpus == 10


def test_a_container_that_outlives_the_stage_is_named() -> None:
    ended = container("stage", terminated={"exitCode": 0, "finishedAt": "2026-05-01T12:00:00Z", "message": "done"})
    proxy = container("istio-proxy", running={})
    seen = pod_view(pod("Running", containerStatuses=[proxy, ended]))
    assert (seen.beside, seen.exit_code, seen.message) == ("istio-proxy", 0, "done")
    assert not pod_view(pod("Running", containerStatuses=[proxy, container("stage", running={})])).beside


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"limits": {"nvidia.com/gpu": "2", "memory": "8Gi"}}, 2),
        ({"claims": [{"name": "gpu"}]}, 1),
        ({"limits": {"nvidia.com/gpu": "2"}, "claims": [{"name": "network"}]}, 2),
        ({}, 0),
    ],
)
def test_gpus_by_limit_or_by_claim(resources: dict[str, Any], expected: int) -> None:
    seen = pod("Running")
    seen["spec"]["containers"][0]["resources"] = resources
    assert pod_view(seen).gpus == expected


def stored(version: int, **more: Any) -> dict[str, Any]:
    """A run as the API tells it: another object each time."""
    meta = {"namespace": "team", "name": "run", "uid": "u", "generation": 1, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": manifest_spec(), **more}


def test_a_run_is_parsed_only_where_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, parsed = Settings(), list[str]()
    real = Contract.parse.__func__  # type: ignore[attr-defined]  # of a class method

    def parse(cls: type[Contract], body: Any) -> Any:
        parsed.append(cls.__name__)
        return real(cls, body)

    runs = ParsedRuns(settings)
    first = runs.parse(stored(1))
    monkeypatch.setattr(Contract, "parse", classmethod(parse))
    assert runs.parse(stored(1)) is first
    assert not parsed
    changed = stored(2, status={"phase": "Running", "storage": {"uri": "s3://bucket/prefix"}})
    assert runs.parse(changed) == parse_run(changed, settings)
    assert parsed.count("RunSpec") == 1, "by parse_run"
    edited = stored(3, spec=manifest_spec(iterations=3))
    assert runs.parse(edited) == parse_run(edited, settings)
    assert runs.parse(stored(4, spec={"iterations": "many"})).spec_error
    runs.forget(("team", "run"))
    assert runs.parse(stored(1)) is not first


@pytest.mark.parametrize(
    ("manager", "others"),
    [(None, False), ("selfrewarding.dev/self-rewarding-operator", False), ("kueue.x-k8s.io/multikueue", True)],
)
def test_a_run_names_who_carries_it_out(manager: str | None, others: bool) -> None:
    meta = {"namespace": "ns", "name": "run", "uid": "u"}
    managed = {"managedBy": manager} if manager else {}
    assert parse_run({"metadata": meta, "spec": manifest_spec() | managed}).others == others
    assert parse_run({"metadata": meta, "spec": {"unknown": 1} | managed}).others == others


@pytest.mark.parametrize("manager", ["", "kubernetes.io/job-controller", "kueue.x-k8s.io/multikueue"])
def test_a_job_names_who_makes_its_pods(manager: str) -> None:
    job = {"metadata": {"name": "job", "uid": "u"}, "spec": {"managedBy": manager} if manager else {}}
    assert job_view(job, "run").managed_by == (manager if manager.startswith("kueue") else "")
