"""Strategic merge of podTemplate, and the guarantees it may not break."""

from __future__ import annotations

from typing import Any

import pytest

from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.jobs.podtemplate import apply_patches
from support.works import generate, make


def template() -> dict[str, Any]:
    found: dict[str, Any] = make(generate()).manifest["spec"]["template"]
    return found


def merged(*patches: dict[str, Any]) -> dict[str, Any]:
    return apply_patches(template(), patches)


def stage(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "stage", **fields}]}}


def test_lists_merge_by_their_keys_and_others_are_replaced() -> None:
    result = merged(
        stage(env=[{"name": "A", "value": "1"}], volumeMounts=[{"mountPath": "/data", "name": "data"}]),
        {"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]}},
        {"spec": {"tolerations": [{"key": "a"}]}},
        {"spec": {"tolerations": [{"key": "b"}]}},
    )
    container = result["spec"]["containers"][0]
    assert {"name": "A", "value": "1"} in container["env"]
    assert any(e["name"] == "SRLM_TASK" for e in container["env"])
    assert [m["mountPath"] for m in container["volumeMounts"]] == ["/srlm/work", "/tmp", "/dev/shm", "/data"]
    assert [v["name"] for v in result["spec"]["volumes"]] == ["work", "tmp", "shm", "data"]
    assert result["spec"]["tolerations"] == [{"key": "b"}]


def test_null_removes_and_directives_work() -> None:
    result = merged({"spec": {"enableServiceLinks": None, "volumes": [{"name": "tmp", "$patch": "delete"}]}})
    assert "enableServiceLinks" not in result["spec"]
    assert [v["name"] for v in result["spec"]["volumes"]] == ["work", "shm"]
    replaced = merged(stage(resources={"$patch": "replace", "limits": {"memory": "1Gi"}}))
    assert replaced["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}


def test_a_volume_of_another_kind_replaces_ours() -> None:
    claim = {"name": "work", "persistentVolumeClaim": {"claimName": "scratch"}}
    result = merged({"spec": {"volumes": [claim]}})
    assert [v for v in result["spec"]["volumes"] if v["name"] == "work"] == [claim]
    limited = merged({"spec": {"volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Gi"}}]}})
    assert {"name": "work", "emptyDir": {"sizeLimit": "1Gi"}} in limited["spec"]["volumes"]


def test_a_sidecar_gets_the_same_security() -> None:
    result = merged({"spec": {"containers": [{"name": "sidecar", "image": "x"}]}})
    sidecar = result["spec"]["containers"][1]
    assert sidecar["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_template_is_not_touched() -> None:
    before = template()
    patched = apply_patches(before, [stage(env=[{"name": "A", "value": "1"}])])
    assert patched != before
    assert before == template()


def token(**fields: str) -> dict[str, Any]:
    source = {"serviceAccountToken": {"path": "token", **fields}}
    return {"name": "token", "projected": {"sources": [source]}}


def test_a_token_for_somebody_else_is_welcome() -> None:
    result = merged({"spec": {"volumes": [token(audience="sts.example.com")]}})
    assert token(audience="sts.example.com") in result["spec"]["volumes"]


@pytest.mark.parametrize(
    ("patch", "named"),
    [
        (stage(env=[{"name": "SRLM_TASK", "value": "x"}]), "SRLM_TASK"),
        (stage(env=[{"name": "SRLM_WORK_DIR", "$patch": "delete"}]), "SRLM_WORK_DIR"),
        (stage(command=["sh"]), "command"),
        (stage(terminationMessagePath="/x"), "terminationMessagePath"),
        ({"spec": {"containers": [{"name": "stage", "$patch": "delete"}]}}, "stage"),
        ({"spec": {"restartPolicy": "OnFailure"}}, "restartPolicy"),
        ({"spec": {"automountServiceAccountToken": True}}, "automountServiceAccountToken"),
        ({"spec": {"volumes": [token()]}}, "spec.volumes.token. must not hold a token for the API server"),
        ({"spec": {"hostNetwork": True}}, "hostNetwork"),
        ({"spec": {"securityContext": {"runAsNonRoot": False}}}, "runAsNonRoot"),
        ({"spec": {"securityContext": {"runAsUser": 0}}}, "runAsUser"),
        ({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}, "seccompProfile"),
        (stage(securityContext={"privileged": True}), "privileged"),
        (stage(securityContext={"allowPrivilegeEscalation": True}), "allowPrivilegeEscalation"),
        (stage(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}), "capabilities.add"),
        (stage(securityContext={"capabilities": {"drop": []}}), "capabilities.drop"),
        (stage(ports=[{"containerPort": 1, "hostPort": 1}]), "hostPort"),
        ({"metadata": {"labels": {"selfrewarding.dev/run-uid": "x"}}}, "selfrewarding.dev/run-uid"),
        ({"spec": {"volumes": [{"emptyDir": {}}]}}, "volumes"),
        ({"spec": "text"}, "podTemplate.spec"),
        ({"spec": {"containers": ["text"]}}, "containers"),
    ],
)
def test_broken_guarantees_are_named(patch: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidPodTemplate, match=named):
        merged(patch)


RDMA = {
    "spec": {
        "hostNetwork": True,
        "containers": [{"name": "stage", "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}}],
        "initContainers": [
            {"name": "tcpxo", "image": "x", "restartPolicy": "Always", "securityContext": {"privileged": True}}
        ],
    }
}
ROOT = stage(securityContext={"runAsNonRoot": False, "runAsUser": 0, "allowPrivilegeEscalation": True})


def test_the_operators_setting_opens_what_restricted_forbids() -> None:
    opened = apply_patches(template(), [RDMA], "Privileged")["spec"]
    assert opened["hostNetwork"]
    security = opened["containers"][0]["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert security["allowPrivilegeEscalation"] is False, "what a patch does not name stays restricted"
    sidecar = opened["initContainers"][0]["securityContext"]
    assert sidecar["privileged"]
    assert "allowPrivilegeEscalation" not in sidecar, "the API server refuses both together"
    assert apply_patches(template(), [ROOT], "Baseline")["spec"]["containers"][0]["securityContext"]["runAsUser"] == 0


@pytest.mark.parametrize(
    ("patch", "level", "named"),
    [
        (RDMA, "Restricted", "spec.hostNetwork must stay unset.*podSecurity.*is Restricted"),
        (RDMA, "Baseline", "spec.hostNetwork must stay unset.*podSecurity.*is Baseline"),
        (stage(securityContext={"capabilities": {"add": ["IPC_LOCK"]}}), "Baseline", "may not contain IPC_LOCK"),
        (stage(securityContext={"privileged": True}), "Baseline", "privileged"),
        ({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}, "Baseline", "seccompProfile"),
        (ROOT, "Restricted", "runAsNonRoot must stay true"),
        ({"spec": {"automountServiceAccountToken": True}}, "Privileged", "automountServiceAccountToken"),
        ({"spec": {"volumes": [token()]}}, "Privileged", "must not hold a token"),
        (stage(command=["sh"]), "Privileged", "command must stay"),
    ],
)
def test_each_level_has_its_bounds(patch: dict[str, Any], level: Any, named: str) -> None:
    with pytest.raises(InvalidPodTemplate, match=named):
        apply_patches(template(), [patch], level)
