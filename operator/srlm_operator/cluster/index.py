"""Watch-fed indexes of runs, Jobs and pods, and what the operator remembers between two plans.

Nothing here is needed to be right after a restart: it is filled by listing, and by watching from then on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from srlm_contract.progress import Progress
from srlm_operator import names
from srlm_operator.values import Refusal

Obj = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name of a run."""
Kind = Literal["runs", "jobs", "pods"]


class World:
    """Objects by kind; the newest version of each wins, whatever order they arrive in."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Key, Obj]] = {"runs": {}, "jobs": {}, "pods": {}}
        self._of_run: dict[Kind, dict[Key, set[Key]]] = {"jobs": defaultdict(set), "pods": defaultdict(set)}
        """By namespace and UID of the run."""
        self.refusals: dict[str, dict[str, Refusal]] = defaultdict(dict)
        """By UID of the run, by name of the Job."""
        self.progress: dict[str, dict[str, Progress]] = defaultdict(dict)
        """By UID of the run, by name of the pod."""
        self.unread: dict[str, set[str]] = defaultdict(set)
        """By UID of the run: names of pods whose logs cannot be read."""

    def feed(self, kind: Kind, obj: Obj, *, deleted: bool = False, instead_of: str | None = None) -> Key | None:
        """Take an object as a watch, a read or a write brought it. Returns the run it concerns.

        instead_of: version that was known when a read began. If it still is, what was read replaces it, even by an
        older version: an API server whose store was restored from a backup counts from an earlier version on.
        """
        key = key_of(obj)
        known = self._objects[kind].get(key)
        if deleted:
            # The end of an older object of the same name is no news.
            if known is None or known["metadata"].get("uid") == obj["metadata"].get("uid"):
                self._drop(kind, key)
        elif known is None or version_of(known) == instead_of or _number(obj) >= _number(known):
            if known is not None:
                self._unlink(kind, key, known)  # its labels may have been changed since
            self._objects[kind][key] = _lean(kind, obj)
            if kind != "runs" and _run_uid(obj):
                self._of_run[kind][key[0], _run_uid(obj)].add(key)
        return self.concerns(kind, obj)

    @staticmethod
    def concerns(kind: Kind, obj: Obj) -> Key | None:
        """The run an object belongs to."""
        meta = obj["metadata"]
        namespace = meta.get("namespace", "")
        if kind == "runs":
            return (namespace, meta["name"])
        run = (meta.get("labels") or {}).get(names.LABEL_RUN)
        return (namespace, run) if run else None

    def forget(self, kind: Kind, key: Key) -> None:
        """An object that turned out not to exist."""
        self._drop(kind, key)

    def run(self, key: Key) -> Obj | None:
        return self._objects["runs"].get(key)

    def runs(self) -> Iterator[Obj]:
        return iter(list(self._objects["runs"].values()))

    def owned(self, kind: Literal["jobs", "pods"], namespace: str, run_uid: str) -> list[Obj]:
        """Jobs or pods that carry the run's UID, in its namespace: anybody may write that label in another one."""
        keys = self._of_run[kind].get((namespace, run_uid)) or ()
        return [self._objects[kind][key] for key in sorted(keys)]

    def get(self, kind: Kind, key: Key) -> Obj | None:
        return self._objects[kind].get(key)

    def versions(self, kind: Kind, namespace: str | None = None) -> Mapping[Key, str]:
        """The version known of every object; `missing` and `vanished` compare a listing with those from before it."""
        known = self._objects[kind].items()
        return {key: version_of(obj) for key, obj in known if namespace in (None, key[0])}

    def missing(self, kind: Kind, listed: Iterable[Obj], before: Mapping[Key, str]) -> list[Obj]:
        """Listed objects that are not known, known in an older version, or in one from before that is no more."""
        found = []
        for obj in listed:
            key = key_of(obj)
            known = self._objects[kind].get(key)
            newer = known is None or _number(known) < _number(obj)
            if newer or (known is not None and version_of(obj) != version_of(known) == before.get(key)):
                found.append(obj)
        return found

    def vanished(self, kind: Kind, listed: Iterable[Obj], before: Mapping[Key, str]) -> list[Obj]:
        """Objects known from before a listing, and unchanged since, that it does not have."""
        keys = {key_of(obj) for obj in listed}
        gone = (self._objects[kind].get(key) for key in before if key not in keys)
        return [obj for obj in gone if obj is not None and version_of(obj) == before[key_of(obj)]]

    def _drop(self, kind: Kind, key: Key) -> None:
        obj = self._objects[kind].pop(key, None)
        if obj is None:
            return
        uid = obj["metadata"].get("uid", "")
        if kind == "runs":
            self.refusals.pop(uid, None)
            self.progress.pop(uid, None)
            self.unread.pop(uid, None)
        self._unlink(kind, key, obj)
        if kind == "pods" and _run_uid(obj) in self.progress:
            self.progress[_run_uid(obj)].pop(key[1], None)
        if kind == "pods" and _run_uid(obj) in self.unread:
            self.unread[_run_uid(obj)].discard(key[1])

    def _unlink(self, kind: Kind, key: Key, obj: Obj) -> None:
        """Take an object out of what belongs to its run."""
        run = (key[0], _run_uid(obj))
        if kind != "runs" and run in self._of_run[kind]:
            self._of_run[kind][run].discard(key)
            if not self._of_run[kind][run]:
                del self._of_run[kind][run]


def _lean(kind: Kind, obj: Obj) -> Obj:
    """Jobs and pods without what `views` never reads, which is most of them: what pods are made of, managed fields."""
    if kind == "runs":
        return obj
    lean = {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}
    spec = obj.get("spec") or {}
    if kind == "jobs":
        lean["spec"] = {k: v for k, v in spec.items() if k != "template"}
    else:
        containers = [{k: v for k, v in c.items() if k in ("name", "resources")} for c in spec.get("containers") or ()]
        lean["spec"] = {"containers": containers} | {k: v for k, v in spec.items() if k == "nodeName"}
    return lean


def key_of(obj: Obj) -> Key:
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def version_of(obj: Obj) -> str:
    return obj["metadata"].get("resourceVersion") or "0"


def _number(obj: Obj) -> int:
    return number(version_of(obj))


def number(version: str) -> int:
    """Resource versions are numbers that rise (Kubernetes states so from 1.35 on, and all stores do it)."""
    return int(version) if version.isdigit() else 0


def _run_uid(obj: Obj) -> str:
    return str((obj["metadata"].get("labels") or {}).get(names.LABEL_RUN_UID, ""))
