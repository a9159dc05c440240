"""Says what to do about a schema error: which field was meant, which value fits, what a field is for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .schema import FieldError

Schema = dict[str, Any]

#: How alike two names are that differ in one of three letters; `url` is a slip for `uri`.
_ONE_LETTER_OF_THREE = 0.66
_STEP = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")


def explain(schema: Schema, error: FieldError) -> str:
    """The message of `error`, followed by what to do where the message alone does not say it."""
    field = _at(schema, error.path)
    match error.reason:
        case "FieldValueRequired":
            text = field.get("description", "") if field else ""
            return f"Required value: add {error.path}" + (f" ({text.rstrip('.')})" if text else "")
        case "FieldValueTypeInvalid":
            return error.message + _type_hint(field, error.message)
        case "FieldValueNotSupported":
            given = re.search(r'"([^"]*)"', error.message)
            values = [str(value) for value in (field or {}).get("enum", [])]
            return error.message + (nearest(given[1], values) if given else "")
        case "FieldValueInvalid" if " should match " in error.message:
            about = field or {}
            if "description" not in about:  # a value of a map: the map says what it holds
                about = _at(schema, error.path.rpartition(".")[0]) or {}
            return error.message + (f" ({about['description'].rstrip('.')})" if "description" in about else "")
        case _:
            return error.message


def unknown_field(schema: Schema, path: str) -> str:
    """What may have been meant by a field that the schema does not know.

    A field beside it whose name is close comes first: a slip of the keyboard is likelier than a wrong place. Fields of
    the very same name elsewhere follow, those further down first, unless the slip is plain.
    """
    parent, _, name = path.rpartition(".")
    siblings = (_at(schema, parent) or {}).get("properties", {})
    if close := closest(name, siblings, cutoff=0.8 if len(name) > 4 else _ONE_LETTER_OF_THREE):
        return f"unknown field: did you mean {close}?"
    elsewhere = [known for known in _paths(schema.get("properties", {}).get("spec", {}), "spec") if
                 known.rpartition(".")[2] == name]  # fmt: skip
    elsewhere.sort(key=lambda known: not known.startswith(f"{parent}."))
    close = closest(name, siblings, cutoff=0.65 if elsewhere else 0.6)
    meant = [*([close] if close else []), *elsewhere]
    if meant:
        return f"unknown field{' here' if elsewhere else ''}: did you mean {' or '.join(meant[:3])}?"
    if siblings:
        return "unknown field: remove it; known here: " + ", ".join(siblings)
    return "unknown field: remove it"


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean X?` for the closest of the known names, or nothing."""
    close = closest(name, known)
    return f": did you mean {close}?" if close else ""


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The closest of the known names, or nothing. cutoff: 0 (any) to 1 (equal)."""
    spelling = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), spelling, n=1, cutoff=cutoff)
    return spelling[close[0]] if close else ""


def _type_hint(field: Schema | None, message: str) -> str:
    wanted = (field or {}).get("type")
    if wanted in ("integer", "number") and '"string"' in message:
        return ": write the number without quotes"
    if wanted == "integer" and '"number"' in message:
        return ": write a whole number"
    if wanted == "boolean":
        return ": write true or false, without quotes"
    if wanted == "string" and re.search(r'"(integer|number|boolean)"', message):
        return ": put the value into quotes"
    if wanted == "array":
        return ": write a list, such as [a, b]"
    return ""


def _at(schema: Schema, path: str) -> Schema | None:
    """The schema of the field at `path`, such as `spec.storage.uri` or `spec.a[0]`, if there is one."""
    node: Schema | None = schema
    for name, index in _STEP.findall(path):
        if node is None:
            return None
        if index.isdigit() and "items" in node:
            node = node["items"]
        elif name in node.get("properties", {}):
            node = node["properties"][name]
        else:
            values = node.get("additionalProperties")
            node = values if isinstance(values, dict) else None
    return node


def _paths(schema: Schema, path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from _paths(child, f"{path}.{name}")
