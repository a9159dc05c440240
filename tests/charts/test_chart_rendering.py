"""Lint, renderings as they were last looked at, the definition of runs, and what the pods look like."""

from __future__ import annotations

import os
from pathlib import Path

import helm_python as helm
import pytest

from charts import chart_kit as kit
from srlm_operator.crd.definition import custom_resource_definition
from support.pod_security import violations

GOLDEN = Path(__file__).parent / "golden"
CRD_FILE = "selfrewarding.dev_selfrewardingruns.yaml"


@pytest.mark.parametrize("name", kit.VALUES_FILES)
def test_lint_finds_nothing(name: str) -> None:
    report = helm.lint(kit.CHART, kit.values_of(name), strict=True, namespace="srlm-system", kube_version="v1.30.0")
    assert report["errors"] == []
    assert [m for m in report["messages"] if m["severity"] > 1] == []


@pytest.mark.parametrize("name", kit.VALUES_FILES)
def test_rendering_is_as_it_was(name: str) -> None:
    """`env UPDATE_GOLDEN=1 pytest tests/charts` writes the files anew: look at their difference."""
    texts = kit.render(kit.values_of(name))
    crd = texts.pop("crd.yaml")
    assert bool(crd.strip()) == ("crds.install is false" not in texts["NOTES.txt"])
    found = "".join(f"# ---- {file}\n{texts[file].strip()}\n" for file in sorted(texts) if texts[file].strip())
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8"), "env UPDATE_GOLDEN=1 pytest tests/charts, and look at git diff"


def test_the_values_files_have_goldens() -> None:
    assert kit.VALUES_FILES == ("default", "namespaced", "production", "ui")
    assert sorted(path.stem for path in GOLDEN.iterdir()) == list(kit.VALUES_FILES)


@pytest.mark.parametrize("name", kit.VALUES_FILES)
def test_every_object_is_there_once_and_labelled(name: str) -> None:
    """That they fit Kubernetes' schemas is tested in tests/unit/test_manifest_schemas.py."""
    objects = kit.manifests(kit.values_of(name))
    seen = {(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) for obj in objects}
    assert len(seen) == len(objects)
    for obj in objects:
        assert obj["metadata"]["labels"]["app.kubernetes.io/instance"] == kit.RELEASE, obj["metadata"]["name"]


def test_the_definition_in_the_chart_is_the_generated_one() -> None:
    generated = (kit.ROOT / "crds" / CRD_FILE).read_text(encoding="utf-8")
    assert (kit.CHART / "files" / CRD_FILE).read_text(encoding="utf-8") == generated, "run make crds"
    (rendered,) = kit.of_kind(kit.manifests(), "CustomResourceDefinition")
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert [rendered] == list(kit.parse(generated))
    # Learning rates are still numbers, and exact.
    assert rendered == custom_resource_definition()


def test_the_definition_can_go_with_the_release_or_stay_out() -> None:
    (rendered,) = kit.of_kind(kit.manifests({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert "annotations" not in rendered["metadata"]
    assert "deletes the definition" in kit.render({"crds": {"keep": False}})["NOTES.txt"]
    assert kit.of_kind(kit.manifests({"crds": {"install": False}}), "CustomResourceDefinition") == []


@pytest.mark.parametrize("name", kit.VALUES_FILES)
def test_the_pod_passes_the_restricted_level(name: str) -> None:
    pod = kit.pod_of(kit.manifests(kit.values_of(name)))
    assert violations(pod) == []
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_probes_and_metrics_reach_the_health_port() -> None:
    objects = kit.manifests({"health": {"port": 9090}})
    (container,) = kit.pod_of(objects)["containers"]
    assert container["ports"] == [{"name": "health", "containerPort": 9090}]
    assert kit.environment(objects)["SRLM_HEALTH_PORT"] == "9090"
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    (service,) = kit.of_kind(objects, "Service")
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 9090, "targetPort": "health"}]


def test_replicas_without_the_lease_never_overlap() -> None:
    (deployment,) = kit.of_kind(kit.manifests({"leaderElection": {"enabled": False}}), "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert kit.of_kind(kit.manifests(), "PodDisruptionBudget") == []
    (budget,) = kit.of_kind(kit.manifests({"replicas": 2}), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_selectors_meet_the_pods() -> None:
    objects = kit.manifests(kit.values_of("production"))
    (deployment,) = kit.of_kind(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    (budget,) = kit.of_kind(objects, "PodDisruptionBudget")
    (service,) = kit.of_kind(objects, "Service")
    (monitor,) = kit.of_kind(objects, "ServiceMonitor")
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_notes_tell_three_commands_for_the_namespace() -> None:
    notes = kit.render({"watchNamespaces": ["team-a"]})["NOTES.txt"]
    assert notes.count("kubectl -n team-a ") == 3
