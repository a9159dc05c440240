"""The operator with exactly the rights it needs: every verb is used, none is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stage_script import Ending
from wire import JOBS, RUNS, SHORT, Wire, wire

from srlm_local.access import Authorizer

#: What the chart grants in the namespaces it serves; watches and lists of Kopf included.
RULES: list[dict[str, Any]] = [
    {
        "apiGroups": ["selfrewarding.dev"],
        "resources": ["selfrewardingruns"],
        "verbs": ["get", "list", "watch", "patch"],
    },
    {"apiGroups": ["selfrewarding.dev"], "resources": ["selfrewardingruns/status"], "verbs": ["patch"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "create"]},
]


def narrow(w: Wire, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An account with a Role in one namespace and nothing else."""
    group = "rbac.authorization.k8s.io"
    w.cluster.create("serviceaccounts", {"metadata": {"name": "narrow"}}, "default")
    w.cluster.create(f"roles.{group}", {"metadata": {"name": "narrow"}, "rules": RULES}, "default")
    binding = {
        "metadata": {"name": "narrow"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "narrow"},
        "subjects": [{"kind": "ServiceAccount", "name": "narrow", "namespace": "default"}],
    }
    w.cluster.create(f"rolebindings.{group}", binding, "default")
    token, _ = w.server.tokens.issue(w.cluster.get("serviceaccounts", "narrow", "default"), 3600)
    w.server.write_kubeconfig(folder / "narrow", token)
    monkeypatch.setenv("KUBECONFIG", str(folder / "narrow"))


async def test_namespaced_mode_needs_these_rights_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[str, str]] = set()
    real = Authorizer.check

    def check(self: Authorizer, user: Any, route: Any) -> None:
        real(self, user, route)
        if "narrow" in user.name:
            resource = route.plural + (f"/{route.subresource}" if route.subresource else "")
            asked.add((resource, route.verb))

    monkeypatch.setattr(Authorizer, "check", check)
    settings = {"namespaces": ("default",), "progress_seconds": 0.05, "resync_seconds": 0.2}
    async with wire(tmp_path, monkeypatch, **settings) as w:
        narrow(w, monkeypatch, tmp_path)
        await w.start_operator()
        w.pods.held.add("data")
        training = {"nodes": 2, "processesPerNode": 1}
        storage = {"uri": "s3://bucket/prefix", "retention": "DeleteAll"}
        w.apply(**SHORT, training=training, storage=storage, failurePolicy={"backoffSeconds": 0})
        w.cluster.log_reader = lambda pod, query: "PROGRESS data rows=1/2 unit=rows\n"
        await w.until(lambda: "1/2 rows" in w.status().get("progress", {}).get("message", ""))
        job = next(j for j in w.jobs() if j["metadata"]["labels"]["selfrewarding.dev/node"] == "data")
        w.cluster.delete(JOBS, job["metadata"]["name"], "default", propagation="Background")
        await w.until(lambda: ("jobs", "get") in asked)
        w.edit({"suspend": True})
        await w.until(lambda: w.condition("Suspended"))
        w.edit({"suspend": False})
        w.pods.release("data")
        w.pods.stages.fail("pairs", Ending(1))
        w.cluster.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}, "default")
        await w.until(lambda: ("events", "list") in asked)
        w.cluster.delete("resourcequotas", "q", "default")
        await w.until(lambda: w.condition("Ready"))
        w.cluster.delete(RUNS, "run", "default", propagation="Background")
        await w.until(lambda: w.cluster.find(RUNS, "run", "default") is None)
    granted = {(resource, verb) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]}
    assert asked == granted
