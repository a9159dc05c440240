"""The cluster's API in process: what the HTTP server, the controllers and the pod runner all write through.

    job = cluster.get("jobs.batch", "name", "namespace")             # ApiError 404 if absent
    cluster.create("pods", {...}, "namespace")                       # defaults, admission, validation
    cluster.update("pods", pod)                                      # conflict on a stale resourceVersion
    cluster.update("pods", pod, subresource="status")
    cluster.patch("pods", "name", {"metadata": {...}}, "namespace")  # merge patch
    cluster.delete("jobs.batch", "name", "namespace", propagation="Background")

Resources are named as kubectl names them: plural, then group (`pods`, `jobs.batch`). All methods
are synchronous and atomic: nothing else runs between the read and the write of one call. Objects that come
out are copies; objects that go in are copied. Errors are `errors.ApiError`, the Status a client would get.
In-process calls are neither authenticated nor authorised, but everything else applies to them.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from srlm_local.store import errors
from srlm_local.store.clock import Clock, SystemClock, to_seconds
from srlm_local.store.deletion import DeleteOptions, check_preconditions, gone_after_update, mark
from srlm_local.store.isolation import check_version, isolated, spec_changed
from srlm_local.store.metadata import check_decoded, validate_metadata
from srlm_local.store.patching import json_patch, merge_patch
from srlm_local.store.request import Request
from srlm_local.store.resources import Registry, ResourceType
from srlm_local.store.selectors import Predicate, field_selector, label_selector
from srlm_local.store.storage import Change, Object, Objects, Storage
from srlm_local.store.values import copy
from srlm_operator.crd.schema import FieldError
from srlm_operator.jobs.strategic import PatchFailed, strategic_merge

PatchType = Literal["merge", "json", "strategic"]
Resource = str | ResourceType
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_NOT_GIVEN = ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion")


class Cluster:
    """All objects of one cluster, and the kinds that there are."""

    def __init__(
        self, storage: Storage, kinds: Iterable[ResourceType], clock: Clock | None = None, seed: int | None = None
    ) -> None:
        self.storage = storage
        self.registry = Registry(kinds)
        self.clock: Clock = clock or SystemClock()
        self.random = random.Random(seed)  # noqa: S311 - names and UIDs need not be secret
        self.log_reader: Callable[[Object, dict[str, str]], Any] | None = None
        """Set by the pod runner: (pod, query) -> text or an async iterator of bytes; serves pods/log."""
        self.webhooks: list[Callable[[ResourceType, Object, Request], None]] = []
        """Stand-ins for admission webhooks: called with every new object, they raise ApiError to refuse it."""

    # ---- reading

    def type_of(self, resource: Resource) -> ResourceType:
        return resource if isinstance(resource, ResourceType) else self.registry.named(resource)

    @property
    def version(self) -> int:
        """The newest resourceVersion: `list` and then `storage.watcher(version)`, without awaiting in between."""
        return self.storage.version

    def timestamp(self) -> str:
        """The time as it is written into objects."""
        return to_seconds(self.clock.now())

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """A copy of the object. Raises ApiError 404."""
        return copy(self._stored(self.type_of(resource), name, namespace))

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """As `get`, but None if there is no such object."""
        rt = self.type_of(resource)
        return copy(self.storage.get(rt.name, namespace if rt.namespaced else "", name))

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Objects:
        """Copies of all objects that match, ordered by namespace and name; of all namespaces if None."""
        rt = self.type_of(resource)
        match = self.predicate(rt, labels, fields)
        return [copy(obj) for obj in self.storage.list(rt.name, namespace or None) if match(obj)]

    def predicate(self, rt: ResourceType, labels: str = "", fields: str = "") -> Predicate:
        """Whether an object matches a label selector and a field selector."""
        by_labels, by_fields = label_selector(labels), field_selector(fields, rt.name)
        return lambda obj: by_labels(obj) and by_fields(obj)

    # ---- writing

    def create(self, resource: Resource, obj: Object, namespace: str = "", *, request: Request | None = None) -> Object:
        """Creates and returns the stored object. Raises ApiError 400, 403, 404 (namespace), 409, 422."""
        rt, request = self.type_of(resource), request or Request()
        obj = self._decoded(rt, obj, namespace or (obj.get("metadata") or {}).get("namespace", ""), request)
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        self._set_system_fields(rt, meta)
        if rt.status and not rt.rules.keeps_status:
            obj.pop("status", None)
        rt.rules.default(obj)
        rt.rules.prepare(self, obj, None)
        if rt.namespaced:
            self._check_namespace(rt, meta)
        rt.rules.admit(self, obj)
        found = validate_metadata(obj, rt)
        self._refuse(rt, obj, found + rt.rules.validate(obj, None, found))
        for webhook in self.webhooks:
            webhook(rt, obj, request)
        existing = self.storage.get(rt.name, meta.get("namespace", ""), meta["name"])
        if existing is not None:
            prefix = "object is being deleted: " if "deletionTimestamp" in existing["metadata"] else ""
            raise errors.already_exists(rt.plural, rt.group, meta["name"], prefix)
        rt.rules.complete(obj)
        return self.write(rt, obj, request)

    def update(
        self,
        resource: Resource,
        obj: Object,
        *,
        name: str | None = None,
        namespace: str | None = None,
        subresource: str = "",
        request: Request | None = None,
    ) -> Object:
        """Replaces the object, or only its status. A resourceVersion in `obj` must be the current one (409)."""
        rt, request = self.type_of(resource), request or Request()
        meta = obj.get("metadata") or {}
        name = name if name is not None else meta.get("name", "")
        namespace = namespace if namespace is not None else meta.get("namespace", "")
        obj = self._decoded(rt, obj, namespace, request, name)
        old = self.storage.get(rt.name, namespace if rt.namespaced else "", name)
        if old is None:
            version = obj["metadata"].get("resourceVersion")
            if rt.create_on_update and not subresource and not version:
                return self.create(rt, obj, namespace, request=request)
            if version and rt.create_on_update:
                raise errors.conflict(rt.plural, rt.group, name)
            raise errors.not_found(rt.plural, rt.group, name)
        return self._replace(rt, old, obj, subresource, request, patched=False)

    def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        kind: PatchType = "merge",
        subresource: str = "",
        request: Request | None = None,
    ) -> Object:
        """Changes the object by a patch."""
        rt, request = self.type_of(resource), request or Request()
        namespace = namespace if rt.namespaced else ""
        old = self._stored(rt, name, namespace)
        apply = {"json": json_patch, "merge": merge_patch, "strategic": strategic_merge}[kind]
        try:
            new = apply(old, patch)
        except PatchFailed as error:
            message = "the server rejected our request due to an error in our request"
            raise errors.ApiError(422, "Invalid", message, {}) from error
        return self._replace(
            rt, old, self._decoded(rt, new, namespace, request, name), subresource, request, patched=True
        )

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        options: DeleteOptions | None = None,
        *,
        request: Request | None = None,
        **given: Any,
    ) -> tuple[Object, bool]:
        """Begins or completes a deletion: (the object, True if it is gone).

        Either `options` or their fields by name. propagation: Background, Foreground, Orphan or None for the
        resource's default (for Jobs: Orphan, as in the API); uid and version are preconditions (409);
        grace_period in seconds matters for pods.
        """
        rt, request = self.type_of(resource), request or Request()
        options = options or DeleteOptions(**given)
        options.check()
        old = self._stored(rt, name, namespace)
        check_preconditions(rt, old, options)
        obj = copy(old)
        stays = rt.rules.begin_deletion(self, obj) or mark(rt, obj, options, self.clock.now())
        if obj != old:
            obj = self.write(rt, obj, request)
        return (obj, False) if stays else (obj if request.dry_run else self.erase(rt, obj), True)

    def bind(self, name: str, namespace: str, node: str) -> Object:
        """Assigns a pod to a node, as the scheduler does. Raises 409 if it has one, or is being deleted."""
        rt = self.type_of("pods")
        pod = self.get(rt, name, namespace)
        if pod["spec"].get("nodeName") or "deletionTimestamp" in pod["metadata"]:
            raise errors.conflict("pods/binding", "", name, "the pod has a node already, or is being deleted")
        pod["spec"]["nodeName"] = node
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": self.timestamp()}
        others = [c for c in pod["status"].get("conditions") or [] if c["type"] != "PodScheduled"]
        pod["status"]["conditions"] = [*others, {**scheduled, "lastProbeTime": None}]
        return self.write(rt, pod)

    def write(self, rt: ResourceType, obj: Object, request: Request | None = None) -> Object:
        """Stores as it is, unless it is a dry run; returns a copy. For kinds and controllers: nothing is checked."""
        if request is not None and request.dry_run:
            return obj
        meta = obj["metadata"]
        old = self.storage.get(rt.name, meta.get("namespace", ""), meta["name"])
        if old == obj:
            return copy(old)
        stored = self.storage.put(rt.name, meta.get("namespace", ""), meta["name"], copy(obj))
        rt.rules.after(self, stored, old)
        return copy(stored)

    def erase(self, rt: ResourceType, obj: Object) -> Object:
        """Removes from the store; watchers see `obj` as it is given here. Returns it with the version of that."""
        meta = obj["metadata"]
        old = self.storage.get(rt.name, meta.get("namespace", ""), meta["name"])
        shown = self.storage.remove(rt.name, meta.get("namespace", ""), meta["name"], copy(obj))
        rt.rules.after(self, None, old)
        return copy(shown)

    # ---- what writes have in common

    def _stored(self, rt: ResourceType, name: str, namespace: str) -> Object:
        found = self.storage.get(rt.name, namespace if rt.namespaced else "", name)
        if found is None:
            raise errors.not_found(rt.plural, rt.group, name)
        return found

    def _decoded(self, rt: ResourceType, obj: Any, namespace: str, request: Request, name: str = "") -> Object:
        """A copy of the object as this kind knows it, in its namespace and, on updates, under its name."""
        decoded: Object = copy(obj)
        unknown = check_decoded(rt, decoded)
        meta: Object = decoded["metadata"]
        if not rt.namespaced:
            meta.pop("namespace", None)
        elif meta.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if name and meta.get("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
            )
        if problem := request.unknown_fields(unknown) or rt.rules.decode(decoded, request):
            raise errors.bad_request(f'{rt.kind} in version "{rt.version}" cannot be handled as a {rt.kind}: {problem}')
        return decoded

    def _set_system_fields(self, rt: ResourceType, meta: Object) -> None:
        for given in _NOT_GIVEN:
            meta.pop(given, None)
        meta["uid"] = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        meta["creationTimestamp"] = self.timestamp()
        if rt.generation:
            meta["generation"] = 1
        if not meta.get("name") and (stem := meta.get("generateName")):
            # At most 63 characters, as the API server does it.
            meta["name"] = stem[:58] + "".join(self.random.choices(_NAME_LETTERS, k=5))

    def _check_namespace(self, rt: ResourceType, meta: Object) -> None:
        name = meta["namespace"]
        namespace = self.storage.get("namespaces", "", name)
        if namespace is None:
            raise errors.not_found("namespaces", "", name)
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            message = f"namespace {name} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
            raise errors.forbidden(rt.plural, rt.group, meta.get("name", ""), why, [cause])

    def _replace(
        self, rt: ResourceType, old: Object, new: Object, subresource: str, request: Request, *, patched: bool
    ) -> Object:
        check_version(rt, old, new, patched)
        new = isolated(rt, old, new, subresource)
        rt.rules.default(new)
        if not subresource:
            rt.rules.prepare(self, new, old)
            if rt.generation and spec_changed(rt, old, new):
                new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        found = validate_metadata(new, rt, old)
        found += rt.rules.validate_status(new, old) if subresource else rt.rules.validate(new, old, found)
        self._refuse(rt, new, found)
        if gone_after_update(new, old):
            if not request.dry_run:
                self.erase(rt, old)  # watchers see the object as it was before its last finalizer went
            return new
        return self.write(rt, new, request)

    def _refuse(self, rt: ResourceType, obj: Object, found: Sequence[FieldError]) -> None:
        if found:
            raise errors.invalid(obj.get("kind", rt.kind), rt.group, obj["metadata"].get("name", ""), found)


def seen_as(change: Change, rt: ResourceType, namespace: str | None, match: Predicate) -> tuple[str, Object] | None:
    """What a watch with this namespace and selector sees of a change: (type, object) or nothing."""
    if change.resource != rt.name or (namespace and change.namespace != namespace):
        return None
    before = change.previous is not None and match(change.previous)
    if change.type == "DELETED":
        return ("DELETED", change.object) if before else None
    if match(change.object):
        return ("MODIFIED" if before else "ADDED"), change.object
    if before and change.previous is not None:
        version = change.object["metadata"]["resourceVersion"]
        last = {**change.previous, "metadata": {**change.previous["metadata"], "resourceVersion": version}}
        return "DELETED", last
    return None
