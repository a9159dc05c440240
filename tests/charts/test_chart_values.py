"""values.schema.json refuses what cannot work, the README lists every value, and every setting reaches the operator."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import helm_python as helm
import pytest

from charts import chart_kit as kit
from srlm_operator.settings import Settings, from_environment

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("replica", 2),
        ("replicas", -1),
        ("replicas", "two"),
        ("image.digest", "0123"),
        ("image.tag", "a tag"),
        ("image.pullPolicy", "Sometimes"),
        ("stageImages.gpu", {"repository": "x"}),
        ("stageImages.cpu.repository", "ghcr.io/x@sha256:1"),
        ("watchNamespaces", "team-a"),
        ("watchNamespaces", ["Team A"]),
        ("watchNamespaces", ["a", "a"]),
        ("imagePullSecrets", ["registry"]),
        ("leaderElection.leaseSeconds", 1),
        ("operator.logFormat", "xml"),
        ("operator.workers", 0),
        ("operator.resyncSeconds", 0),
        ("operator.cleanupDeadlineSeconds", 1.5),
        ("stagePods.gpuResource", ""),
        ("stagePods.imagePullSecrets", [{"name": "registry"}]),
        ("stagePods.modelCache.hostPath", "var/cache"),
        ("stagePods.modelCache", {"claimName": "models", "hostPath": "/var/cache"}),
        ("stagePods.workVolumeSize", "much"),
        ("stagePods.env", {"A-B": "1"}),
        ("stagePods.env", {"PORT": 1}),
        ("stagePods.env", {"SRLM_TASK": "{}"}),
        ("stagePods.env", {"HF_TOKEN": "hf_x"}),
        ("health.port", 80),
        ("health.port", 70000),
        ("podDisruptionBudget.maxUnavailable", "half"),
        ("metrics.prometheusRule.stalledFor", "soon"),
        ("networkPolicy.operator.apiServerPorts", []),
        ("networkPolicy.stagePods.egressPorts", ["https"]),
        ("networkPolicy.stagePod", {"enabled": True}),
        ("resources.request", {"cpu": 1}),
        ("serviceAccount.annotations", {"a": 1}),
    ],
)
def test_bad_values_are_refused_by_name(path: str, value: Any) -> None:
    with pytest.raises(helm.HelmError) as refused:
        kit.render(kit.with_value(path, value))
    assert path.split(".")[-1] in str(refused.value) or path.split(".")[0] in str(refused.value)


def test_replicas_need_leader_election() -> None:
    with pytest.raises(helm.HelmError, match="replicas"):
        kit.render({"replicas": 2, "leaderElection": {"enabled": False}})


def test_stage_policies_need_namespaces() -> None:
    with pytest.raises(helm.HelmError, match=r"networkPolicy\.stagePods\.namespaces"):
        kit.render({"networkPolicy": {"stagePods": {"enabled": True}}})


def test_an_existing_account_needs_its_name() -> None:
    with pytest.raises(helm.HelmError, match=r"serviceAccount\.name is needed"):
        kit.render({"serviceAccount": {"create": False}})
    objects = kit.manifests({"serviceAccount": {"create": False, "name": "mine"}})
    assert kit.of_kind(objects, "ServiceAccount") == []
    assert kit.pod_of(objects)["serviceAccountName"] == "mine"
    subjects = [obj["subjects"] for obj in objects if obj["kind"].endswith("RoleBinding")]
    assert all(s == [{"kind": "ServiceAccount", "name": "mine", "namespace": kit.NAMESPACE}] for s in subjects)


def test_every_value_has_a_schema() -> None:
    schema = json.loads((kit.CHART / "values.schema.json").read_text(encoding="utf-8"))
    for path, _ in kit.leaves(kit.defaults()):
        place = schema
        for name in path.split("."):
            if "$ref" in place:
                place = schema["$defs"][place["$ref"].rsplit("/", 1)[1]]
            assert name in place["properties"], path
            place = place["properties"][name]


def test_readme_lists_every_value_with_its_default() -> None:
    text = (kit.CHART / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*)` \| (.+) \|$", text, re.MULTILINE)
    assert [(path, default) for path, default, _ in rows] == list(kit.leaves(kit.defaults()))


def test_readme_lists_every_alert() -> None:
    text = (kit.CHART / "README.md").read_text(encoding="utf-8")
    (rule,) = kit.of_kind(kit.manifests(kit.values_of("production")), "PrometheusRule")
    alerts = [alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]]
    assert re.findall(r"^\| `(SelfRewarding\w+)` \|", text, re.MULTILINE) == alerts


def test_images_by_tag_or_digest() -> None:
    image = {"repository": "r.example.com/x", "tag": "2"}
    assert kit.pod_of(kit.manifests({"image": image}))["containers"][0]["image"] == "r.example.com/x:2"
    objects = kit.manifests({"image": image | {"digest": SHA}, "stageImages": {"train": image | {"digest": SHA}}})
    assert kit.pod_of(objects)["containers"][0]["image"] == f"r.example.com/x@{SHA}"
    settings = from_environment(kit.environment(objects))
    assert settings.image_train == f"r.example.com/x@{SHA}"


def test_defaults_are_those_of_the_operator() -> None:
    found = from_environment(kit.environment(kit.manifests()))
    chosen = {"leader_elect": True, "lease_name": "release-self-rewarding-operator", "log_format": "json"}
    assert found == Settings(**chosen)


def test_every_variable_is_one_the_operator_reads() -> None:
    known = {f"SRLM_{field.name.upper()}" for field in fields(Settings)}
    for name in kit.VALUES_FILES:
        for variable in kit.environment(kit.manifests(kit.values_of(name))):
            assert variable in known or variable.startswith("SRLM_STAGE_ENV_"), variable


def test_settings_arrive() -> None:
    found = from_environment(kit.environment(kit.manifests(kit.values_of("production"))))
    assert found.image_inference == "registry.example.com/srlm/inference@sha256:" + "fedcba9876543210" * 4
    assert found.image_train == "registry.example.com/srlm/train:0.1.0-cu129"
    assert (found.image_pull_policy, found.image_pull_secrets) == ("IfNotPresent", ("registry",))
    assert (found.work_volume_size, found.cache_claim, found.workers) == ("200Gi", "model-cache", 32)
    assert found.extra_env == {
        "HTTP_PROXY": "http://proxy.example.com:3128",
        "HTTPS_PROXY": "http://proxy.example.com:3128",
        "NO_PROXY": ".svc,.cluster.local,10.0.0.0/8",
        "HF_HUB_OFFLINE": "1",
    }
    assert found.lease_name == "sro"
    assert from_environment(kit.environment(kit.manifests(kit.values_of("namespaced")))).namespaces == (
        "team-a",
        "team-b",
    )


def test_large_numbers_stay_readable() -> None:
    values = {"operator": {"cleanupDeadlineSeconds": 10_000_000, "resyncSeconds": 10_000_000, "progressSeconds": 0.5}}
    found = from_environment(kit.environment(kit.manifests(values)))
    assert (found.cleanup_deadline_seconds, found.resync_seconds, found.progress_seconds) == (10_000_000, 1e7, 0.5)
