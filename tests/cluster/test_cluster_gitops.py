"""Runs under GitOps: health at every moment of a run's life, and other field managers who apply again and again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from srlm_operator.cluster.client import RUNS
from srlm_operator.names import MANAGER
from support.cluster.harness import SHORT, Harness
from support.cluster.target import given
from support.gitops_checks import argocd_health
from support.kstatus import kstatus
from support.stage_script import error

pytestmark = pytest.mark.e2e


def versions(h: Harness) -> list[dict[str, Any]]:
    """Every version of the run that ever was."""
    return [change.object for change in h.view.history if change.kind == "runs" and change.type != "DELETED"]


def without_repeats(values: list[Any]) -> list[Any]:
    return [value for n, value in enumerate(values) if n == 0 or value != values[n - 1]]


async def test_health_over_a_whole_life(h: Harness) -> None:
    h.pods.stages.fail("data", error(65, "InvalidSeedData", "line 3: no rank"))
    h.pods.held.add("train")
    await h.start()
    await h.create(**SHORT)
    await h.until(lambda: h.condition("Stalled"))
    await h.edit({"seedData": {**SHORT["seedData"], "language": "de"}})
    await h.until(lambda: h.record("train").get("state") == "Running")
    await h.edit({"suspend": True})
    await h.until(lambda: h.status()["phase"] == "Suspended" and not h.jobs("train"))
    await h.pods.release("train")
    await h.edit({"suspend": False})
    await h.succeeded()
    await h.edit({"storage": {"retention": "DeleteAll"}})
    await h.until(lambda: h.run()["metadata"].get("finalizers") and kstatus(h.run()) == "Current")
    h.pods.held.add("cleanup")
    await h.delete()
    await h.until(lambda: "deletionTimestamp" in h.run()["metadata"])
    await h.pods.release("cleanup")
    await h.until(lambda: not h.run())

    first, *rest = versions(h)
    assert "status" not in first
    judged = [kstatus(obj) for obj in rest]
    lives = ["InProgress", "Failed", "InProgress", "Current", "InProgress", "Current", "Terminating"]
    assert without_repeats(judged) == lives
    for obj, status in zip(rest, judged, strict=True):
        phase, health = obj["status"]["phase"], argocd_health(obj)[0]
        observed = obj["status"]["observedGeneration"] == obj["metadata"]["generation"]
        assert (status == "Current") <= (phase == "Succeeded"), "never Current before it is done"
        if status == "Failed":
            assert (phase, health) == ("Failed", "Degraded")
        if status == "InProgress":
            suspended = phase == "Suspended" and observed
            assert health == ("Suspended" if suspended else "Progressing")
        assert (status == "Current") == (health == "Healthy")
        assert obj["status"]["conditions"][0]["type"] == "Ready"


@pytest.mark.skipif(not given(), reason="the one-machine cluster has no server-side apply")
@pytest.mark.parametrize("retention", ["Retain", "DeleteAll"])
async def test_applying_again_and_again_by_another_manager(h: Harness, retention: str) -> None:
    await h.start()
    manifest = h.manifest(**SHORT, storage={"uri": "s3://bucket/prefix", "retention": retention})
    manifest["metadata"]["labels"] = {"app.kubernetes.io/instance": "campaign"}
    h.pods.held.add("train")
    for _ in range(3):
        await h.admin.apply(RUNS, h.namespace, manifest, "argocd-controller")
    await h.until(lambda: h.record("train").get("state") == "Running")
    for _ in range(3):  # in the middle of the run; without force: a conflict would be an error
        await h.admin.apply(RUNS, h.namespace, manifest, "argocd-controller")
    await h.pods.release("train")
    await h.succeeded()
    # The operator's last write was TTLs and events: a second run, handled after everything of the first.
    await h.barrier("second")
    before = await h.get()
    for _ in range(3):
        after = await h.admin.apply(RUNS, h.namespace, manifest, "argocd-controller")
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "no drift"
    assert {obj["metadata"]["generation"] for obj in versions(h) if obj["metadata"]["name"] == "run"} == {1}
    for entry in before["metadata"]["managedFields"]:
        fields = entry["fieldsV1"]
        if entry["manager"] == "argocd-controller":
            assert (entry["operation"], "f:status" in fields) == ("Apply", False)
        else:
            assert entry["manager"] == MANAGER
            own = {"f:status"} if entry.get("subresource") == "status" else {"f:metadata"}
            assert set(fields) == own
            if "f:metadata" in fields:
                assert retention == "DeleteAll"
                assert set(fields["f:metadata"]) == {"f:finalizers"}


async def test_labels_and_annotations_of_others_cause_no_write(h: Harness) -> None:
    await h.start()
    await h.create(**SHORT)
    await h.succeeded()
    await h.barrier("second")
    before = len([r for r in h.proxy.writes() if r.name == "run"])
    marks = {
        "labels": {"app.kubernetes.io/instance": "campaign", "team": "x"},
        "annotations": {"argocd.argoproj.io/tracking-id": "campaign:selfrewarding.dev/SelfRewardingRun:x/run"},
    }
    await h.admin.merge(RUNS, h.namespace, "run", {"metadata": marks})
    await h.barrier("third")
    assert len([r for r in h.proxy.writes() if r.name == "run"]) == before
    assert h.run()["metadata"]["labels"] == marks["labels"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
async def test_kubectl_applies_again_and_again(h: Harness, tmp_path: Path) -> None:
    await h.start()
    manifest = tmp_path / "run.json"
    manifest.write_text(json.dumps(h.manifest(**SHORT)), encoding="utf-8")

    async def kubectl(*arguments: str) -> str:
        environ = {**os.environ, "KUBECONFIG": str(h.admin.kubeconfig)}
        command = ("kubectl", f"--cache-dir={tmp_path / 'cache'}", *arguments, "-f", str(manifest))
        process = await asyncio.create_subprocess_exec(
            *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    assert "created" in await kubectl("apply")
    await h.succeeded()
    assert "unchanged" in await kubectl("apply")
    assert await kubectl("diff") == "", "what is in the cluster is what was applied"
    if not given():
        return
    assert "serverside-applied" in await kubectl("apply", "--server-side", "--field-manager=ci", "--force-conflicts")
    await kubectl("apply", "--server-side", "--field-manager=ci")  # kubectl moves what its other mode owned
    before = (await h.get())["metadata"]["resourceVersion"]
    await kubectl("apply", "--server-side", "--field-manager=ci")
    found = await h.get()
    assert (found["metadata"]["resourceVersion"], found["metadata"]["generation"]) == (before, 1)
