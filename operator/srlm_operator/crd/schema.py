"""Structural schemas of CustomResourceDefinitions, evaluated as a Kubernetes API server does.

    unknown = prune(schema, obj)                        # in place; the paths of fields the schema does not know
    apply_defaults(schema, obj)                         # in place
    errors = structural_problems(schema, obj, old)      # OpenAPI rules and list types; `objects` adds the CEL rules

`schema` is spec.versions[i].schema.openAPIV3Schema; `obj` is the whole object. The API server of the
one-machine cluster and `srlm validate` share this file, so both say what a real cluster would. Messages and
reasons are those of Kubernetes 1.36.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Schema = dict[str, Any]
Value = Any
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
EMBEDDED = "x-kubernetes-embedded-resource"
_ALWAYS_KNOWN = ("apiVersion", "kind", "metadata")


@dataclass(frozen=True)
class FieldError:
    """One problem. path: `spec.steps[0].name`; message: "Invalid value: 11: ..."; reason: FieldValueInvalid, ..."""

    path: str
    message: str
    reason: str


BLOCKING = {
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
    "FieldValueNotSupported",
}
"""Errors that keep the CEL rules from being evaluated."""
NOT_CHECKED = FieldError(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation",
    "FieldValueInvalid",
)


# ---- pruning and defaults


def prune(schema: Schema, obj: Value) -> list[str]:
    """Removes what the schema does not know, in place; returns the paths, as `spec.colour`."""
    found: list[str] = []
    _prune(schema, obj, "", found, resource=True)
    return found


def _prune(schema: Schema, value: Value, path: str, found: list[str], *, resource: bool = False) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        for index, item in enumerate(value):
            if isinstance(items, dict):
                _prune(items, item, f"{path}[{index}]", found)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    resource = resource or bool(schema.get(EMBEDDED))
    for key in list(value):
        at = f"{path}.{key}" if path else key
        if resource and key in _ALWAYS_KNOWN:
            continue
        if key in properties:
            _prune(properties[key], value[key], at, found)
        elif isinstance(extra, dict):
            _prune(extra, value[key], at, found)
        elif extra is not True and not schema.get(PRESERVE):
            found.append(at)
            del value[key]


def apply_defaults(schema: Schema, obj: Value) -> None:
    """Fills in defaults at every depth, in place; drops nulls where null is not allowed."""
    if isinstance(obj, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for item in obj:
                apply_defaults(items, item)
        return
    if not isinstance(obj, dict):
        return
    properties = schema.get("properties") or {}
    for key, known in properties.items():
        if key in obj and obj[key] is None and not known.get("nullable"):
            del obj[key]
        if key not in obj and "default" in known:
            obj[key] = json.loads(json.dumps(known["default"]))
        if key in obj:
            apply_defaults(known, obj[key])
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for key in [k for k in obj if k not in properties]:
            if obj[key] is None and not extra.get("nullable"):
                if "default" not in extra:
                    del obj[key]
                    continue
                obj[key] = json.loads(json.dumps(extra["default"]))
            apply_defaults(extra, obj[key])


# ---- validation


def structural_problems(schema: Schema, obj: Value, old: Value = None) -> list[FieldError]:
    """Violations of the OpenAPI rules, list keys included; on an update (`old` given) only in what changed."""
    found: list[FieldError] = []
    _check(schema, obj, old, "", found)
    _check_lists(schema, obj, "", found)
    return found


def _shown(value: Value) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _invalid(path: str, value: Value, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {_shown(value)}: {path} in body {why}", "FieldValueInvalid")


def json_type(value: Value) -> str:
    """The JSON schema type of a value; whole floats are integers."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _type_fits(schema: Schema, value: Value) -> bool:
    have = json_type(value)
    if have == "null":
        return bool(schema.get("nullable")) or not (schema.get("type") or schema.get(INT_OR_STRING))
    if schema.get(INT_OR_STRING):
        return have in ("integer", "string")
    wanted = schema.get("type")
    return not wanted or have == wanted or (wanted == "number" and have == "integer")


