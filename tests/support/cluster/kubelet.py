"""What keeps a pod from starting, told as scheduler and kubelet tell it; the checks are the pod runner's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from srlm_local.podrunner import environment, volumes
from srlm_local.podrunner.status import container_status, waiting
from srlm_operator.cluster.client import EVENTS, PODS
from support.cluster.admin import CONFIG_MAPS, SECRETS, Admin
from support.cluster.view import View

Object = dict[str, Any]
#: What a view must show for it.
KINDS = {"secrets": SECRETS, "configmaps": CONFIG_MAPS}


@dataclass
class Kubelet:
    """Of the one node there is, which has `extended` of each extended resource."""

    view: View
    folder: Path
    extended: dict[str, int] = field(default_factory=dict)
    _seconds: int = 0
    """By which the next event is later than the last one, as its times are whole seconds."""
    _told: dict[str, str] = field(default_factory=dict)
    """What was last said of each pod, by UID."""

    async def blocks(self, pod: Object) -> bool:
        """Write down why the pod cannot start. False when it can."""
        if lacking := self._lacking(pod):
            message = f"0/1 nodes are available: 1 Insufficient {lacking}."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            condition["lastTransitionTime"] = now()
            await self._tell(pod, message, {"phase": "Pending", "conditions": [condition]})
            return True
        try:
            folder = self.folder / pod["metadata"]["uid"]
            volumes.prepare(pod, folder, self.folder / "claims", self._lookup)
        except volumes.MountError as problem:
            if await self._wait(pod, "ContainerCreating", "", str(problem)):
                self._seconds += 1
                await tell(self.view.admin, pod, "Warning", "FailedMount", str(problem), later=self._seconds)
            return True
        for container in pod["spec"]["containers"]:
            if (problem := environment.pull_error(container["image"])) is not None:
                text = f'Back-off pulling image "{container["image"]}": ErrImagePull: {problem}'
                await self._wait(pod, "ImagePullBackOff", text, text)
                return True
            try:
                environment.variables(pod, container, self._lookup)
            except environment.ConfigError as error:
                await self._wait(pod, "CreateContainerConfigError", str(error), str(error))
                return True
        if (pod.get("status") or {}).get("conditions"):
            scheduled = {"type": "PodScheduled", "status": "True"}
            await self.view.admin.write_status(PODS, pod, {"conditions": [scheduled]})
        return False

    def _lookup(self, resource: str, name: str) -> Object | None:
        return self.view.objects[resource].get(name)

    def _lacking(self, pod: Object) -> str:
        for container in pod["spec"]["containers"]:
            for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
                if "/" in name and self.extended.get(name, 0) < int(amount):
                    return str(name)
        return ""

    async def _wait(self, pod: Object, reason: str, message: str, told: str) -> bool:
        state = waiting(reason, message)
        statuses = [container_status(container, state) for container in pod["spec"]["containers"]]
        started = (pod.get("status") or {}).get("startTime") or now()
        return await self._tell(pod, told, {"phase": "Pending", "startTime": started, "containerStatuses": statuses})

    async def _tell(self, pod: Object, told: str, status: Object) -> bool:
        """Once: a status that is written again and again would wake everybody again and again."""
        uid = pod["metadata"]["uid"]
        if self._told.get(uid) == told:
            return False
        self._told[uid] = told
        return await self.view.admin.write_status(PODS, pod, status)


async def tell(admin: Admin, pod: Object, kind: str, reason: str, message: str, *, later: int = 0) -> None:
    """An event of the kubelet about a pod; `later`: seconds from now, as its times are whole seconds."""
    meta = pod["metadata"]
    about = {"apiVersion": "v1", "kind": "Pod", **{key: meta[key] for key in ("namespace", "name", "uid")}}
    body = {
        "metadata": {"generateName": f"{meta['name']}."},
        "involvedObject": about,
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": "kubelet"},
        "firstTimestamp": now(later),
        "lastTimestamp": now(later),
        "count": 1,
    }
    await admin.create(EVENTS, meta["namespace"], body)


def now(later: int = 0) -> str:
    """As Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=later)).strftime("%Y-%m-%dT%H:%M:%SZ")
