"""The page of runs beside the operator: off by default, what it may do, who reaches it."""

from __future__ import annotations

import argparse
from typing import Any

from charts import chart_kit as kit
from srlm_cli.ui import command
from support.pod_security import violations

UI = {"ui": {"enabled": True}}


def own(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects of the page."""
    return [o for o in objects if o["metadata"]["labels"]["app.kubernetes.io/name"].endswith("-ui")]


def test_it_is_off_by_default() -> None:
    assert own(kit.manifests()) == []
    assert "srlm ui" not in kit.render()["NOTES.txt"]


def test_its_account_may_read_runs_and_nothing_else() -> None:
    for values, kind, where in ((UI, "ClusterRole", {""}), (kit.values_of("ui"), "Role", {"team-a", "team-b"})):
        objects = own(kit.manifests(values))
        roles = kit.of_kind(objects, kind)
        assert {role["metadata"].get("namespace", "") for role in roles} == where
        for role in roles:
            assert role["rules"] == [
                {"apiGroups": ["selfrewarding.dev"], "resources": ["selfrewardingruns"], "verbs": ["get", "list"]}
            ]
        (account,) = kit.of_kind(objects, "ServiceAccount")
        subjects = [s for binding in kit.of_kind(objects, f"{kind}Binding") for s in binding["subjects"]]
        assert {(s["name"], s["namespace"]) for s in subjects} == {(account["metadata"]["name"], kit.NAMESPACE)}
        assert kit.pod_of(objects, "ui")["serviceAccountName"] == account["metadata"]["name"]
    assert kit.of_kind(own(kit.manifests(kit.values_of("ui"))), "ClusterRole") == []


def test_its_pod_passes_the_restricted_level_and_runs_a_command_that_there_is() -> None:
    objects = kit.manifests(kit.values_of("ui"))
    pod = kit.pod_of(objects, "ui")
    assert violations(pod) == []
    (container,) = pod["containers"]
    assert container["image"] == kit.pod_of(objects)["containers"][0]["image"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    parser = argparse.ArgumentParser()
    command.configure(parser)
    args = parser.parse_args(container["args"][1:])
    assert (container["args"][0], args.in_cluster, args.port) == ("ui", True, 8090)
    env = {item["name"]: item for item in container["env"]}
    assert env[command.NAMESPACES_VARIABLE]["value"] == "team-a,team-b"
    assert env[command.KEY_VARIABLE]["valueFrom"]["secretKeyRef"] == {"name": "srlm-ui", "key": "key"}
    (plain,) = kit.pod_of(kit.manifests(UI), "ui")["containers"]
    assert {item["name"] for item in plain["env"]} == {"PYTHONUNBUFFERED"}, "the whole cluster, and a random key"


def test_service_probes_and_policy_meet_its_pods_and_no_others() -> None:
    objects = kit.manifests(kit.values_of("ui"))
    deployments = {d["metadata"]["name"]: d for d in kit.of_kind(objects, "Deployment")}
    (service,) = kit.of_kind(own(objects), "Service")
    (policy,) = kit.of_kind(own(objects), "NetworkPolicy")
    name = service["metadata"]["name"]
    labels = {d: found["spec"]["template"]["metadata"]["labels"].items() for d, found in deployments.items()}
    for found in (*kit.of_kind(objects, "Service"), *kit.of_kind(objects, "NetworkPolicy"), *deployments.values()):
        spec = found["spec"]
        selector = spec.get("selector") or spec["podSelector"]
        chosen = selector.get("matchLabels", selector).items()
        met = {d for d, some in labels.items() if chosen <= some}
        assert met == ({name} if found["metadata"]["name"] == name else set(labels) - {name}), found["kind"]
    (container,) = kit.pod_of(objects, "ui")["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 8090}]
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {"/healthz"}
    assert service["spec"]["ports"] == [{"name": "http", "port": 8090, "targetPort": "http"}]
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": "http"}]}]


def test_the_notes_say_how_to_open_it() -> None:
    notes = kit.render(UI)["NOTES.txt"]
    assert "port-forward svc/release-self-rewarding-operator-ui 8080" in notes
    assert "kubectl -n srlm-system logs deploy/release-self-rewarding-operator-ui" in notes
    assert "logs deploy" not in kit.render(kit.values_of("ui"))["NOTES.txt"]