def _check(schema: Schema, value: Value, old: Value, path: str, found: list[FieldError]) -> None:
    if old is not None and path and value == old and json_type(value) == json_type(old):
        return
    if not _type_fits(schema, value):
        wanted = "integer,string" if schema.get(INT_OR_STRING) else schema["type"]
        have = json_type(value)
        message = f'Invalid value: "{have}": {path} in body must be of type {wanted}: "{have}"'
        found.append(FieldError(path, message, "FieldValueTypeInvalid"))
        return
    if value is None:
        return
    if "enum" in schema and value not in schema["enum"]:
        listed = ", ".join(_shown(choice) for choice in schema["enum"])
        message = f"Unsupported value: {_shown(value)}: supported values: {listed}"
        found.append(FieldError(path, message, "FieldValueNotSupported"))
    if isinstance(value, dict):
        _check_object(schema, value, old if isinstance(old, dict) else None, path, found)
    elif isinstance(value, list):
        _check_list(schema, value, old if isinstance(old, list) else None, path, found)
    elif isinstance(value, str):
        _check_string(schema, value, path, found)
    elif not isinstance(value, bool):
        _check_number(schema, value, path, found)
    _check_combined(schema, value, path, found)


def _check_object(schema: Schema, value: Value, old: Value, path: str, found: list[FieldError]) -> None:
    properties = schema.get("properties") or {}
    for key in schema.get("required") or ():
        if key not in value:
            found.append(FieldError(f"{path}.{key}" if path else key, "Required value", "FieldValueRequired"))
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        found.append(FieldError(path, f"Too many: {len(value)}: must have at most {most} items", "FieldValueTooMany"))
    if least is not None and len(value) < least:
        found.append(_invalid(path, value, f"should have at least {least} properties"))
    extra = schema.get("additionalProperties")
    for key, item in value.items():
        known = properties.get(key) or (extra if isinstance(extra, dict) else None)
        if isinstance(known, dict):
            _check(known, item, (old or {}).get(key), f"{path}.{key}" if path else key, found)


def _check_list(schema: Schema, value: Value, old: Value, path: str, found: list[FieldError]) -> None:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        found.append(FieldError(path, f"Too many: {len(value)}: must have at most {most} items", "FieldValueTooMany"))
    if least is not None and len(value) < least:
        found.append(
            FieldError(
                path,
                f"Invalid value: {len(value)}: {path} in body should have at least {least} items",
                "FieldValueInvalid",
            )
        )
    items = schema.get("items")
    if not isinstance(items, dict):
        return
    before = correlated(schema, old)
    for index, item in enumerate(value):
        key = list_key(schema, item)
        _check(items, item, before.get(key) if key is not None else None, f"{path}[{index}]", found)


def list_key(schema: Schema, item: Value) -> str | None:
    """What identifies an item of a list of type map; None for other lists, or if a key is missing."""
    if schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, dict):
        return None
    keys = schema.get("x-kubernetes-list-map-keys") or []
    if not all(key in item for key in keys):
        return None
    return _shown([item[key] for key in keys])


def correlated(schema: Schema, old: Value) -> dict[str, Value]:
    """Items of an earlier list by their keys, if the list has any."""
    return {key: item for item in old or () if (key := list_key(schema, item)) is not None}


def _check_string(schema: Schema, value: str, path: str, found: list[FieldError]) -> None:
    # One problem of a string is enough: the real server stops at the first as well.
    most, least, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if most is not None and len(value) > most:
        found.append(FieldError(path, f"Too long: may not be more than {most} bytes", "FieldValueTooLong"))
    elif least is not None and len(value) < least:
        found.append(_invalid(path, value, f"should be at least {least} chars long"))
    elif pattern is not None and not re.search(_python_pattern(pattern), value):
        found.append(_invalid(path, value, f"should match '{pattern}'"))
    elif (form := schema.get("format")) and form in _FORMATS and not _FORMATS[form](value):
        found.append(_invalid(path, value, f'must be of type {form}: "{value}"'))


