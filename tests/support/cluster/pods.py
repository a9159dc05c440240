"""Stands in for kubelets: pods get statuses and results by script, through `pods/status`; nothing runs.

The pods ask for a scheduler that does not exist, so a cluster's own scheduler and kubelets leave them alone: no
node, no image and no GPU is needed, and none is used where there are some.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from srlm_contract.tasks import StageTask
from srlm_operator.cluster.client import PODS
from srlm_operator.names import CONTAINER, LABEL_NODE
from support.cluster.kubelet import Kubelet, now
from support.cluster.view import View
from support.stage_script import Ending, FakeStages

Object = dict[str, Any]
SCHEDULER = "scripted-pods"
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass
class ScriptedPods:
    """Starts and ends every stage pod of the view's namespace as `stages` says."""

    view: View
    stages: FakeStages = field(default_factory=FakeStages)
    held: set[str] = field(default_factory=set)
    """Nodes whose pods keep running."""
    waiting: dict[str, Object] = field(default_factory=dict)
    """Container state `waiting` of the pods of a node, instead of running."""
    kubelet: Kubelet | None = None
    """When given, pods start only once it has nothing against it."""
    _done: dict[str, int] = field(default_factory=dict)
    """How far each pod was taken, by UID: 0 waiting, 1 running, 2 ended."""

    async def run(self) -> None:
        while True:
            moved, looks = False, self.view.looks
            for pod in list(self.view.objects["pods"].values()):
                moved |= await self._step(pod)
            if not moved:
                await self.view.change(looks)

    async def release(self, node: str) -> None:
        """Let the pods of a node go on."""
        self.held.discard(node)
        self.waiting.pop(node, None)
        await self.view.poke()

    async def _step(self, pod: Object) -> bool:
        """Take a pod one state further. False when there is nothing to do."""
        meta = pod["metadata"]
        node, uid = (meta.get("labels") or {}).get(LABEL_NODE, ""), meta["uid"]
        reached = self._done.get(uid, -1)
        if not node or "deletionTimestamp" in meta or reached == 2:
            return False
        if node in self.waiting:
            if reached == 0:
                return False
            self._done[uid] = 0
            return await self._write(pod, "Pending", {"waiting": self.waiting[node]})
        if reached < 1:
            if self.kubelet is not None and await self.kubelet.blocks(pod):
                return False
            self._done[uid] = 1
            return await self._write(pod, "Running", {"running": {"startedAt": now()}})
        if node in self.held:
            return False
        return await self.end(pod, self.stages.run(task_of(pod), int(meta["annotations"].get(INDEX, 0))))

    async def end(self, pod: Object, ending: Ending) -> bool:
        """The container of a pod ends at once."""
        self._done[pod["metadata"]["uid"]] = 2
        ended = {
            "exitCode": ending.exit_code,
            "reason": ending.reason or ("Completed" if ending.exit_code == 0 else "Error"),
            "message": ending.message,
            "startedAt": pod["metadata"]["creationTimestamp"],
            "finishedAt": now(),
        }
        return await self._write(pod, "Failed" if ending.exit_code else "Succeeded", {"terminated": ended})

    async def _write(self, pod: Object, phase: str, state: Object) -> bool:
        meta = pod["metadata"]
        container = {
            "name": CONTAINER,
            "image": pod["spec"]["containers"][0]["image"],
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        status = {"phase": phase, "containerStatuses": [container], "startTime": meta["creationTimestamp"]}
        return await self.view.admin.write_status(PODS, pod, status)


def task_of(pod: Object) -> StageTask:
    """What a stage's pod is to do."""
    env = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    return StageTask.model_validate_json(env["SRLM_TASK"] or "")
