"""The cluster's API in process: what the HTTP server, the controllers and the pod runner all write through.

    cluster = Cluster(clock=SystemClock())
    job = cluster.get("jobs.batch", "name", "namespace")             # ApiError 404 if absent
    cluster.create("pods", {...}, "namespace")                       # defaults, admission, validation
    cluster.update("pods", pod)                                      # conflict on a stale resourceVersion
    cluster.update("pods", pod, subresource="status")
    cluster.patch("pods", "name", {"metadata": {...}}, "namespace")  # merge patch
    cluster.delete("jobs.batch", "name", "namespace", propagation="Background")
    async for kind, obj in cluster.watch("pods", since=version): ... # ADDED, MODIFIED, DELETED; none lost

Resources are named as kubectl names them: plural, then group (`pods`, `jobs.batch`). All methods but `watch`
are synchronous and atomic: nothing else runs between the read and the write of one call. Objects that come
out are copies; objects that go in are copied. Errors are `errors.ApiError`, the Status a client would get.
In-process calls are neither authenticated nor authorised, but everything else applies to them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal

from srlm_contract.schema import FieldError
from srlm_local import errors, pod_security, quota
from srlm_local.clock import to_seconds
from srlm_local.conversion import inward, outward
from srlm_local.deletion import DeleteOptions, delete, gone_after_update
from srlm_local.isolation import check_version, isolated, same, spec_changed
from srlm_local.jsontools import copy, go_json
from srlm_local.managed_fields import apply_configuration, track
from srlm_local.metadata import check_decoded, validate_metadata, warn_about_finalizers
from srlm_local.patching import PatchFailed, json_patch, merge_patch, strategic_merge
from srlm_local.reader import Reader
from srlm_local.request import Request
from srlm_local.resources import ResourceType
from srlm_local.storage import Object

PatchType = Literal["merge", "json", "strategic", "apply"]
MAX_OBJECT = 1536 * 1024
"""The largest object that etcd takes."""
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Cluster(Reader):
    """See the module's docstring."""

    def create(
        self, resource: str | ResourceType, obj: Object, namespace: str = "", *, request: Request | None = None
    ) -> Object:
        """Creates and returns the stored object. Raises ApiError 400, 403, 404 (namespace), 409, 422."""
        rt, request = self.type_of(resource), request or Request()
        strategy = self.strategy(rt)
        obj = self._decoded(rt, obj, namespace or (obj.get("metadata") or {}).get("namespace", ""), request)
        meta = obj["metadata"]
        if meta.get("resourceVersion"):
            raise errors.ApiError(500, "", "resourceVersion should not be set on objects to be created")
        strategy.decode(self, rt, obj, request)
        obj = inward(rt, obj)
        meta = obj["metadata"]
        self._system_fields(rt, obj)
        if rt.status and rt.name not in KEEPS_STATUS_ON_CREATE:
            obj.pop("status", None)
        existing = self.storage.get(rt.storage, meta.get("namespace", ""), meta["name"]) if meta.get("name") else None
        strategy.default(obj)
        strategy.prepare(self, obj, None, request)
        if rt.namespaced:
            self._check_namespace(rt, obj)
        strategy.admit(self, obj, None, request)
        found = validate_metadata(obj, rt, strategy)
        self._refuse(rt, obj, found + strategy.problems(obj, None, found))
        pod_security.check(self, rt, obj, None, request)
        for webhook in self.webhooks:
            webhook(rt, obj, request)
        if existing is None:
            quota.admit(self, rt, obj, request)
        else:
            deleted = "deletionTimestamp" in existing["metadata"]
            prefix = "object is being deleted: " if deleted else ""
            raise errors.already_exists(rt.plural, rt.group, meta["name"], prefix)
        strategy.complete(self, obj, None, request)
        warn_about_finalizers(obj, request)
        track(self, rt, obj, None, request)
        return self.write(rt, obj, request)

    def update(
        self,
        resource: str | ResourceType,
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
        obj = self._decoded(rt, obj, namespace, request)
        if obj["metadata"].get("name", name) != name:
            wrong = obj["metadata"]["name"]
            raise errors.bad_request(f"the name of the object ({wrong}) does not match the name on the URL ({name})")
        self.strategy(rt).decode(self, rt, obj, request)
        obj = inward(rt, obj)
        old = self.storage.get(rt.storage, namespace if rt.namespaced else "", name)
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
        resource: str | ResourceType,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        kind: PatchType = "merge",
        subresource: str = "",
        request: Request | None = None,
    ) -> Object:
        """Changes the object by a patch; kind "apply" is server-side apply and may create it."""
        rt, request = self.type_of(resource), request or Request()
        namespace = namespace if rt.namespaced else ""
        old = self.storage.get(rt.storage, namespace, name)
        if kind == "apply":
            return self._apply(rt, old, name, namespace, patch, subresource, request)
        if old is None:
            raise errors.not_found(rt.plural, rt.group, name)
        shown = outward(rt, old)
        try:
            if kind == "json":
                new = json_patch(shown, patch)
            elif kind == "strategic" and not rt.custom:
                new = strategic_merge(shown, patch)
            else:
                new = merge_patch(shown, patch)
        except PatchFailed as error:
            message = "the server rejected our request due to an error in our request"
            raise errors.ApiError(422, "Invalid", message, {}) from error
        new = self._decoded(rt, copy(new), namespace, request, patched=old)
        if new["metadata"].get("name") != name:
            wrong = new["metadata"].get("name", "")
            raise errors.bad_request(f"the name of the object ({wrong}) does not match the name on the URL ({name})")
        self.strategy(rt).decode(self, rt, new, request, old)
        return self._replace(rt, old, inward(rt, new), subresource, request, patched=True)

    def _apply(
        self,
        rt: ResourceType,
        old: Object | None,
        name: str,
        namespace: str,
        config: Object,
        subresource: str,
        request: Request,
    ) -> Object:
        request.apply = True
        given = config.get("metadata") if isinstance(config, dict) else None
        request.namespace_given = (given or {}).get("namespace", "")
        config = self._decoded(rt, config, namespace, request)
        if config["metadata"].setdefault("name", name) != name:
            wrong = config["metadata"]["name"]
            raise errors.bad_request(f"the name of the object ({wrong}) does not match the name on the URL ({name})")
        if old is None:
            if subresource:
                raise errors.not_found(rt.plural, rt.group, name)
            config["metadata"].pop("resourceVersion", None)
            new = apply_configuration(self, rt, None, config, "", request)
            return self.create(rt, new, namespace, request=request)
        check_version(rt, old, config, patched=True)
        new = apply_configuration(self, rt, old, config, subresource, request)
        return self._replace(rt, old, new, subresource, request, patched=True)

    def delete(
        self,
        resource: str | ResourceType,
        name: str,
        namespace: str = "",
        *,
        propagation: str | None = None,
        grace_period: int | None = None,
        uid: str | None = None,
        version: str | None = None,
        options: DeleteOptions | None = None,
        request: Request | None = None,
    ) -> tuple[Object, bool]:
        """Begins or completes a deletion: (the object, True if it is gone).

        propagation: Background, Foreground, Orphan or None for the resource's default (for Jobs: Orphan, as in
        the API); uid and version are preconditions (409); grace_period in seconds matters for pods.
        """
        rt, request = self.type_of(resource), request or Request()
        options = options or DeleteOptions(grace_period, propagation, None, uid, version)
        options.check()
        old = self._stored(rt, namespace, name)
        left, gone = delete(self, rt, old, options, request)
        return copy(left), gone

    # ---- what writes have in common

    def _decoded(
        self, rt: ResourceType, obj: Any, namespace: str, request: Request, patched: Object | None = None
    ) -> Object:
        decoded: Object = copy(obj)
        check_decoded(rt, decoded, request, patched)
        meta: Object = decoded["metadata"]
        if rt.namespaced:
            if meta.setdefault("namespace", namespace) != namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
        else:
            meta.pop("namespace", None)
        return decoded

    def _system_fields(self, rt: ResourceType, obj: Object) -> None:
        meta = obj["metadata"]
        for given in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion"):
            meta.pop(given, None)
        meta["uid"] = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        meta["creationTimestamp"] = to_seconds(self.clock.now())
        if rt.generation:
            meta["generation"] = 1
        if not meta.get("name") and (stem := meta.get("generateName")):
            meta["name"] = self.generate_name(stem)

    def bind(self, name: str, namespace: str, node: str) -> Object:
        """Assigns a pod to a node, as the scheduler does. Raises ApiError 409 if it has one."""
        from srlm_local.pods import bind

        return bind(self, name, namespace, node)

    def generate_name(self, stem: str) -> str:
        """generateName as the API server does it: cut to 58 characters, five random ones added."""
        return stem[:58] + "".join(self.random.choices(_NAME_LETTERS, k=5))

    def _check_namespace(self, rt: ResourceType, obj: Object) -> None:
        name = obj["metadata"]["namespace"]
        namespace = self.storage.get("namespaces", "", name)
        if namespace is None:
            raise errors.not_found("namespaces", "", name)
        if "deletionTimestamp" in namespace["metadata"]:
            why = f"unable to create new content in namespace {name} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {name} is being terminated",
                "field": "metadata.namespace",
            }
            raise errors.forbidden(rt.plural, rt.group, obj["metadata"].get("name", ""), why, [cause])

    def _replace(
        self, rt: ResourceType, old: Object, new: Object, subresource: str, request: Request, *, patched: bool
    ) -> Object:
        strategy = self.strategy(rt)
        check_version(rt, old, new, patched)
        new = isolated(rt, old, new, subresource)
        strategy.default(new)
        if not subresource:
            strategy.prepare(self, new, old, request)
        if rt.generation and not subresource and spec_changed(rt, old, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        strategy.admit(self, new, old, request)
        found = validate_metadata(new, rt, strategy, old)
        found += strategy.validate_status(new, old) if subresource else strategy.problems(new, old, found)
        self._refuse(rt, new, found)
        if not subresource:
            pod_security.check(self, rt, new, old, request)
        strategy.complete(self, new, old, request)
        if new["metadata"].get("finalizers") != old["metadata"].get("finalizers"):
            warn_about_finalizers(new, request)
        if gone_after_update(new, old):
            if not request.dry_run:
                self.erase(rt, old)  # watchers see the object as it was before its last finalizer went
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            return new
        track(self, rt, new, old, request, subresource)
        if same(new, old):
            return copy(old)
        return self.write(rt, new, request)

    def _refuse(self, rt: ResourceType, obj: Object, found: Sequence[FieldError]) -> None:
        if found:
            kind = obj.get("kind", rt.kind) if rt.custom else rt.kind
            group = "" if rt.stored_as else rt.group
            raise errors.invalid(kind, group, obj["metadata"].get("name", ""), found)

    def write(self, rt: ResourceType, obj: Object, request: Request) -> Object:
        """Stores, unless it is a dry run; returns a copy."""
        if request.dry_run:
            return obj
        meta = obj["metadata"]
        old = self.storage.get(rt.storage, meta.get("namespace", ""), meta["name"])
        if old == obj:
            return copy(old)
        if request.body_size > MAX_OBJECT // 2 and len(go_json(obj).encode()) > MAX_OBJECT:
            raise errors.ApiError(500, "", "etcdserver: request is too large")
        stored = self.storage.put(rt.storage, meta.get("namespace", ""), meta["name"], copy(obj))
        self.strategy(rt).after(self, stored, old)
        return copy(stored)

    def erase(self, rt: ResourceType, obj: Object) -> Object:
        """Removes from the store; watchers see `obj` as it is given here. Returns it with the version of that."""
        meta = obj["metadata"]
        old = self.storage.get(rt.storage, meta.get("namespace", ""), meta["name"])
        shown = self.storage.remove(rt.storage, meta.get("namespace", ""), meta["name"], copy(obj))
        self.strategy(rt).after(self, None, old)
        return copy(shown)


KEEPS_STATUS_ON_CREATE = {"namespaces", "nodes", "pods", "services", "persistentvolumeclaims", "resourcequotas"}
"""Kinds whose `prepare` decides about the status of a new object."""