def _python_pattern(pattern: str) -> str:
    """The end in Go's expressions is the end of the text; in Python's it may be followed by a line break."""
    return pattern[:-1] + r"\Z" if pattern.endswith("$") and not pattern.endswith("\\$") else pattern


def _is_date_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None and "T" in text.upper()
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.strptime(text, "%Y-%m-%d"))
    except ValueError:
        return False


_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*|0")
_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_date_time,
    "date": _is_date,
    "duration": lambda text: bool(_DURATION.fullmatch(text)),
    "uuid": lambda text: bool(
        re.fullmatch(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", text)
    ),
}


def _bound(bound: float | None, value: float) -> float | None:
    """API servers compare whole numbers with the bound's whole part: 0 is not below an exclusive maximum of 0.5."""
    return int(bound) if bound is not None and isinstance(value, int) else bound


def _check_number(schema: Schema, value: float, path: str, found: list[FieldError]) -> None:
    most, least = _bound(schema.get("maximum"), value), _bound(schema.get("minimum"), value)
    if most is not None:
        if schema.get("exclusiveMaximum") and value >= most:
            found.append(_invalid(path, value, f"should be less than {_shown(most)}"))
        elif value > most:
            found.append(_invalid(path, value, f"should be less than or equal to {_shown(most)}"))
    if least is not None:
        if schema.get("exclusiveMinimum") and value <= least:
            found.append(_invalid(path, value, f"should be greater than {_shown(least)}"))
        elif value < least:
            found.append(_invalid(path, value, f"should be greater than or equal to {_shown(least)}"))
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        found.append(_invalid(path, value, f"should be a multiple of {_shown(step)}"))
    if schema.get("format") == "int32" and not -(2**31) <= value < 2**31:
        found.append(_invalid(path, value, f'must be of type int32: "{value}"'))


def _fits(schema: Schema, value: Value) -> bool:
    errors: list[FieldError] = []
    _check(schema, value, None, "", errors)
    return not errors


def _check_combined(schema: Schema, value: Value, path: str, found: list[FieldError]) -> None:
    for part in schema.get("allOf") or ():
        _check(part, value, None, path, found)
    if (choices := schema.get("anyOf")) and not any(_fits(choice, value) for choice in choices):
        found.append(
            FieldError(
                path,
                f"Invalid value: {_shown(value)}: {path} in body must validate at least one schema (anyOf)",
                "FieldValueInvalid",
            )
        )
    if choices := schema.get("oneOf"):
        valid = sum(_fits(choice, value) for choice in choices)
        if valid != 1:
            none = "Found none valid" if valid == 0 else f"Found {valid} valid alternatives"
            found.append(
                FieldError(
                    path,
                    f"Invalid value: {_shown(value)}: {path} in body must validate one and only "
                    f"one schema (oneOf). {none}",
                    "FieldValueInvalid",
                )
            )
    if (unwanted := schema.get("not")) and _fits(unwanted, value):
        found.append(
            FieldError(
                path,
                f"Invalid value: {_shown(value)}: {path} in body must not validate the schema (not)",
                "FieldValueInvalid",
            )
        )


def _check_lists(schema: Schema, value: Value, path: str, found: list[FieldError]) -> None:
    """Duplicates in sets and in lists of type map."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            known = properties.get(key) or (extra if isinstance(extra, dict) else None)
            if isinstance(known, dict):
                _check_lists(known, item, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list):
        kind, items = schema.get("x-kubernetes-list-type"), schema.get("items")
        seen: set[str] = set()
        for index, item in enumerate(value):
            if kind == "map" and isinstance(item, dict):
                keys = {key: item[key] for key in schema.get("x-kubernetes-list-map-keys") or () if key in item}
                identity = _shown(keys)
            elif kind == "set":
                identity = _shown(item)
            else:
                identity = ""
            if identity and identity in seen:
                found.append(FieldError(f"{path}[{index}]", f"Duplicate value: {identity}", "FieldValueDuplicate"))
            seen.add(identity)
            if isinstance(items, dict):
                _check_lists(items, item, f"{path}[{index}]", found)
