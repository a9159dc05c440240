"""Whether a schema is one that a Kubernetes API server accepts in a CustomResourceDefinition.

Paths begin with `openAPIV3Schema`. The rules are those for structural schemas, for defaults, for list types,
and for the CEL rules: each must compile, be of the right type, and stay within the cost budget.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from srlm_operator.crd.cel import RULES, RuleError, cel_type, compile_rule
from srlm_operator.crd.cel_cost import check_budget, estimate
from srlm_operator.crd.schema import EMBEDDED, INT_OR_STRING, PRESERVE, FieldError, apply_defaults, find_problems, prune

Schema = dict[str, Any]
_FORBIDDEN = ("$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id", "$schema")
_TYPES = ("string", "number", "integer", "boolean", "array", "object")
_LIST_TYPES = ("atomic", "set", "map")


def check(schema: Schema) -> list[FieldError]:
    """All problems of a schema; see `schema.check_schema`."""
    found: list[FieldError] = []
    root = "openAPIV3Schema"
    if not schema.get("type"):
        return [FieldError(f"{root}.type", "Required value: must not be empty at the root", "FieldValueRequired")]
    if schema["type"] != "object":
        shown = json.dumps(schema["type"])
        return [FieldError(f"{root}.type", f"Invalid value: {shown}: must be object at the root", "FieldValueInvalid")]
    _structure(schema, root, found)
    if not found:
        _rules(schema, root, found)
    if not found:
        found += check_budget(schema, root)
    return found


def _forbid(path: str, why: str) -> FieldError:
    return FieldError(path, f"Forbidden: {why}", "FieldValueForbidden")


def _require(path: str, why: str) -> FieldError:
    return FieldError(path, f"Required value: {why}", "FieldValueRequired")


def _refuse(path: str, value: Any, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {json.dumps(value)}: {why}", "FieldValueInvalid")


def _structure(schema: Schema, path: str, found: list[FieldError], where: str = "root") -> None:
    """Types at every level, exclusive keywords, defaults and list types."""
    for key in _FORBIDDEN:
        if key in schema:
            found.append(_forbid(f"{path}.{key}", f"{key} is not supported"))
    if schema.get("uniqueItems"):
        found.append(
            _forbid(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )
        )
    kind = schema.get("type")
    if not kind and where != "root" and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        found.append(_require(f"{path}.type", f"must not be empty for specified {where}"))
    elif kind and kind not in _TYPES:
        listed = ", ".join(json.dumps(t) for t in sorted(_TYPES))
        found.append(
            FieldError(
                f"{path}.type",
                f"Unsupported value: {json.dumps(kind)}: supported values: {listed}",
                "FieldValueNotSupported",
            )
        )
    if schema.get(INT_OR_STRING) and kind:
        found.append(_forbid(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true"))
    if schema.get(EMBEDDED) and kind != "object":
        found.append(_refuse(f"{path}.type", kind or "", "must be object if x-kubernetes-embedded-resource is true"))
    if "properties" in schema and "additionalProperties" in schema:
        found.append(
            _forbid(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    if kind == "array" and "items" not in schema:
        found.append(_require(f"{path}.items", "must be specified"))
    if where == "root" and (meta := (schema.get("properties") or {}).get("metadata")):
        allowed = {"name", "generateName"}
        extra = sorted(set(meta.get("properties") or {}) - allowed)
        for name in extra:
            found.append(
                _forbid(
                    f"{path}.properties[metadata].properties[{name}]",
                    "must not specify anything other than name and generateName, but metadata is implicitly specified",
                )
            )
    _default(schema, path, found)
    _list_type(schema, path, found)
    for name, child in (schema.get("properties") or {}).items():
        _structure(child, f"{path}.properties[{name}]", found, "object fields")
    if isinstance(schema.get("items"), dict):
        _structure(schema["items"], f"{path}.items", found, "array items")
    if isinstance(schema.get("additionalProperties"), dict):
        _structure(schema["additionalProperties"], f"{path}.additionalProperties", found, "object fields")
    for key in ("allOf", "anyOf", "oneOf"):
        for index, part in enumerate(schema.get(key) or []):
            _no_structure(part, f"{path}.{key}[{index}]", found)
    if "not" in schema:
        _no_structure(schema["not"], f"{path}.not", found)


def _no_structure(schema: Schema, path: str, found: list[FieldError]) -> None:
    """Inside allOf and the like only value constraints may stand."""
    for key in ("type", "default", "nullable", "description", "additionalProperties", PRESERVE, RULES):
        if key in schema and not (key == "type" and schema[key] in ("integer", "string")):
            found.append(_forbid(f"{path}.{key}", "must be empty to be structural"))
    for name, child in (schema.get("properties") or {}).items():
        _no_structure(child, f"{path}.properties[{name}]", found)


def _default(schema: Schema, path: str, found: list[FieldError]) -> None:
    if "default" not in schema:
        return
    value = copy.deepcopy(schema["default"])
    bare = {key: item for key, item in schema.items() if key not in ("default", EMBEDDED)}
    holder = {"type": "object", "properties": {"v": bare}}
    unknown = prune(holder, {"v": value})
    if unknown:
        found.append(_refuse(f"{path}.default", schema["default"], "must not have unknown fields"))
    apply_defaults(bare, value)
    found += [
        FieldError(f"{path}.default{error.path and '.' + error.path}", error.message, error.reason)
        for error in find_problems(bare, value)
    ]


def _list_type(schema: Schema, path: str, found: list[FieldError]) -> None:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys")
    if kind is not None and schema.get("type") != "array":
        found.append(
            _refuse(f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is specified")
        )
        return
    if kind is not None and kind not in _LIST_TYPES:
        found.append(
            FieldError(
                f"{path}.x-kubernetes-list-type",
                f'Unsupported value: {json.dumps(kind)}: supported values: "atomic", "map", "set"',
                "FieldValueNotSupported",
            )
        )
    if kind != "map":
        if keys:
            found.append(
                _forbid(f"{path}.x-kubernetes-list-map-keys", "must be empty if x-kubernetes-list-type is not map")
            )
        items = schema.get("items") or {}
        if kind == "set" and items.get("type") in ("object", "array") and not _atomic(items):
            found.append(
                _refuse(
                    f"{path}.items.x-kubernetes-map-type"
                    if items["type"] == "object"
                    else f"{path}.items.x-kubernetes-list-type",
                    "",
                    "must be atomic as item of a list with x-kubernetes-list-type=set",
                )
            )
        return
    if not keys:
        found.append(
            _require(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        )
        return
    items = schema.get("items") or {}
    properties = items.get("properties") or {}
    for key in keys:
        if key not in properties:
            found.append(_refuse(f"{path}.x-kubernetes-list-map-keys", key, "must be the name of a property"))
        elif key not in (items.get("required") or []) and "default" not in properties[key]:
            found.append(
                _require(
                    f"{path}.items.properties[{key}].default",
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required "
                    "property",
                )
            )


def _atomic(items: Schema) -> bool:
    return items.get("x-kubernetes-map-type") == "atomic" or items.get("x-kubernetes-list-type") == "atomic"


def _rules(schema: Schema, path: str, found: list[FieldError]) -> None:
    """Every rule must compile to a bool, every messageExpression to a string."""
    for index, rule in enumerate(schema.get(RULES) or []):
        at = f"{path}.{RULES}[{index}]"
        text = rule.get("rule", "").strip()
        if not text:
            found.append(_require(f"{at}.rule", "rule is not specified"))
            continue
        shown = _go_rule(rule)
        try:
            program = compile_rule(text, cel_type(schema))
            estimate(text, schema, root=path == "openAPIV3Schema")
        except RuleError as error:
            found.append(
                FieldError(f"{at}.rule", f"Invalid value: {shown}: compilation failed: {error}", "FieldValueInvalid")
            )
            continue
        if program.type not in ("BOOL", "DYN"):
            found.append(
                FieldError(
                    f"{at}.rule",
                    f"Invalid value: {shown}: compilation failed: cel expression must evaluate to a bool",
                    "FieldValueInvalid",
                )
            )
        if expression := rule.get("messageExpression"):
            try:
                kind = compile_rule(expression.strip(), cel_type(schema)).type
                estimate(expression.strip(), schema, root=path == "openAPIV3Schema")
                why = "" if kind in ("STRING", "DYN") else "messageExpression must evaluate to a string"
            except RuleError as error:
                why = f"messageExpression compilation failed: {error}"
            if why:
                found.append(
                    FieldError(f"{at}.messageExpression", f"Invalid value: {shown}: {why}", "FieldValueInvalid")
                )
        if "\n" in rule.get("message", ""):
            found.append(_refuse(f"{at}.message", rule["message"], "message must not contain line breaks"))
    for name, child in (schema.get("properties") or {}).items():
        _rules(child, f"{path}.properties[{name}]", found)
    if isinstance(schema.get("items"), dict):
        _rules(schema["items"], f"{path}.items", found)
    if isinstance(schema.get("additionalProperties"), dict):
        _rules(schema["additionalProperties"], f"{path}.additionalProperties", found)


def _go_rule(rule: Schema) -> str:
    """A rule as Go prints the struct in errors."""
    shown = {
        "Rule": rule.get("rule", ""),
        "Message": rule.get("message", ""),
        "MessageExpression": rule.get("messageExpression", ""),
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }
    text = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
