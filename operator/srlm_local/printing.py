"""Tables: what `kubectl get` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srlm_local import jsonpath
from srlm_local.ages import age
from srlm_local.builtin_schemas import fields
from srlm_local.printing_columns import COLUMNS, Column, row_conditions
from srlm_local.respond import partial

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster
    from srlm_local.resources import ResourceType

Object = dict[str, Any]


def table(cluster: Cluster, rt: ResourceType, items: list[Object], version: str, include: str) -> Object:
    """A Table without its metadata. include: what comes with each row, None, Metadata or Object."""
    columns = _custom_columns(rt) if rt.custom else COLUMNS.get(rt.storage, COLUMNS[""])
    definitions = [
        {
            "name": c.name,
            "type": c.type,
            "format": "name" if c.name == "Name" else "",
            "description": _described(c, rt),
            "priority": c.priority,
        }
        for c in columns
    ]
    rows = []
    for item in items:
        row: Object = {"cells": [column.cell(item, cluster.clock.now()) for column in columns]}
        if conditions := row_conditions(rt, item):
            row["conditions"] = conditions
        row["object"] = {"None": None, "Object": item}.get(include, partial(item, version))
        rows.append(row)
    return {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "columnDefinitions": definitions, "rows": rows}


def _described(column: Column, rt: ResourceType) -> str:
    if column.documented:
        model, _, name = column.documented.partition(".")
        # Fields that are objects of their own have no description in the client's models.
        return fields(model)[name][1] or column.description
    return column.description


def _custom_columns(rt: ResourceType) -> list[Column]:
    name = Column("Name", lambda obj, now: obj["metadata"]["name"], documented="V1ObjectMeta.name")
    given = (rt.crd or {}).get("additionalPrinterColumns")
    if given is None:
        given = [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    return [name, *(_custom_column(column) for column in given)]


def _custom_column(spec: Object) -> Column:
    path, kind = spec["jsonPath"], spec["type"]

    def cell(obj: Object, now: Any) -> Any:
        found = jsonpath.find(path, obj)
        if not found or found[0] is None:
            return None
        value = found[0]
        if kind == "date":
            return age(value, now)
        if kind == "string":
            return ",".join(str(v) for v in value) if isinstance(value, list) else _text(value)
        return value

    described = spec.get("description") or f"Custom resource definition column (in JSONPath format): {path}"
    return Column(spec["name"], cell, type=kind, description=described, priority=spec.get("priority", 0))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
