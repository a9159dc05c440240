"""PodGroups for tests: those of the cluster under test, or a stand-in on the one-machine cluster."""

from __future__ import annotations

from typing import Any

from srlm_operator.cluster.client import POD_GROUPS, Resource
from support.cluster.admin import DEFINITIONS
from support.cluster.harness import Harness
from support.cluster.target import established


async def pod_groups(h: Harness) -> Resource | None:
    """The version in which the cluster serves PodGroups; None where a real one does not."""
    if h.machine is not None:
        await h.admin.create(DEFINITIONS, "", _definition(POD_GROUPS[0]))
        await established(h.admin, f"{POD_GROUPS[0].plural}.{POD_GROUPS[0].group}")
    return await h.admin.first_served(POD_GROUPS)


def _definition(resource: Resource) -> dict[str, Any]:
    """What the operator writes, as Kubernetes takes it, and nothing else."""
    gang = _object(["minCount"], minCount={"type": "integer", "minimum": 1})
    spec = _object(
        ["schedulingPolicy"],
        schedulingPolicy=_object(["gang"], gang=gang),
        priorityClassName={"type": "string"},
    )
    version = {"name": resource.version, "served": True, "storage": True}
    return {
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {"kind": "PodGroup", "plural": resource.plural},
            "versions": [{**version, "schema": {"openAPIV3Schema": _object(["spec"], spec=spec)}}],
        },
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}
