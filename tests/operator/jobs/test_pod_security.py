"""Pods of every stage satisfy the `restricted` Pod Security level, whatever is switched on; only a hostPath breaks it.

The one-machine cluster has no Pod Security admission: `make test-cluster` on a real API server enforces the level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from srlm_operator.names import FINALIZER
from srlm_operator.values import CreateJob
from support.builders import settings, spec
from support.fake_cluster import FakeCluster
from support.pod_security import violations

STAGES = {"preflight", "data", "sft", "judge", "select", "prompts", "generate", "pairs", "train", "evaluate", "report"}
SIDECAR = {
    "spec": {
        "initContainers": [{"name": "wait", "image": "x"}],
        "containers": [{"name": "proxy", "image": "x", "ports": [{"containerPort": 1}]}],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}],
    }
}
REFERENCES = {
    "storage": {
        "uri": "s3://bucket/prefix",
        "credentialsSecretRef": {"name": "s3"},
        "caBundleRef": {"name": "ca", "key": "ca.crt"},
    },
    "baseModel": {"uri": "hf://org/base", "chatTemplateRef": {"name": "chat", "key": "template"}},
    "judging": {"templateRef": {"name": "rubric", "key": "template"}},
}


@dataclass
class Recorder(FakeCluster):
    """Keeps the pod template of every Job that is made, by stage."""

    pods_made: dict[str, dict[str, Any]] = field(default_factory=dict)

    def _act(self, action: Any) -> None:
        if isinstance(action, CreateJob):
            stage = stage_of(action)
            self.pods_made[stage] = action.manifest["spec"]["template"]["spec"]
        super()._act(action)


def stage_of(action: CreateJob) -> str:
    return str(action.manifest["metadata"]["labels"]["selfrewarding.dev/stage"])


def pods_of(changes: dict[str, Any], configured: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod spec by stage, over a whole run."""
    alone = {"scheduling": {"chain": "Off"}}  # every stage has a Job
    world = Recorder(spec=spec(**alone, iterations=1, **changes), settings=settings(**configured))
    world.settle()
    assert world.status.phase == "Succeeded"
    return world.pods_made


@pytest.mark.parametrize(
    ("changes", "configured"),
    [
        ({}, {}),
        ({"training": {"nodes": 2, "processesPerNode": 8}}, {}),
        ({"training": {"choose": {"enabled": True}}}, {}),
        ({}, {"cache_claim": "models", "image_pull_secrets": ("registry",), "work_volume_size": "1Ti"}),
        ({"podTemplate": SIDECAR}, {}),
        ({"scheduling": {"queueName": "q", "priorityClassName": "p"}, "serviceAccountName": "training"}, {}),
        (REFERENCES, {}),
    ],
    ids=["plain", "two-nodes", "choose", "claim", "sidecar", "queue", "references"],
)
def test_every_stage_is_restricted(changes: dict[str, Any], configured: dict[str, Any]) -> None:
    if "scheduling" in changes:  # nobody is there to admit its Jobs
        world = Recorder(spec=spec(**changes))
        world.reconcile()
        pods = world.pods_made
    else:
        pods = pods_of(changes, configured)
        assert pods.keys() >= STAGES
    for stage, pod in pods.items():
        assert violations(pod) == [], stage
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, (stage, container["name"])
        assert not any("serviceAccountToken" in str(volume) for volume in pod["volumes"])


def test_cleanup_is_restricted_too() -> None:
    world = Recorder(spec=spec(storage={"uri": "s3://bucket/prefix", "retention": "DeleteAll"}))
    world.reconcile()
    assert world.finalizers == (FINALIZER,)
    world.deleted_at = world.now
    world.reconcile()
    assert violations(world.pods_made["cleanup"]) == []


def test_a_cache_on_the_node_is_what_breaks_it() -> None:
    pods = pods_of({}, {"cache_host_path": "/var/cache/models"})
    for stage, pod in pods.items():
        found = violations(pod)
        assert found, stage
        assert all("hostPath" in str(problem) for problem in found), (stage, found)
