"""Generates the CustomResourceDefinition of SelfRewardingRun from the spec and status models.

    python -m srlm_operator.crd.definition > crds/selfrewarding.dev_selfrewardingruns.yaml

Pydantic writes JSON Schema 2020-12 with references; the API server wants a *structural* OpenAPI v3 schema:
everything inlined, one type at every level, no nulls, boolean `exclusiveMinimum`, defaults spelled out.
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

from pydantic import BaseModel

from srlm_contract.spec.run import RunSpec
from srlm_contract.status import RunStatus

GROUP = "selfrewarding.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SelfRewardingRun"
PLURAL = "selfrewardingruns"
CRD_NAME = f"{PLURAL}.{GROUP}"

Schema = dict[str, Any]

#: Keywords of pydantic's schemas that a structural schema has no use for.
_DROPPED = frozenset({"title", "examples", "$defs", "deprecated"})

#: Spelling order of keywords, so that the file reads well: what it is, its bounds, then what is inside.
_ORDER = (
    "description", "type", "format", "default", "enum", "pattern", "minLength", "maxLength", "minimum",
    "exclusiveMinimum", "maximum", "exclusiveMaximum", "minItems", "maxItems", "maxProperties", "required",
    "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-validations", "items", "additionalProperties", "properties",
)  # fmt: skip

#: A run has started when a stage other than preflight has: until then a wrong URI can still be corrected.
_STARTED = (
    "has(oldSelf.status) && has(oldSelf.status.iterations) && oldSelf.status.iterations.exists(i,"
    " has(i.stages) && i.stages.exists(s, s.state != 'Pending'))"
)


def custom_resource_definition() -> dict[str, Any]:
    """The whole CustomResourceDefinition, apiextensions.k8s.io/v1, as plain JSON data of the caller's own."""
    found: dict[str, Any] = json.loads(_definition())
    return found


@functools.cache
def _definition() -> str:
    """As JSON: pydantic takes a while to describe all the models."""
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Without it `helm upgrade` deletes a definition that was part of a release and no longer is, and all runs.
        "metadata": {"name": CRD_NAME, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["srr"],
                "categories": ["ml", "srlm"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _printer_columns(),
                    "schema": {"openAPIV3Schema": run_schema()},
                }
            ],
        },
    }
    return json.dumps(definition)


def run_schema() -> Schema:
    """The structural schema of a SelfRewardingRun."""
    return _ordered(
        {
            "description": "A Self-Rewarding run: a base model is turned into M1, M2, ... by judging and"
            " preferring its own answers.",
            "type": "object",
            "required": ["spec"],
            "x-kubernetes-validations": [
                {
                    "rule": "self.metadata.name.size() <= 63",
                    "message": "metadata.name may have at most 63 characters, since Jobs and Pods carry it as"
                    " a label: choose a shorter name",
                    "fieldPath": ".metadata",
                },
                *(_immutable(field) for field in ("baseModel", "seedData")),
                _storage_stays(),
                _manager_stays(),
            ],
            "properties": {
                "apiVersion": {"description": f"Always {API_VERSION}.", "type": "string", "maxLength": 63},
                "kind": {"description": f"Always {KIND}.", "type": "string", "maxLength": 63},
                "metadata": {"type": "object"},
                "spec": {
                    **_without_empty(_telling_defaults(model_schema(RunSpec))),
                    "description": "What the run shall do.",
                },
                "status": {
                    # No defaults here: the server would fill them in and every status write would differ from
                    # what the operator wrote.
                    **_without_defaults(model_schema(RunStatus)),
                    "description": "What the run has done so far; written by the operator.",
                },
            },
        }
    )


