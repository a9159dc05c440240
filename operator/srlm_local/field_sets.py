"""Sets of fields, as server-side apply reckons with them.

A field is a path of elements in the notation of FieldsV1: `f:spec`, `k:{"name":"a"}` (an item of a list of type
map), `v:"x"` (an item of a set). The rules are those of sigs.k8s.io/structured-merge-diff.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from srlm_local.builtin_schemas import apply_keys, fields, is_atomic, model_name
from srlm_local.patching import SET_LISTS, merge_key
from srlm_local.resources import ResourceType

Value = Any
Path = tuple[str, ...]
FieldSet = frozenset[Path]
_KEY_DEFAULTS = {"protocol": "TCP"}


class UnknownField(ValueError):
    """A field that the schema does not have; the message begins with its path."""


@dataclass(frozen=True)
class Shape:
    """How a value merges. kind: scalar, map, list; keys: of a list of type map; is_set: a list that is a set."""

    kind: str = "any"
    atomic: bool = False
    keys: tuple[str, ...] = ()
    is_set: bool = False
    schema: Any = None
    model: str = ""
    name: str = ""

    def field(self, name: str) -> Shape | None:
        """The shape of a field of a map; None if there is no such field."""
        if self.model:
            if match := re.fullmatch(r"Dict\[str, (.*)\]", self.model):
                return _of_model(match[1], name, self.name)
            known = fields(self.model).get(name)
            return None if known is None else _of_model(known[0], name, self.name)
        schema = self.schema or {}
        if name in (schema.get("properties") or {}):
            return _of_schema(schema["properties"][name])
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            return _of_schema(extra)
        untyped = extra is True or schema.get("x-kubernetes-preserve-unknown-fields") or not schema.get("type")
        return _ANY if untyped else None

    def declares(self, name: str) -> bool:
        """Whether a field is one of a structure, and not a key of a map."""
        if self.model:
            return not self.model.startswith("Dict")
        return name in ((self.schema or {}).get("properties") or {})

    def item(self) -> Shape:
        if self.model:
            return _of_model(self.model[5:-1], self.name, self.name)
        return _of_schema((self.schema or {}).get("items") or {})

    def element(self, item: Value) -> str:
        """The path element of a list item."""
        if self.is_set:
            return "v:" + json.dumps(item, separators=(",", ":"))
        keys = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in sorted(self.keys)}
        return "k:" + json.dumps(keys, separators=(",", ":"))


_ANY = Shape()


def _of_model(kind: str, name: str, parent: str) -> Shape:
    if kind.startswith("List["):
        if name in SET_LISTS:
            return Shape("list", is_set=True, model=kind, name=name)
        key = merge_key(name, parent)
        keys = tuple(apply_keys(name, parent) or ([key] if key else []))
        return Shape("list", atomic=not keys, keys=keys, model=kind, name=name)
    if kind.startswith("Dict["):
        return Shape("map", atomic=is_atomic(name), model=kind, name=name)
    if kind in ("str", "int", "bool", "float", "datetime", "bytes", "object"):
        return Shape("scalar" if kind != "object" else "any")
    return Shape("map", atomic=is_atomic(name), model=kind, name=name)


def _of_schema(schema: Any) -> Shape:
    match schema.get("type"):
        case "array":
            kind = schema.get("x-kubernetes-list-type", "atomic")
            keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if kind == "map" else ()
            return Shape("list", atomic=kind == "atomic", keys=keys, is_set=kind == "set", schema=schema)
        case "object":
            return Shape("map", atomic=schema.get("x-kubernetes-map-type") == "atomic", schema=schema)
        case None:
            return Shape(schema=schema)
    return Shape("scalar", schema=schema)


def root_shape(rt: ResourceType) -> Shape:
    """The shape of a whole object."""
    if not rt.custom:
        return Shape("map", model=model_name(rt), name="")
    schema = rt.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    text = {"type": "string"}
    properties = {"apiVersion": text, "kind": text, **(schema.get("properties") or {})}
    return _Root("map", schema={**schema, "type": "object", "properties": properties})


class _Root(Shape):
    """A custom object: its metadata is that of every object."""

    def field(self, name: str) -> Shape | None:
        if name == "metadata":
            return Shape("map", model="V1ObjectMeta", name="metadata")
        return super().field(name)

    def declares(self, name: str) -> bool:
        return name == "metadata" or super().declares(name)


def _is_map(shape: Shape, *values: Value) -> bool:
    return (
        not shape.atomic
        and shape.kind in ("map", "any")
        and all(v is None or isinstance(v, dict) for v in values)
        and (any(isinstance(v, dict) for v in values))
    )


def _is_list(shape: Shape, *values: Value) -> bool:
    """Lists that are merged item by item; those of unknown type are atomic."""
    return shape.kind == "list" and not shape.atomic and all(v is None or isinstance(v, list) for v in values)


def items_of(shape: Shape, value: Value) -> dict[str, Value]:
    """The items of a set or of a list of type map, by path element."""
    return {shape.element(item): item for item in value or () if shape.is_set or isinstance(item, dict)}


def field_set(shape: Shape, value: Value) -> FieldSet:
    """All fields that a configuration gives. Raises UnknownField."""
    return frozenset(_collect(shape, value, ()))


def _collect(shape: Shape, value: Value, path: Path) -> Iterator[Path]:
    if _is_map(shape, value):
        for name, item in value.items():
            inner, at = shape.field(name), (*path, f"f:{name}")
            if inner is None:
                raise UnknownField(f"{readable(at)}: field not declared in schema")
            yield from _collect(inner, item, at)
            if item in (None, {}) or not shape.declares(name):
                yield at
    elif _is_list(shape, value):
        for element, item in items_of(shape, value).items():
            yield (*path, element)
            yield from _collect(shape.item(), item, (*path, element))
    else:
        yield path


@dataclass
class Difference:
    """Which fields an update added, changed and removed."""

    added: set[Path]
    modified: set[Path]
    removed: set[Path]


def difference(shape: Shape, old: Value, new: Value) -> Difference:
    found = Difference(set(), set(), set())
    _differ(shape, old, new, (), found)
    return found


def _differ(shape: Shape, old: Value, new: Value, path: Path, found: Difference) -> None:
    if old == new:
        return
    if path and old is None:
        found.added.add(path)
    elif path and new is None:
        found.removed.add(path)
    if _is_map(shape, old, new) and (old or new):
        before, after = old or {}, new or {}
        for name in {**before, **after}:
            inner = shape.field(name) or _ANY
            if before.get(name) is not None or after.get(name) is not None:
                _differ(inner, before.get(name), after.get(name), (*path, f"f:{name}"), found)
    elif _is_list(shape, old, new) and (old or new):
        before, after = items_of(shape, old), items_of(shape, new)
        for element in {**before, **after}:
            _differ(shape.item(), before.get(element), after.get(element), (*path, element), found)
    elif old is not None and new is not None and old != new:
        found.modified.add(path)


def merge(shape: Shape, live: Value, config: Value) -> Value:
    """`live` with all that `config` gives."""
    if _is_map(shape, live, config) and isinstance(config, dict):
        result = dict(live or {})
        for name, item in config.items():
            result[name] = merge(shape.field(name) or _ANY, result.get(name), item)
        return result
    if _is_list(shape, live, config) and isinstance(config, list):
        merged = items_of(shape, live)
        for element, item in items_of(shape, config).items():
            merged[element] = merge(shape.item(), merged.get(element), item)
        return list(merged.values())
    return config


def remove(shape: Shape, value: Value, gone: FieldSet | set[Path], path: Path = ()) -> Value:
    """`value` without these fields; None if nothing is left of it."""
    if _is_map(shape, value):
        result = {}
        for name, item in value.items():
            at = (*path, f"f:{name}")
            inner = shape.field(name) or _ANY
            descends = _is_map(inner, item) or _is_list(inner, item)
            if at in gone and not (descends and item):
                continue
            touched = any(field[: len(at)] == at for field in gone)
            left = remove(inner, item, gone, at) if touched else item
            if touched and left in (None, {}, []) and item not in (None, {}, []):
                continue
            result[name] = left
        return result
    if _is_list(shape, value):
        kept = []
        for element, item in items_of(shape, value).items():
            at = (*path, element)
            if at not in gone:
                kept.append(remove(shape.item(), item, gone, at))
        return kept
    return value


def to_json(paths: FieldSet | set[Path]) -> dict[str, Any]:
    """FieldsV1 of a set."""
    root: dict[str, Any] = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _tidy(root)


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    if set(node) == {"."}:
        return {}
    return {key: {} if key == "." else _tidy(child) for key, child in node.items()}


def from_json(fields_v1: dict[str, Any]) -> FieldSet:
    return frozenset(_paths(fields_v1, ()))


def _paths(node: dict[str, Any], path: Path) -> Iterator[Path]:
    if not node and path:
        yield path
    for key, child in node.items():
        if key == ".":
            yield path
        else:
            yield from _paths(child, (*path, key))


def readable(path: Path) -> str:
    """`.spec.steps[name="a"].weight`, as it is shown in conflicts."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text
