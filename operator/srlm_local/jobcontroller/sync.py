"""One pass over one Job: count what ended, create or delete pods, write the status.

The order of writes is the real controller's. Pods that ended go into `uncountedTerminatedPods` (or their
index into `completedIndexes`) first, then lose their finalizer, then are added to the counters: whoever is
killed in between counts nothing twice and forgets nothing.
"""

from __future__ import annotations

from typing import Any

from srlm_local.jobcontroller import indexes, policies
from srlm_local.jobcontroller import pods as p
from srlm_local.jobcontroller.backoff import Backoff, remaining
from srlm_local.jobcontroller.status import JobStatus
from srlm_local.store.cluster import Cluster
from srlm_local.store.errors import ApiError
from srlm_local.store.events import record

Object = dict[str, Any]
COMPONENT = "job-controller"
RETRY_SECONDS = 5.0


class Pass:
    """One pass over a Job and its pods."""

    def __init__(self, cluster: Cluster, job: Object, pods: list[Object], backoff: Backoff) -> None:
        self.cluster = cluster
        self.job = job
        self.pods = pods
        self.backoff = backoff
        self.now = cluster.clock.now()
        self.again: float | None = None
        """Seconds after which to look again."""
        self.indexed = p.is_indexed(job)
        self.status = JobStatus(job, self.now)
        """The one to be written."""
        self.active = [pod for pod in pods if p.active(pod)]
        self.active_count = len(self.active)
        self.ready = sum(p.ready(pod) for pod in self.active)
        self.terminating = sum(p.terminating(pod) for pod in pods)
        self.counted_indexes = indexes.parse(self.status.fields.get("completedIndexes"))
        self.succeeded_indexes = set(self.counted_indexes)
        self.succeeded = 0
        """Completions so far, those not yet counted in the status included."""
        self.failed_indexes: set[int] | None = None
        self.delayed: dict[int, Object] = {}
        """With backoffLimitPerIndex: the failed pod to be replaced, by index; counted only after that."""

    def run(self) -> Backoff:
        """Does everything; returns the back-off to go on with. `again` says when to look again."""
        fields = self.status.fields
        if "startTime" not in fields and not self.job["spec"]["suspend"]:
            self.status.start()
        before = {key: fields.get(key) for key in ("active", "ready", "terminating", "conditions")}
        succeeded, failed = self._newly_ended()
        self.backoff = self.backoff.after(map(p.finish_time, succeeded), map(p.finish_time, failed))
        uncounted = len(self.status.uncounted["succeeded"])
        self.succeeded = self.status.number("succeeded") + len(succeeded) + uncounted
        end = self._end(failed)
        if end is not None:
            self._delete(self.active, forget=False)
        else:
            if not self._manage():
                self._again_in(RETRY_SECONDS)
            end = self._after_manage()
        self.status.set_number("active", self.active_count)
        fields["ready"] = self.ready
        fields["terminating"] = self.terminating
        self._track(end, any(fields.get(key) != value for key, value in before.items()))
        return self.backoff

    def _again_in(self, seconds: float) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)

    def _newly_ended(self) -> tuple[list[Object], list[Object]]:
        known = {uid for uids in self.status.uncounted.values() for uid in uids}
        new = [pod for pod in self.pods if p.tracked(pod) and pod["metadata"]["uid"] not in known]
        succeeded = [pod for pod in new if p.phase(pod) == "Succeeded"]
        return succeeded, [pod for pod in new if p.phase(pod) == "Failed"]

    def _end(self, newly_failed: list[Object]) -> Object | None:
        """The condition that ends the Job, decided now or earlier."""
        end = policies.find(self.job, "SuccessCriteriaMet") or policies.find(self.job, "FailureTarget")
        if end is None:
            counting = sum(policies.counts(self.job, pod) for pod in newly_failed)
            failures = self.status.number("failed") + counting + len(self.status.uncounted["failed"])
            started = {**self.job, "status": self.status.fields}
            end = policies.failure(started, self.pods, failures, self.now)
            if end is None and (left := policies.deadline_in(started, self.now)) is not None:
                self._again_in(left)
        if self.indexed:
            self._indexes()
            if end is None and self.failed_indexes is not None:
                end = policies.index_failure(self.job, self.failed_indexes, self.succeeded_indexes)
        return end

    def _indexes(self) -> None:
        tracked = [pod for pod in self.pods if p.tracked(pod)]
        self.succeeded_indexes |= {p.index_of(pod) for pod in tracked if p.phase(pod) == "Succeeded"}
        self.succeeded = len(self.succeeded_indexes)
        if not p.per_index(self.job):
            return
        failed = [pod for pod in tracked if p.phase(pod) == "Failed"]
        self.failed_indexes = indexes.parse(self.status.fields.get("failedIndexes"))
        self.failed_indexes |= {p.index_of(pod) for pod in failed if policies.index_failed(self.job, pod)}
        settled = self.succeeded_indexes | self.failed_indexes | {p.index_of(pod) for pod in self.active}
        for pod in sorted(failed, key=p.failure_count):
            if p.index_of(pod) not in settled:
                self.delayed[p.index_of(pod)] = pod

    def _after_manage(self) -> Object | None:
        if self.succeeded >= self.job["spec"]["completions"] and self.active_count == 0:
            return policies.COMPLETE
        known = self.status.has_condition("Suspended")
        if not self.job["spec"]["suspend"]:
            if known and self.status.set_condition("Suspended", "False", "JobResumed", "Job resumed"):
                self.status.start()
                self._event("Normal", "Resumed", "Job resumed")
        elif self.status.set_condition("Suspended", "True", "JobSuspended", "Job suspended"):
            self.status.fields.pop("startTime", None)
            self._event("Normal", "Suspended", "Job suspended")
        return None

    # ---- pods

    def _manage(self) -> bool:
        """Creates pods, or deletes those of a suspended Job; False if one was refused."""
        spec = self.job["spec"]
        if spec["suspend"]:
            self._delete(self.active, forget=True)
            return True
        wanted = min(spec["completions"] - self.succeeded, spec["parallelism"])
        missing = wanted - self.terminating - self.active_count
        if missing <= 0:
            return True
        wait = 0.0 if p.per_index(self.job) else self.backoff.wait(self.now)
        chosen: list[int | None] = [None] * missing
        if self.indexed and not wait:
            chosen, wait = self._next_indexes(missing)
        if wait:
            # Seen in recordings: while it waits, the status shows no active pods at all.
            self._again_in(wait)
            self.active_count = 0
            return True
        return self._create(chosen)

    def _next_indexes(self, count: int) -> tuple[list[int | None], float]:
        there = {p.index_of(pod) for pod in self.pods if p.active(pod) or p.terminating(pod)}
        taken = self.succeeded_indexes | there | (self.failed_indexes or set())
        free = [index for index in range(self.job["spec"]["completions"]) if index not in taken][:count]
        waits = {index: self._wait(self.delayed[index]) if index in self.delayed else 0.0 for index in free}
        now = [index for index in free if not waits[index]]
        return list(now), 0.0 if now or not waits else min(waits.values())

    def _wait(self, pod: Object) -> float:
        """Seconds until this failed pod may be replaced; one whose failure does not count waits as after the first."""
        return remaining(max(self._failures(pod), 1), p.finish_time(pod), self.now)

    def _failures(self, pod: Object) -> int:
        """Failures of the pod's index, its own included."""
        return p.failure_count(pod) + policies.counts(self.job, pod)

    def _create(self, chosen: list[int | None]) -> bool:
        namespace = self.job["metadata"]["namespace"]
        for index in chosen:
            failures = None
            if index is not None and p.per_index(self.job):
                failures = self._failures(self.delayed[index]) if index in self.delayed else 0
            try:
                pod = self.cluster.create("pods", p.make_pod(self.job, index, failures), namespace)
            except ApiError as error:
                causes = [cause.get("reason") for cause in (error.details or {}).get("causes") or []]
                if "NamespaceTerminating" not in causes:
                    self._event("Warning", "FailedCreate", f"Error creating: {error.message}")
                return False
            self.active_count += 1
            self._event("Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        return True

    def _delete(self, doomed: list[Object], *, forget: bool) -> None:
        """Deletes active pods; with `forget` they lose their finalizer first and so are never counted."""
        namespace = self.job["metadata"]["namespace"]
        for pod in doomed:
            name = pod["metadata"]["name"]
            if forget:
                self._untrack(pod)
            uid = pod["metadata"]["uid"]
            self.cluster.delete("pods", name, namespace, propagation="Background", uid=uid)
            self._event("Normal", "SuccessfulDelete", f"Deleted pod: {name}")
            self.active_count -= 1
            self.ready -= p.ready(pod)
            self.terminating += 1

    def _untrack(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if not p.tracked(pod):
            return
        left = [name for name in metadata["finalizers"] if name != p.FINALIZER]
        metadata["finalizers"] = left
        self.cluster.patch("pods", metadata["name"], {"metadata": {"finalizers": left or None}}, metadata["namespace"])

    # ---- status

    def _track(self, end: Object | None, changed: bool) -> None:
        """Counts the pods that ended and writes the status around the removal of their finalizers."""
        tracked = {pod["metadata"]["uid"] for pod in self.pods if p.tracked(pod)}
        changed |= self.status.count_gone(tracked)
        done: list[Object] = []
        order = sorted(self.pods, key=p.index_of) if self.indexed else self.pods
        for pod in order:
            if not p.tracked(pod) or not self._countable(pod, end):
                continue
            done.append(pod)
            changed |= self._count(pod, end)
        if self.indexed:
            changed |= self.status.set_indexes(self.succeeded_indexes, self.failed_indexes)
        final = None
        if end is not None:
            changed |= self.status.add(end)
            final = policies.final(end)
        if changed:
            self._write()
            changed = False
        for pod in done:
            self._untrack(pod)
            tracked.discard(pod["metadata"]["uid"])
        changed |= self.status.count_gone(tracked)
        if final is not None and not any(self.status.uncounted.values()) and not self.terminating:
            self.status.add(final)
            self._write()
            if final["type"] == "Complete":
                self._event("Normal", "Completed", "Job completed")
            else:
                self._event("Warning", final["reason"], final["message"])
        elif changed:
            self._write()

    def _countable(self, pod: Object, end: Object | None) -> bool:
        if end is not None or p.phase(pod) == "Succeeded":
            return True
        if p.phase(pod) != "Failed":
            return False
        waiting = self.delayed.get(p.index_of(pod))
        return waiting is None or waiting["metadata"]["uid"] != pod["metadata"]["uid"]

    def _count(self, pod: Object, end: Object | None) -> bool:
        """Puts a pod that ended among the uncounted; True if the status has to be written for it."""
        if p.phase(pod) == "Succeeded":
            if self.indexed:
                return p.index_of(pod) not in self.counted_indexes
            return self.status.add_uncounted("succeeded", pod["metadata"]["uid"])
        if p.phase(pod) == "Failed":
            counted = policies.counts(self.job, pod)
        else:
            counted = end is not None and end["type"] == "FailureTarget"
        return counted and self.status.add_uncounted("failed", pod["metadata"]["uid"])

    def _write(self) -> None:
        # Fresh: others may have changed labels, or the spec, while this controller slept between passes.
        current = self.cluster.get("jobs.batch", self.job["metadata"]["name"], self.job["metadata"]["namespace"])
        self.cluster.update("jobs.batch", {**current, "status": self.status.body()}, subresource="status")

    def _event(self, kind: str, reason: str, message: str) -> None:
        record(self.cluster, self.job, kind, reason, message, COMPONENT)
