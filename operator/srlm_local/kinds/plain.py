"""Kinds that need only a few lines each: Secrets, ConfigMaps, Leases, Services, Events, roles and bindings."""

from __future__ import annotations

import base64
import re
from typing import Any

from srlm_local.store import names
from srlm_local.store.errors import too_long, wrong
from srlm_local.store.request import Request
from srlm_local.store.resources import Rules, View
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]
MAX_DATA = 1024 * 1024
_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)")


class ReturnedRules(Rules):
    """Kinds whose DELETE answers with the object."""

    returns_deleted = True

    def __init__(self, *, keeps_status: bool = False) -> None:
        self.keeps_status = keeps_status


class DataRules(Rules):
    """ConfigMaps and Secrets: limited in size."""

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        size = sum(len(v.encode()) for key in ("data", "binaryData") for v in (obj.get(key) or {}).values())
        return [too_long("[]", MAX_DATA)] if size > MAX_DATA else []


class SecretRules(DataRules):
    def default(self, obj: Object) -> None:
        obj.setdefault("type", "Opaque")
        if plain := obj.pop("stringData", None):
            encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
            obj["data"] = {**(obj.get("data") or {}), **encoded}


class LeaseRules(Rules):
    def decode(self, obj: Object, request: Request) -> str:
        """Times of a Lease are refused without fractions of a second."""
        spec = obj.get("spec") or {}
        for key in ("acquireTime", "renewTime"):
            if spec.get(key) is None:
                spec.pop(key, None)
            elif not _MICRO.fullmatch(str(spec[key])):
                return f'parsing time "{spec[key]}" as "2006-01-02T15:04:05.000000Z07:00"'
        return ""

    def default(self, obj: Object) -> None:
        obj.setdefault("spec", {})


class ServiceRules(Rules):
    returns_deleted = True
    keeps_status = True
    valid_name = staticmethod(names.dns_1035)

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports") or []:
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))

    def prepare(self, view: View, obj: Object, old: Object | None) -> None:
        if old is None:
            obj["status"] = {"loadBalancer": {}}


class EventRules(Rules):
    def default(self, obj: Object) -> None:
        obj.setdefault("source", {})
        for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
            obj.setdefault(key, None)
        for key in ("reportingComponent", "reportingInstance"):
            obj.setdefault(key, "")

    def validate(self, obj: Object, old: Object | None, before: list[FieldError]) -> list[FieldError]:
        mine, about = obj["metadata"]["namespace"], (obj.get("involvedObject") or {}).get("namespace") or "default"
        found = [] if mine == about else [wrong("involvedObject.namespace", about, "does not match event.namespace")]
        return found if old is None else []


class AccessRules(Rules):
    """Roles and bindings, whose names may have colons."""

    valid_name = staticmethod(names.path_segment)
