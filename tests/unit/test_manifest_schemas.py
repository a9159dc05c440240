"""Everything that is applied to a cluster fits the published schemas of every Kubernetes that we serve, strictly."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest

from charts import chart_kit as kit
from srlm_operator.crd.validate import validate_text
from support import kube_schemas

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted((ROOT / "tests" / "operator" / "jobs" / "golden").glob("*.yaml"))
SAMPLES = sorted((ROOT / "crds").rglob("*.yaml"))
#: Kinds with makers of their own: Kustomize reads its files itself, Flux and Argo CD have their tests.
OTHERS = ("kustomize.config.k8s.io/", "kustomize.toolkit.fluxcd.io/", "source.toolkit.fluxcd.io/", "argoproj.io/")
Object = dict[str, Any]


@functools.cache
def chart(name: str) -> list[Object]:
    """Objects of the chart with one of its values files."""
    return kit.manifests(kit.values_of(name))


def test_the_versions_we_serve_are_there() -> None:
    assert kube_schemas.VERSIONS[0] == "1.30"
    assert len(kube_schemas.VERSIONS) >= 7


@pytest.mark.parametrize("version", kube_schemas.VERSIONS)
@pytest.mark.parametrize("name", kit.VALUES_FILES)
def test_the_chart(name: str, version: str) -> None:
    objects = chart(name)
    assert len(objects) >= 8
    found = {f"{obj['kind']}/{obj['metadata']['name']}": kube_schemas.problems(obj, version) for obj in objects}
    assert not any(found.values()), found


def test_the_chart_has_all_its_kinds_checked() -> None:
    kinds = {obj["kind"] for name in kit.VALUES_FILES for obj in chart(name)}
    assert kinds >= {
        "Deployment", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service",
        "CustomResourceDefinition", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", "PrometheusRule",
        "ServiceMonitor",
    }  # fmt: skip


@pytest.mark.parametrize("version", kube_schemas.VERSIONS)
@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_jobs_and_what_is_made_with_them(path: Path, version: str) -> None:
    objects = kube_schemas.load(path)
    assert {obj["kind"] for obj in objects} <= {"Job", "Service", "PodGroup"}
    known = version >= "1.37" or not any(obj["kind"] == "PodGroup" for obj in objects)
    for obj in objects if known else []:
        assert kube_schemas.problems(obj, version) == []


def test_a_pod_group_in_every_version_that_has_them() -> None:
    (job, _, group) = kube_schemas.load(next(path for path in JOBS if path.stem == "train-two-nodes-together"))
    assert [kube_schemas.problems(obj, "1.37") for obj in (job, group)] == [[], []]
    alpha = {**group, "apiVersion": "scheduling.k8s.io/v1alpha2"}
    assert [kube_schemas.problems(obj, "1.36") for obj in (job, alpha)] == [[], []]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_samples_and_definitions(path: Path) -> None:
    for obj in kube_schemas.load(path):
        if obj["apiVersion"].startswith(OTHERS):
            continue
        if obj["apiVersion"].startswith("selfrewarding.dev/"):
            assert not validate_text(path.read_text(encoding="utf-8")).problems
            continue
        for version in kube_schemas.VERSIONS:
            assert kube_schemas.problems(obj, version) == []


def broken(kind: str, change: Any) -> list[str]:
    """What is found wrong with an object of the chart after a change."""
    (obj, *_) = kit.of_kind(chart("production"), kind)
    obj = copy.deepcopy(obj)
    change(obj)
    return kube_schemas.problems(obj)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("Deployment", lambda o: o["spec"].update(replica=1), "replica"),
        ("Deployment", lambda o: o["spec"].update(replicas="one"), "one"),
        ("Deployment", lambda o: o["spec"]["template"]["spec"]["containers"][0].update(envs=[]), "envs"),
        ("Deployment", lambda o: o["spec"].pop("selector"), "selector"),
        ("NetworkPolicy", lambda o: o["spec"].update(policyType="Egress"), "policyType"),
        ("ConfigMap", lambda o: o["data"].update(number=1), "1 is not of type"),
        ("PrometheusRule", lambda o: o["spec"]["groups"][0]["rules"][0].update(four="5m"), "four: unknown"),
        ("PrometheusRule", lambda o: o["spec"]["groups"][0]["rules"][0].update({"for": "soon"}), "for"),
        ("PrometheusRule", lambda o: o["spec"]["groups"][0]["rules"][0].pop("expr"), "expr"),
        ("ServiceMonitor", lambda o: o["spec"]["endpoints"][0].update(intervall="5s"), "intervall: unknown"),
        ("ServiceMonitor", lambda o: o["spec"].pop("selector"), "selector"),
    ],
)
def test_what_is_wrong_is_found(kind: str, change: Any, says: str) -> None:
    found = broken(kind, change)
    assert any(says in problem for problem in found), found


def test_kinds_without_schema_do_not_pass_unseen() -> None:
    for api in ("batch/v9", "monitoring.coreos.com/v1"):
        with pytest.raises(kube_schemas.NoSchema):
            kube_schemas.problems({"apiVersion": api, "kind": "Jobb", "metadata": {"name": "x"}})
