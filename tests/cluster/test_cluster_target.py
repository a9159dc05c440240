"""Whose cluster it is: nothing of others is touched, and what a killed session left behind is removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from srlm_operator.cluster.client import RUNS
from srlm_operator.crd.definition import API_VERSION, CRD_NAME, KIND, custom_resource_definition
from srlm_operator.names import FINALIZER
from support.builders import manifest_spec
from support.cluster.admin import DEFINITIONS, NAMESPACES, RIGHTS, Admin
from support.cluster.machine import one_machine
from support.cluster.target import LABEL, Occupied, established, install, sweep

pytestmark = pytest.mark.e2e


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """The administrator of a cluster of the test's own."""
    async with one_machine(tmp_path) as machine, Admin(machine.kubeconfig) as found:
        yield found


async def test_a_cluster_with_runs_is_left_alone(admin: Admin) -> None:
    theirs = await admin.create(DEFINITIONS, "", custom_resource_definition())
    with pytest.raises(Occupied, match="has selfrewardingruns"):
        await install(admin)
    assert (await admin.get(DEFINITIONS, "", CRD_NAME))["metadata"]["uid"] == theirs["metadata"]["uid"]


async def test_what_a_killed_session_left_is_removed(admin: Admin) -> None:
    await install(admin)
    role = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}
    for name, labels in (("ours", {LABEL: "ours"}), ("theirs", {})):
        await admin.create(NAMESPACES, "", {"metadata": {"name": name, "labels": labels}})
        await admin.create(RIGHTS["ClusterRole"], "", {"metadata": {"name": name, "labels": labels}, **role})
    run = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "run", "finalizers": [FINALIZER]},
        "spec": manifest_spec(),
    }
    await admin.create(RUNS, "ours", run)
    await sweep(admin)
    left = {obj["metadata"]["name"] for obj in (await admin.list(NAMESPACES)).items}
    assert ("ours" in left, "theirs" in left) == (False, True)
    assert await admin.find(RIGHTS["ClusterRole"], "", "ours") is None
    assert await admin.find(RIGHTS["ClusterRole"], "", "theirs")
    assert await admin.find(DEFINITIONS, "", CRD_NAME) is None
    await install(admin)
    await established(admin, CRD_NAME)
