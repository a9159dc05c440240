"""The cluster under test, and what is installed there for all tests: the definition of runs.

Without SRLM_TEST_KUBECONFIG it is the one-machine API server. KUBECONFIG itself is never looked at: who runs all
tests with it set does not want them to reach that cluster.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from srlm_operator.cluster.client import JOBS, RUNS, Resource
from srlm_operator.crd.definition import CRD_NAME, custom_resource_definition
from support.cluster.admin import DEFINITIONS, NAMESPACES, PRIORITIES, RIGHTS, Admin
from support.cluster.view import viewing

VARIABLE = "SRLM_TEST_KUBECONFIG"
#: On everything that these tests create outside their namespaces, and on the namespaces.
LABEL = "selfrewarding.dev/test-cluster"


class Occupied(RuntimeError):
    """The cluster is somebody's."""


def given() -> Path | None:
    """The administrator's kubeconfig of the API server to test on; None for the one-machine cluster."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{VARIABLE}={text}: there is no such file")
    return path


async def install(admin: Admin) -> None:
    """Put the definition of runs into the cluster. Raises Occupied if somebody else has done that already."""
    await sweep(admin)
    found = await admin.find(DEFINITIONS, "", CRD_NAME)
    if found is not None:
        raise Occupied(
            f"the cluster at {admin.configuration.host} has {CRD_NAME} already: test in a cluster without it, as these"
            " tests change and remove the definition, and all runs with it"
        )
    await admin.create(DEFINITIONS, "", definition())
    await established(admin, CRD_NAME)


def definition() -> dict[str, Any]:
    """The definition of runs as this version has it, with the label of these tests."""
    body = custom_resource_definition()
    body["metadata"] = {**body["metadata"], "labels": {**body["metadata"].get("labels", {}), LABEL: "true"}}
    return body


async def define(admin: Admin, body: dict[str, Any]) -> None:
    """Change the definition of runs."""
    await admin.merge(DEFINITIONS, "", CRD_NAME, {"spec": body["spec"]})
    await established(admin, CRD_NAME)


async def established(admin: Admin, name: str) -> None:
    """Wait until a definition is served."""
    async with viewing(admin, "", {"definitions": DEFINITIONS}) as view:
        await view.until(lambda: _served(view.objects["definitions"].get(name, {})))


def _served(obj: dict[str, Any]) -> bool:
    conditions = obj.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


async def sweep(admin: Admin) -> None:
    """Remove everything that these tests put into the cluster, also what a killed session left there."""
    crd = await admin.find(DEFINITIONS, "", CRD_NAME)
    ours = crd is not None and LABEL in crd["metadata"].get("labels", {})
    for namespace in (await admin.list(NAMESPACES, labels=LABEL)).items:
        await remove_namespace(admin, namespace["metadata"]["name"], runs=ours)
    await remove_unscoped(admin, LABEL)
    if ours:
        await admin.remove(DEFINITIONS, "", CRD_NAME)
        await gone(admin, DEFINITIONS, CRD_NAME)


async def remove_namespace(admin: Admin, name: str, *, runs: bool = True) -> None:
    """Delete a namespace and wait until it is gone. No operator is there to clean up, so runs are let go."""
    if runs:
        for run in (await admin.list(RUNS, name)).items:
            if run["metadata"].get("finalizers"):
                await admin.merge(RUNS, name, run["metadata"]["name"], {"metadata": {"finalizers": None}})
    for job in (await admin.list(JOBS, name)).items:  # first: a namespace waits minutes for Jobs with a back-off
        await admin.remove(JOBS, name, job["metadata"]["name"])
    await admin.remove(NAMESPACES, "", name)
    await gone(admin, NAMESPACES, name)


async def remove_unscoped(admin: Admin, labels: str) -> None:
    """Delete what lies in no namespace: cluster roles, their bindings and priority classes."""
    for resource in (RIGHTS["ClusterRoleBinding"], RIGHTS["ClusterRole"], PRIORITIES):
        for obj in (await admin.list(resource, labels=labels)).items:
            await admin.remove(resource, "", obj["metadata"]["name"])


async def gone(admin: Admin, resource: Resource, name: str, namespace: str = "") -> None:
    """Wait until there is no object of a kind by that name."""
    async with viewing(admin, namespace, {"all": resource}) as view:
        await view.until(lambda: name not in view.objects["all"])