def shown_default(value: Any) -> str:
    """A default as YAML spells it; lists in brackets, and `empty` where nothing would be seen."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown_default, value))}]" if value else "empty"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return "empty" if value in ("", {}) else str(value)


def _telling_defaults(schema: Schema) -> Schema:
    """Defaults at the end of the descriptions of values too: `kubectl explain` prints no others."""
    result = dict(schema)
    if "properties" in result:
        result["properties"] = {name: _telling_defaults(child) for name, child in result["properties"].items()}
    elif "default" in result:
        result["description"] += f" Default: {shown_default(result['default'])}."
    return result


#: What rules read whether or not it is there.
_READ = ("storage", "limits")
_EMPTY: tuple[Any, ...] = ("", {}, [])


def _without_empty(schema: Schema) -> Schema:
    """Without defaults that say nothing: an API server would write them into every run, most of which they would be."""
    result = dict(schema)
    if "properties" in result:
        result["properties"] = {
            name: child if name in _READ else _without_empty(child) for name, child in result["properties"].items()
        }
    default = _said(result.pop("default", None))
    inner = any("default" in child for child in result.get("properties", {}).values())
    return result if default is None or (default in _EMPTY and not inner) else {**result, "default": default}


def _said(value: Any) -> Any:
    """What a default says, at every depth."""
    if not isinstance(value, dict):
        return value
    return {name: said for name, item in value.items() if (said := _said(item)) not in _EMPTY}


def model_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of one contract model."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(raw, raw.get("$defs", {}))


def _immutable(field: str) -> Schema:
    # On the root, not on the field: a rule on an optional field is bypassed by removing and adding it again.
    return {
        "rule": f"self.spec.{field}.uri == oldSelf.spec.{field}.uri || !({_STARTED})",
        "message": f"spec.{field}.uri cannot be changed once the run has started: create another run"
        " (finished stages that do not depend on it are reused)",
        "fieldPath": f".spec.{field}.uri",
        "reason": "FieldValueForbidden",
    }


def _storage_stays() -> Schema:
    """A run may have left the URI out; then the place that status keeps may be named, and no other."""
    kept = (
        "has(self.spec.storage.uri) && self.spec.storage.uri == oldSelf.spec.storage.uri",
        "!has(self.spec.storage.uri) || (has(oldSelf.status.storage) &&"
        " self.spec.storage.uri == oldSelf.status.storage.uri)",
    )
    return {
        "rule": f"!({_STARTED}) || (has(oldSelf.spec.storage.uri) ? {kept[0]} : {kept[1]})",
        "message": "spec.storage.uri cannot be changed once the run has started: create another run"
        " (status.storage.uri is the place of this one)",
        "fieldPath": ".spec.storage.uri",
        "reason": "FieldValueForbidden",
    }


def _manager_stays() -> Schema:
    return {
        "rule": "has(self.spec.managedBy) == has(oldSelf.spec.managedBy)"
        " && (!has(self.spec.managedBy) || self.spec.managedBy == oldSelf.spec.managedBy)",
        "message": "spec.managedBy cannot be changed: create another run",
        "fieldPath": ".spec.managedBy",
        "reason": "FieldValueForbidden",
    }


def _printer_columns() -> list[dict[str, Any]]:
    ready = '.status.conditions[?(@.type=="Ready")]'
    columns = (
        ("Phase", "string", ".status.phase", "Where the run stands."),
        ("Ready", "string", f"{ready}.status", "Whether all iterations are done."),
        ("Reason", "string", f"{ready}.reason", "What it does, waits for, or is stopped by."),
        ("Iteration", "integer", ".status.iteration", "0 is the bootstrap."),
        ("Stage", "string", ".status.stage", "The running stage."),
        ("Progress", "string", ".status.progress.text", "Finished share of all stages."),
        ("Model", "string", ".status.currentModel", "The latest finished model."),
        ("Age", "date", ".metadata.creationTimestamp", "Time since the run was created."),
    )
    wide = (
        ("ETA", "string", ".status.progress.eta", "Estimated time left of the running stage."),
        ("Message", "string", f"{ready}.message", "What happened, and what to do."),
    )
    shown: list[dict[str, Any]] = [
        {"name": name, "type": type_, "jsonPath": path, "description": text} for name, type_, path, text in columns
    ]
    # With `kubectl get -o wide` only.
    return shown + [
        {"name": name, "type": type_, "jsonPath": path, "description": text, "priority": 1}
        for name, type_, path, text in wide
    ]


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _inline(node, definitions)
    schema = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    for bound, side in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(side), int | float) and not isinstance(schema.get(side), bool):
            schema[bound], schema[side] = schema[side], True
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    default = _without_nulls(schema.pop("default", None))
    if default is not None:
        schema["default"] = default

    if "properties" in schema:
        schema["properties"] = {name: _structural(child, definitions) for name, child in schema["properties"].items()}
    if "items" in schema:
        schema["items"] = _structural(schema["items"], definitions)
        schema["x-kubernetes-list-type"] = "atomic"
    values = schema.pop("additionalProperties", None)
    if isinstance(values, dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = _structural(values, definitions)
    return schema


def _inline(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Put references and the one real branch of `X | None` in place; what stands beside them wins."""
    while "$ref" in node or "anyOf" in node:
        beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            inner = definitions[node["$ref"].rsplit("/", 1)[1]]
        else:
            branches = [branch for branch in node["anyOf"] if branch != {"type": "null"}]
            if len(branches) != 1:
                raise ValueError(f"a union is not structural: {node}; use one type")
            inner = branches[0]
        node = {**inner, **beside}
    return node


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _without_defaults(schema: Schema) -> Schema:
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {name: _without_defaults(child) for name, child in result["properties"].items()}
    if "items" in result:
        result["items"] = _without_defaults(result["items"])
    return result


def _ordered(schema: Schema) -> Schema:
    unknown = schema.keys() - set(_ORDER)
    if unknown:
        raise ValueError(f"keywords without a place in a structural schema: {sorted(unknown)}")
    result = {key: schema[key] for key in _ORDER if key in schema}
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = _ordered(result[key])
    if "properties" in result:
        result["properties"] = {name: _ordered(child) for name, child in result["properties"].items()}
    return result


def render() -> str:
    """The definition as YAML, the text of crds/selfrewarding.dev_selfrewardingruns.yaml."""
    import yaml  # only needed here: contract modules import nothing but pydantic

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # anchors would be valid, but hard to read
            return True

    body = yaml.dump(custom_resource_definition(), Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return "# Generated by `make crds` from stages/srlm_contract: change the models, not this file.\n" + body


if __name__ == "__main__":
    sys.stdout.write(render())
