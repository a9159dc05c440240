"""Kinds that need only a few lines each: Secrets, ConfigMaps, Leases, Services, roles and bindings."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local.pod_validation import invalid
from srlm_local.request import Request
from srlm_local.strategy import Strategy

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
MAX_DATA = 1024 * 1024
_RBAC = "rbac.authorization.k8s.io"


def _too_long(path: str) -> FieldError:
    return FieldError(path, f"Too long: may not be more than {MAX_DATA} bytes", "FieldValueTooLong")


def _frozen(obj: Object, old: Object | None, keys: tuple[str, ...]) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    found = [
        FieldError(key, "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")
        for key in keys
        if obj.get(key) != old.get(key)
    ]
    if not obj.get("immutable"):
        why = "Forbidden: field is immutable when `immutable` is set"
        found.insert(0, FieldError("immutable", why, "FieldValueForbidden"))
    return found


class ConfigMapStrategy(Strategy):
    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        size = sum(len(v.encode()) for v in (obj.get("data") or {}).values())
        size += sum(len(v) * 3 // 4 for v in (obj.get("binaryData") or {}).values())
        found = [_too_long("[]")] if size > MAX_DATA else []
        return found + _frozen(obj, old, ("data", "binaryData"))


class SecretStrategy(Strategy):
    def default(self, obj: Object) -> None:
        obj.setdefault("type", "Opaque")
        plain = obj.pop("stringData", None)
        if plain:
            encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
            obj["data"] = {**(obj.get("data") or {}), **encoded}

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        found = _frozen(obj, old, ("data",))
        if old is not None and obj["type"] != old["type"]:
            found.append(invalid("type", obj["type"], "field is immutable"))
        if sum(len(v) * 3 // 4 for v in (obj.get("data") or {}).values()) > MAX_DATA:
            found.append(_too_long("data"))
        return found


class LeaseStrategy(Strategy):
    def default(self, obj: Object) -> None:
        obj.setdefault("spec", {})

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        spec, found = obj["spec"], []
        duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if duration is not None and duration <= 0:
            found.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            found.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        return found


class ServiceStrategy(Strategy):
    name_rule = "dns_1035"
    returns_deleted = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        if spec["type"] != "ExternalName":
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")
            spec.setdefault("internalTrafficPolicy", "Cluster")
        for port in spec.get("ports") or []:
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))

    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        spec = obj["spec"]
        if old is not None:
            for key in ("clusterIP", "clusterIPs"):
                if key in old["spec"]:
                    spec.setdefault(key, old["spec"][key])
            return
        obj["status"] = {"loadBalancer": {}}
        if spec["type"] != "ExternalName" and not spec.get("clusterIP"):
            spec["clusterIP"] = f"10.96.{cluster.random.randrange(256)}.{cluster.random.randrange(1, 255)}"
        if spec.get("clusterIP"):
            spec.setdefault("clusterIPs", [spec["clusterIP"]])

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        spec, found = obj["spec"], []
        if old is not None and spec.get("clusterIP") != old["spec"].get("clusterIP"):
            found.append(invalid("spec.clusterIP", spec.get("clusterIP"), "field is immutable"))
        if not spec.get("ports") and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
            found.append(FieldError("spec.ports", "Required value", "FieldValueRequired"))
        return found


class RoleStrategy(Strategy):
    name_rule = "path_segment"

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        return [
            FieldError(
                f"rules[{i}].verbs", "Required value: verbs must contain at least one value", "FieldValueRequired"
            )
            for i, rule in enumerate(obj.get("rules") or [])
            if not rule.get("verbs")
        ]


class BindingStrategy(Strategy):
    name_rule = "path_segment"

    def default(self, obj: Object) -> None:
        reference = obj.setdefault("roleRef", {})
        if not reference.get("apiGroup"):
            reference["apiGroup"] = _RBAC
        for subject in obj.get("subjects") or []:
            if subject.get("kind") in ("User", "Group"):
                subject.setdefault("apiGroup", _RBAC)

    def validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        found = []
        if old is not None and obj["roleRef"] != old["roleRef"]:
            found.append(
                FieldError(
                    "roleRef",
                    f"Invalid value: {json.dumps(obj['roleRef'], separators=(',', ':'))}: cannot change roleRef",
                    "FieldValueInvalid",
                )
            )
        for key in ("kind", "name"):
            if not obj["roleRef"].get(key):
                found.append(FieldError(f"roleRef.{key}", "Required value", "FieldValueRequired"))
        return found


class ReturnedWhenDeleted(Strategy):
    """Kinds whose DELETE answers with the object."""

    returns_deleted = True


class QuotaStrategy(ReturnedWhenDeleted):
    def prepare(self, cluster: Cluster, obj: Object, old: Object | None, request: Request) -> None:
        if old is None:
            obj["status"] = {}


class PriorityClassStrategy(Strategy):
    def default(self, obj: Object) -> None:
        obj.setdefault("preemptionPolicy", "PreemptLowerPriority")
        obj.setdefault("value", 0)
