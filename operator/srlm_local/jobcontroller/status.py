"""The status of a Job while it is being worked out: counters, uncounted pods, index lists, conditions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from srlm_local.jobcontroller import indexes
from srlm_local.store.clock import to_seconds

Object = dict[str, Any]


class JobStatus:
    """Begins as the Job's status; `body` is what is to be written."""

    def __init__(self, job: Object, now: datetime) -> None:
        self.fields: Object = {"terminating": 0, "uncountedTerminatedPods": {}, **(job.get("status") or {})}
        uncounted = self.fields["uncountedTerminatedPods"]
        self.uncounted: dict[str, list[str]] = {kind: list(uncounted.get(kind, [])) for kind in ("succeeded", "failed")}
        self._now = to_seconds(now)

    def body(self) -> Object:
        """As the API server wants it."""
        self.fields["uncountedTerminatedPods"] = {kind: uids for kind, uids in self.uncounted.items() if uids}
        self.fields.setdefault("ready", 0)
        return self.fields

    def start(self) -> None:
        """Sets startTime to now."""
        self.fields["startTime"] = self._now

    def number(self, key: str) -> int:
        """A counter; absent is 0."""
        return int(self.fields.get(key, 0))

    def set_number(self, key: str, number: int) -> None:
        """Zeros are left out, as Go does."""
        self.fields.pop(key, None)
        if number:
            self.fields[key] = number

    def add_uncounted(self, kind: str, uid: str) -> bool:
        """Notes a pod that ended; False if it was noted before."""
        if uid in self.uncounted[kind]:
            return False
        self.uncounted[kind].append(uid)
        return True

    def count_gone(self, tracked: set[str]) -> bool:
        """Moves uncounted pods that have lost their finalizer into the counters; True if there were any."""
        moved = False
        for kind, uids in self.uncounted.items():
            left = [uid for uid in uids if uid in tracked]
            if len(left) < len(uids):
                self.set_number(kind, self.number(kind) + len(uids) - len(left))
                moved = True
            self.uncounted[kind] = left
        return moved

    def set_indexes(self, succeeded: Iterable[int], failed: Iterable[int] | None) -> bool:
        """Writes the index lists (`failed` only with backoffLimitPerIndex); True if they changed."""
        old = self.fields.get("completedIndexes", ""), self.fields.get("failedIndexes")
        done = set(succeeded)
        self.set_number("succeeded", len(done))
        self.fields.pop("completedIndexes", None)
        if done:
            self.fields["completedIndexes"] = indexes.render(done)
        if failed is not None:
            self.fields["failedIndexes"] = indexes.render(failed)
        return old != (self.fields.get("completedIndexes", ""), self.fields.get("failedIndexes"))

    def has_condition(self, kind: str, value: str | None = None) -> bool:
        """Whether there is a condition of that type, with that value if one is given."""
        return any(c["type"] == kind and value in (None, c["status"]) for c in self.fields.get("conditions") or [])

    def set_condition(self, kind: str, value: str, reason: str, message: str) -> bool:
        """Changes a condition, or adds it; False if it has that value already."""
        if self.has_condition(kind, value):
            return False
        times = {"lastProbeTime": self._now, "lastTransitionTime": self._now}
        made = {"type": kind, "status": value, **times, "reason": reason, "message": message}
        have = self.fields.get("conditions") or []
        if self.has_condition(kind):
            self.fields["conditions"] = [made if c["type"] == kind else c for c in have]
        else:
            self.fields["conditions"] = [*have, made]
        return True

    def add(self, condition: Object) -> bool:
        """Adds a condition; False if it holds already. A Job that completes gets its completion time."""
        if condition["type"] == "Complete":
            self.fields["completionTime"] = self._now
        return self.set_condition(condition["type"], condition["status"], condition["reason"], condition["message"])
