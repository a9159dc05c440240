"""Decoding of built-in kinds: unknown fields are dropped, and wrong types refused, as Go's decoder does."""

from __future__ import annotations

import re
from typing import Any

from srlm_contract.schema import FieldError
from srlm_local import errors
from srlm_local.builtin_schemas import MICRO_TIMES, QUANTITY_MAPS, fields, model_name
from srlm_local.clock import parse_time
from srlm_local.jsontools import go_json, go_quote
from srlm_local.quantity import parse_quantity
from srlm_local.resources import ResourceType

Object = dict[str, Any]
_GO_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_PYTHON = {"str": str, "int": int, "bool": bool, "float": (int, float)}
_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)")


class Undecodable(ValueError):
    """The value has the wrong type; the message is Go's."""


def decode(rt: ResourceType, obj: Object, patched: Object | None = None) -> list[str]:
    """Drops unknown fields and nulls in place; returns paths of the former. Raises ApiError 400, 422 for patches."""
    unknown: list[str] = []
    try:
        for key in list(obj):
            known = fields(model_name(rt))
            if key in ("apiVersion", "kind", "metadata"):
                continue
            if key not in known:
                unknown.append(key)
                del obj[key]
                continue
            _value(known[key][0], obj, key, key, model_name(rt), unknown)
    except Undecodable as error:
        raise undecodable(rt, str(error), obj, patched) from None
    return unknown


def undecodable(rt: ResourceType, why: str, obj: Object, patched: Object | None) -> errors.ApiError:
    if patched is not None:
        message = f"Invalid value: {go_quote(go_json(obj))}: {why}"
        return errors.invalid("", "", "", [FieldError("patch", message, "FieldValueInvalid")])
    return errors.bad_request(f'{rt.kind} in version "{rt.version}" cannot be handled as a {rt.kind}: {why}')


def _value(kind: str, parent: Any, key: Any, path: str, struct: str, unknown: list[str]) -> None:
    value = parent[key]
    if value is None:
        if isinstance(parent, dict):
            del parent[key]
        return
    if match := re.fullmatch(r"List\[(.*)\]", kind):
        if not isinstance(value, list):
            raise _mismatch(value, struct, path, f"[]{_go_type(match[1])}")
        for index in range(len(value)):
            _value(match[1], value, index, f"{path}[{index}]", struct, unknown)
    elif match := re.fullmatch(r"Dict\[str, (.*)\]", kind):
        if not isinstance(value, dict):
            raise _mismatch(value, struct, path, f"map[string]{_go_type(match[1])}")
        for name in list(value):
            if key in QUANTITY_MAPS and isinstance(value[name], int | float) and not isinstance(value[name], bool):
                value[name] = str(value[name])
            if key in QUANTITY_MAPS and isinstance(value[name], str) and parse_quantity(value[name]) is None:
                raise Undecodable(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                )
            _value(match[1], value, name, f"{path}.{name}", struct, unknown)
    elif kind == "datetime":
        if not isinstance(value, str):
            raise _mismatch(value, struct, path, "string")
        _time(value, str(key))
    elif kind in _PYTHON:
        if not isinstance(value, _PYTHON[kind]) or (isinstance(value, bool) and kind != "bool"):  # type: ignore[arg-type]
            raise _mismatch(value, struct, path, {"int": "int32", "float": "float64", "str": "string"}.get(kind, kind))
    elif kind not in ("object", "bytes"):
        if not isinstance(value, dict):
            raise _mismatch(value, struct, path, f"v1.{_short(kind)}")
        known = fields(kind)
        for name in list(value):
            at = f"{path}.{name}"
            if name not in known:
                unknown.append(at)
                del value[name]
            else:
                _value(known[name][0], value, name, at, kind, unknown)


def _short(model: str) -> str:
    return re.sub(r"^(Core|Events)?V1", "", model)


def _go_type(kind: str) -> str:
    return {"str": "string", "int": "int32"}.get(kind, _short(kind))


def _mismatch(value: Any, struct: str, path: str, wanted: str) -> Undecodable:
    have = _GO_KINDS.get(type(value), "null")
    return Undecodable(f"json: cannot unmarshal {have} into Go struct field {_short(struct)}.{path} of type {wanted}")


def _time(text: str, key: str) -> None:
    layout = "2006-01-02T15:04:05.000000Z07:00" if key in MICRO_TIMES else "2006-01-02T15:04:05Z07:00"
    try:
        parse_time(text)
    except ValueError:
        raise Undecodable(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"') from None
    if key in MICRO_TIMES and not _MICRO.fullmatch(text):
        rest = text[19:]
        raise Undecodable(f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as ".000000"')
