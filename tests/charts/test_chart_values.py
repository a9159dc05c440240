"""values.schema.json refuses what cannot work, the README lists every value, and every setting reaches the operator."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any

import helm_python as helm
import pytest

from charts import chart_kit as kit
from srlm_contract.spec.references import ConfigMapKeyRef, SecretRef
from srlm_contract.spec.storage import Storage
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
        ("stageImages.light.repository", "x@sha256:1"),
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
        ("stagePods.podSecurity", "restricted"),
        ("stagePods.podTemplate", "text"),
        ("stagePods.queueName", "GPU queue"),
        ("stagePods.tmpSizeLimit", "much"),
        ("stagePods.imagePullSecrets", [{"name": "registry"}]),
        ("stagePods.modelCache.hostPath", "var/cache"),
        ("stagePods.modelCache", {"claimName": "models", "hostPath": "/var/cache"}),
        ("stagePods.workVolume.sizeLimit", "much"),
        ("stagePods.workVolume", {"sizeLimit": "1Gi", "ephemeral": {"size": "1Gi"}}),
        ("stagePods.workVolume.ephemeral.storageClassName", "fast"),
        ("stagePods.workVolume.ephemeral.accessModes", ["ReadOnlyMany"]),
        ("registry", "https://registry.example.com"),
        ("storage.uri", "s3://bucket/shared"),
        ("storage.uri", "s3://bucket-{namespace}/shared"),
        ("storage.uri", "s3://bucket/team-{namespace}"),
        ("storage.uri", "https://bucket/{namespace}"),
        ("storage.endpointUrl", "https://minio.example.com"),
        ("storage.credentialsSecretName", "s3"),
        ("storage", {"uri": "s3://bucket/{namespace}", "addressingStyle": "path"}),
        ("storage", {"uri": "s3://bucket/{namespace}", "endpointUrl": "minio:9000"}),
        ("caBundle.configMapName", "Corp CA"),
        ("proxy.httpsProxy", "http://user:secret@proxy.example.com:3128"),
        ("stagePods.env", {"A-B": "1"}),
        ("stagePods.env", {"PORT": 1}),
        ("stagePods.env", {"SRLM_TASK": "{}"}),
        ("stagePods.env", {"HF_TOKEN": "hf_x"}),
        ("health.port", 80),
        ("health.port", 70000),
        ("podDisruptionBudget.maxUnavailable", "half"),
        ("podDisruptionBudget.minAvailable", "half"),
        ("env", {"A": "1"}),
        ("extraArgs", "--verbose"),
        ("metrics.serviceMonitor.namespace", "Team A"),
        ("metrics.prometheusRule.stalledFor", "soon"),
        ("metrics.prometheusRule.pendingFor", "soon"),
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


def test_commands_of_the_readme_set_what_they_say() -> None:
    """Braces mean a list to `--set` in some places."""
    text = (kit.CHART / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"--set '?([^\s']+)", text)
    assert len(found) >= 5
    values: dict[str, Any] = {}
    for expression in found:
        for path, value in kit.leaves(helm.parse_set_string(expression)):
            merge(values, kit.with_value(path, json.loads(value)))
    settings = from_environment(kit.environment(kit.manifests(values)))
    assert settings.storage_uri == "s3://models/self-rewarding/{namespace}"
    assert settings.image_light == "registry/self-rewarding-operator/light:0.1.0"


def merge(target: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            merge(target.setdefault(name, {}), value)
        else:
            # Placeholders of the reader's own are written in capitals.
            target[name] = value.lower() if isinstance(value, str) and value.isupper() else value


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
        values = kit.values_of(name)
        own = {item["name"] for item in values.get("env", ())}
        for variable in kit.environment(kit.manifests(values)).keys() - own:
            assert variable in known or variable.startswith("SRLM_STAGE_ENV_") or variable.endswith("_PROXY"), variable


def test_settings_arrive() -> None:
    found = from_environment(kit.environment(kit.manifests(kit.values_of("production"))))
    assert found.image_inference == "registry.example.com/srlm/inference@sha256:" + "fedcba9876543210" * 4
    assert found.image_train == "registry.example.com/srlm/train:0.1.0-cu129"
    assert (found.image_pull_policy, found.image_pull_secrets) == ("IfNotPresent", ("registry",))
    assert (found.work_claim_size, found.work_claim_class, found.work_claim_modes) == (
        "500Gi", "fast", ("ReadWriteOnce",),
    )  # fmt: skip
    assert (found.cache_claim, found.workers) == ("model-cache", 32)
    assert found.storage_defaults("team").storage == Storage(
        uri="s3://models/self-rewarding/team",
        endpoint_url="https://minio.example.com:9000",
        region="eu-central-1",
        addressing_style="Path",
        credentials_secret_ref=SecretRef(name="s3-credentials"),
        ca_bundle_ref=ConfigMapKeyRef(name="corp-ca", key="ca.crt"),
        retention="DeleteIntermediate",
    )
    assert (found.queue_name, found.cpu_queue_name) == ("gpus", "cpus")
    assert (found.priority_class_name, found.service_account_name) == ("research", "training")
    assert (found.runtime_class_name, found.pod_security, found.tmp_volume_size) == ("nvidia", "Baseline", "20Gi")
    assert found.pod_template == {"spec": {"nodeSelector": {"pool": "training"}}}
    assert found.gpu_pod_template["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert (
        from_environment(kit.environment(kit.manifests({"stagePods": {"gpuResource": "none"}}))).gpu_resource == "none"
    )
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


def test_one_registry_for_all_images() -> None:
    objects = kit.manifests({"registry": "registry.example.com/ml/"})
    found = from_environment(kit.environment(objects))
    own = kit.pod_of(objects)["containers"][0]["image"]
    images = (found.image_inference, found.image_train, found.image_light, own)
    for image, name in zip(images, ("inference", "train", "light", "operator"), strict=True):
        assert image == f"registry.example.com/ml/self-rewarding-operator/{name}:0.1.0"
    assert "registry is empty" in kit.render()["NOTES.txt"]
    assert "registry is empty" not in kit.render({"registry": "r.example.com"})["NOTES.txt"]


def test_the_operator_never_goes_to_the_api_server_through_a_proxy() -> None:
    proxy = {"httpsProxy": "http://proxy.example.com:3128", "noProxy": ".svc"}
    found = kit.environment(kit.manifests({"proxy": proxy}))
    assert found["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    # Kubernetes puts the address in.
    assert found["NO_PROXY"] == "$(KUBERNETES_SERVICE_HOST),kubernetes.default.svc,.svc"
    assert found["SRLM_STAGE_ENV_NO_PROXY"] == ".svc"
    assert not {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} & kit.environment(kit.manifests()).keys()


def test_the_default_place_is_one_the_operator_takes() -> None:
    """Schema and operator agree on what a default location looks like."""
    for uri in ("s3://bucket/{namespace}", "s3://bucket/a/{namespace}/b", "s3://a.b-c/{namespace}/"):
        found = from_environment(kit.environment(kit.manifests({"storage": {"uri": uri}})))
        storage = found.storage_defaults("team-a").storage
        assert storage is not None
        assert storage.uri == uri.replace("{namespace}", "team-a")
    notes = kit.render({"storage": {"uri": "s3://bucket/{namespace}"}, "watchNamespaces": ["team-a"]})["NOTES.txt"]
    assert "at s3://bucket/team-a." in notes


def test_large_numbers_stay_readable() -> None:
    values = {"operator": {"cleanupDeadlineSeconds": 10_000_000, "resyncSeconds": 10_000_000, "progressSeconds": 0.5}}
    found = from_environment(kit.environment(kit.manifests(values)))
    assert (found.cleanup_deadline_seconds, found.resync_seconds, found.progress_seconds) == (10_000_000, 1e7, 0.5)
