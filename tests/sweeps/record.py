"""What has happened to the Jobs and pods of a simulation, and what of it must never be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from srlm_contract.spec.policy import FailurePolicySpec
from srlm_local.store.storage import Change, Storage
from srlm_operator.cluster.views import pod_view
from srlm_operator.names import LABEL_ITERATION, LABEL_KEY, LABEL_NODE, LABEL_RUN, LABEL_RUN_UID
from srlm_operator.plan.outcomes import disrupted

Object = dict[str, Any]
RUNS, JOBS, PODS = "selfrewardingruns.selfrewarding.dev", "jobs.batch", "pods"
NAMESPACE = "team"
#: Exit codes of stages that break, and how often they may.
CRASHES, MAX_ATTEMPTS = (1, 137), FailurePolicySpec().max_attempts


@dataclass
class Record:
    """Of one simulation: told of every change in its object store, before any other part of it."""

    storage: Storage
    now: Callable[[], datetime]
    made: list[str] = field(default_factory=list)
    """`<iteration>/<node> x<completions>` of all Jobs that there ever were."""
    names: set[str] = field(default_factory=set)
    """Of these Jobs."""
    wrong: list[str] = field(default_factory=list)
    """What must never be, and was."""
    used: dict[str, tuple[float, datetime, datetime | None]] = field(default_factory=dict)
    """GPUs of each pod that ever ran, its begin and its end; by UID."""
    lost: Counter[str] = field(default_factory=Counter)
    """Events of Jobs and pods that the operator heard late or never, by UID of their run: it may have taken a crash for
    something that costs no attempt."""
    _crashes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """By run, node and key, generation and retry that the operator knows of, since the node last succeeded."""

    def gpu_seconds(self) -> float:
        """That pods really held GPUs."""
        now = self.now()
        return sum(gpus * ((end or now) - begin).total_seconds() for gpus, begin, end in self.used.values())

    def note(self, change: Change) -> None:
        if change.resource == PODS:
            self._note_pod(change)
        elif change.resource == JOBS and change.type == "ADDED":
            self._note_new(change.object)
        elif change.resource == JOBS and change.previous is not None and not ended(change.previous):
            self._note_end(change.object)

    def note_loss(self, change: Change) -> None:
        if change.resource != RUNS:
            self.lost[run_of(change.object)[1]] += 1

    def note_deletion(self, job: Object) -> None:
        """The operator has deleted a Job. What it came to must have been in status: that is when it gets its TTL."""
        name, uid = run_of(job)
        run = self.storage.get(RUNS, NAMESPACE, name)
        goes_on = run is not None and run["metadata"]["uid"] == uid and "deletionTimestamp" not in run["metadata"]
        if goes_on and ended(job) and "ttlSecondsAfterFinished" not in job["spec"]:
            self.wrong.append(f"{job['metadata']['name']} had ended, and was deleted unread")

    def _note_pod(self, change: Change) -> None:
        """How long it has its GPUs."""
        pod = pod_view(change.object)
        if pod.started_at is not None:
            gone = self.now() if change.type == "DELETED" else None
            self.used[pod.uid] = (pod.gpus, pod.started_at, pod.finished_at or gone)

    def _note_new(self, job: Object) -> None:
        """The name of a Job is new, and no other of its node is at work."""
        name, node = job["metadata"]["name"], node_id(job)
        self.made.append(f"{node} x{job['spec']['completions']}")
        if name in self.names:
            self.wrong.append(f"{name} was made again")
        self.names.add(name)
        for other in self.storage.list(JOBS, NAMESPACE):
            same = run_of(other) == run_of(job) and node_id(other) == node and other["metadata"]["name"] != name
            if same and "deletionTimestamp" not in other["metadata"] and not finished(other):
                self.wrong.append(f"{name} was made while {other['metadata']['name']} was at work")

    def _note_end(self, job: Object) -> None:
        """A Job may have ended just now: no stage has more attempts than it may."""
        name, uid = run_of(job)
        node = uid, node_id(job), job["metadata"]["labels"].get(LABEL_KEY, "")
        if "Complete" in conditions(job):
            for known in [known for known in self._crashes if known[:3] == node]:
                del self._crashes[known]
        elif "Failed" in conditions(job) and self._crashed(job):
            status = (self.storage.get(RUNS, NAMESPACE, name) or {}).get("status", {})
            known = *node, str(status.get("observedGeneration")), status.get("retryToken", "")
            self._crashes[known] += 1
            if self._crashes[known] > MAX_ATTEMPTS + self.lost[uid]:
                self.wrong.append(f"{job['metadata']['name']} is an attempt too many")

    def _crashed(self, job: Object) -> bool:
        """Whether its failure costs an attempt: nothing but the stage itself is to blame."""
        pods = [pod_view(pod) for pod in self.storage.list(PODS, NAMESPACE)]
        pods = [pod for pod in pods if pod.job == job["metadata"]["name"] and pod.phase == "Failed"]
        return bool(pods) and all(pod.exit_code in CRASHES and not disrupted(pod) and not pod.deleting for pod in pods)


def conditions(obj: Object) -> set[str]:
    """Types of the conditions that hold."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return {condition["type"] for condition in found if condition["status"] == "True"}


def ended(job: Object) -> bool:
    return not conditions(job).isdisjoint({"Complete", "Failed"})


def finished(job: Object) -> bool:
    """Whether it makes no pods any more."""
    return ended(job) or not conditions(job).isdisjoint({"SuccessCriteriaMet", "FailureTarget"})


def node_id(obj: Object) -> str:
    """`<iteration>/<node>` of a Job or a pod."""
    labels = obj["metadata"]["labels"]
    return f"{labels[LABEL_ITERATION]}/{labels[LABEL_NODE]}"


def run_of(obj: Object) -> tuple[str, str]:
    """Name and UID of the run that a Job or a pod belongs to."""
    labels = obj["metadata"]["labels"]
    return labels[LABEL_RUN], labels[LABEL_RUN_UID]
