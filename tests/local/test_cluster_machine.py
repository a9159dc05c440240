"""Whatever is done to the cluster, in whatever order: watches, history and journal tell the same as the lists."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from srlm_local.kinds import bootstrap
from srlm_local.kinds.garbage import GarbageCollector
from srlm_local.kinds.table import new_cluster
from srlm_local.store.deletion import POLICIES
from srlm_local.store.errors import ApiError
from srlm_local.store.journal import Journal

Object = dict[str, Any]
NAMES = st.sampled_from(["a", "b", "c"])
HOLD = "example.com/hold"


class Machine(RuleBasedStateMachine):
    """ConfigMaps that own each other, with and without finalizers, and a reader of every change."""

    @initialize()
    def begin(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.cluster = new_cluster(seed=1)
        self.journal = Journal.open(self.folder, self.cluster)
        bootstrap.prepare(self.cluster)
        self.collector = GarbageCollector(self.cluster)
        self.start = self.cluster.version
        self.watcher = self.cluster.storage.watcher(self.start)
        self.seen: dict[str, Object] = {o["metadata"]["name"]: o for o in self.cluster.list("configmaps", "default")}
        self.lists: list[tuple[int, list[Object]]] = []
        self.last = self.start

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.temporary.cleanup()

    def _try(self, act: Any) -> None:
        before = self.cluster.version
        try:
            act()
        except ApiError as error:
            assert error.code in (404, 409, 422), error  # noqa: PT017 - the others are failures of the cluster
            assert self.cluster.version == before, "a refused request wrote something"

    @rule(name=NAMES, held=st.booleans(), owner=st.none() | NAMES)
    def create(self, name: str, held: bool, owner: str | None) -> None:
        meta: Object = {"name": name, "finalizers": [HOLD] if held else []}
        found = self.cluster.find("configmaps", owner, "default") if owner else None
        if found is not None:
            reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": found["metadata"]["uid"]}
            meta["ownerReferences"] = [{**reference, "blockOwnerDeletion": True}]
        self._try(lambda: self.cluster.create("configmaps", {"metadata": meta}, "default"))

    @rule(name=NAMES, value=st.sampled_from(["1", "2"]))
    def patch(self, name: str, value: str) -> None:
        self._try(lambda: self.cluster.patch("configmaps", name, {"data": {"k": value}}, "default"))

    @rule(name=NAMES, policy=st.sampled_from(sorted(POLICIES)))
    def delete(self, name: str, policy: str) -> None:
        self._try(lambda: self.cluster.delete("configmaps", name, "default", propagation=policy))

    @rule(name=NAMES)
    def let_go(self, name: str) -> None:
        self._try(lambda: self.cluster.patch("configmaps", name, {"metadata": {"finalizers": None}}, "default"))

    @rule()
    def collect(self) -> None:
        self.collector.settle()
        before = self.cluster.version
        self.collector.settle()
        assert self.cluster.version == before, "the garbage collector does not come to rest"

    @rule()
    def remember(self) -> None:
        self.lists.append((self.cluster.version, self.cluster.list("configmaps", "default")))

    @rule()
    def restart(self) -> None:
        before = {o["metadata"]["name"]: o for o in self.cluster.list("configmaps", "default")}
        self.journal.close()
        self.cluster = new_cluster(seed=2)
        self.journal = Journal.open(self.folder, self.cluster)
        self.collector = GarbageCollector(self.cluster)
        after = {o["metadata"]["name"]: o for o in self.cluster.list("configmaps", "default")}
        assert after == before
        assert self.cluster.version > self.last
        self.watcher.close()
        self.watcher = self.cluster.storage.watcher(self.cluster.version)
        self.lists.clear()

    @precondition(lambda self: hasattr(self, "watcher"))
    @invariant()
    def a_reader_of_the_changes_knows_the_state(self) -> None:
        for change in self.watcher.poll():
            assert change.version > self.last
            self.last = change.version
            if (change.resource, change.namespace) != ("configmaps", "default"):
                continue
            assert (change.type == "ADDED") == (change.name not in self.seen)
            if change.type == "DELETED":
                del self.seen[change.name]
            else:
                self.seen[change.name] = change.object
        assert [self.seen[name] for name in sorted(self.seen)] == self.cluster.list("configmaps", "default")

    @precondition(lambda self: hasattr(self, "lists"))
    @invariant()
    def the_past_does_not_change(self) -> None:
        for version, items in self.lists:
            assert self.cluster.storage.list_at("configmaps", "default", version) == items


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestMachine = Machine.TestCase
