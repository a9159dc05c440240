"""The cluster under test, and what is installed there for all tests: the definition of runs.

Without SRLM_TEST_KUBECONFIG it is the one-machine API server. KUBECONFIG itself is never looked at: who runs all
tests with it set does not want them to reach that cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.admin import DEFINITIONS, NAMESPACES, RIGHTS, Admin
from cluster.one_machine import one_machine
from cluster.view import viewing
from srlm_operator.cluster.client import JOBS, RUNS, Resource
from srlm_operator.crd.definition import CRD_NAME, custom_resource_definition

VARIABLE = "SRLM_TEST_KUBECONFIG"
#: On everything that these tests create outside their namespaces, and on the namespaces.
LABEL = "selfrewarding.dev/test-cluster"


class Occupied(RuntimeError):
    """The cluster is somebody's."""


def real() -> bool:
    """Whether the tests run on a real API server: the one-machine cluster lacks what runs here do not need."""
    return bool(os.environ.get(VARIABLE))


@contextmanager
def kubeconfig(folder: Path) -> Iterator[Path]:
    """The administrator's kubeconfig of the cluster under test."""
    given = os.environ.get(VARIABLE, "")
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{VARIABLE}={given}: there is no such file")
        yield path
    else:
        with one_machine(folder) as path:
            yield path


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
    await established(admin)


def definition() -> dict[str, Any]:
    """The definition of runs as this version has it, with the label of these tests."""
    body = custom_resource_definition()
    body["metadata"] = {**body["metadata"], "labels": {**body["metadata"].get("labels", {}), LABEL: "true"}}
    return body


async def established(admin: Admin) -> None:
    """Wait until the definition is served."""
    async with viewing(admin, "", {"definitions": DEFINITIONS}) as view:
        await view.until(lambda: _served(view.objects["definitions"].get(CRD_NAME, {})))


def _served(obj: dict[str, Any]) -> bool:
    conditions = obj.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


async def sweep(admin: Admin) -> None:
    """Remove everything that these tests put into the cluster, also what a killed session left there."""
    crd = await admin.find(DEFINITIONS, "", CRD_NAME)
    ours = crd is not None and LABEL in crd["metadata"].get("labels", {})
    for namespace in (await admin.list(NAMESPACES, labels=LABEL)).items:
        await remove_namespace(admin, namespace["metadata"]["name"], runs=ours)
    await remove_rights(admin, LABEL)
    if ours:
        await admin.remove(DEFINITIONS, "", CRD_NAME)
        await _gone(admin, DEFINITIONS, CRD_NAME)


async def remove_namespace(admin: Admin, name: str, *, runs: bool = True) -> None:
    """Delete a namespace and wait until it is gone. No operator is there to clean up, so runs are let go."""
    if runs:
        for run in (await admin.list(RUNS, name)).items:
            if run["metadata"].get("finalizers"):
                await admin.merge(RUNS, name, run["metadata"]["name"], {"metadata": {"finalizers": None}})
    for job in (await admin.list(JOBS, name)).items:  # first: a namespace waits minutes for Jobs with a back-off
        await admin.remove(JOBS, name, job["metadata"]["name"])
    await admin.remove(NAMESPACES, "", name)
    await _gone(admin, NAMESPACES, name)


async def remove_rights(admin: Admin, labels: str) -> None:
    """Delete cluster roles and their bindings."""
    for kind in ("ClusterRoleBinding", "ClusterRole"):
        for obj in (await admin.list(RIGHTS[kind], labels=labels)).items:
            await admin.remove(RIGHTS[kind], "", obj["metadata"]["name"])


async def _gone(admin: Admin, resource: Resource, name: str) -> None:
    async with viewing(admin, "", {"all": resource}) as view:
        await view.until(lambda: name not in view.objects["all"])
