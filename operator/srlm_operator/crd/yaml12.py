"""Manifests as plain JSON data, read as YAML 1.2 (core schema) or JSON.

PyYAML follows YAML 1.1, where `1e-6` is a string, `on` a boolean and `2026-01-01` a date. The API server's
clients read the first as a number and the last as a string; so does this reader. Keys given twice are errors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

import yaml

#: Values of one document, those that aliases repeat included: a few lines of aliases can stand for billions.
MAX_VALUES = 100_000
#: Of brackets and braces within each other: PyYAML takes ever longer for each.
MAX_DEPTH = 100
_HUGE = f"more than {MAX_VALUES} values, those that aliases repeat included"


class ManifestError(ValueError):
    """A file that is neither YAML nor JSON, or holds values that JSON cannot express."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema and no duplicate keys."""

    yaml_constructors = {  # noqa: RUF012 - PyYAML declares it so; its reader of timestamps crashes on others
        tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag != "tag:yaml.org,2002:timestamp"
    }
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML declares it so

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
            key_node.tag = "tag:yaml.org,2002:str"  # JSON has no other keys: 1 is "1", true is "true"
        return super().construct_mapping(node, deep=deep)

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise yaml.constructor.ConstructorError(None, None, _HUGE, node.start_mark)


_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    ("tag:yaml.org,2002:merge", r"<<", ["<"]),
)
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    # PyYAML would read 010 as octal; in YAML 1.2 only 0o10 is.
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = node.value.lower()
    return float(text.replace(".", "") if "n" in text else text)  # .inf and .nan, or a number


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def load_documents(text: str) -> list[Any]:
    """All documents of `text` as plain JSON data; empty documents are left out.

    Raises ManifestError that says where the text is wrong.
    """
    try:
        # JSON is YAML, but for tabs as indentation. What json refuses gets its message from YAML below.
        return [json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)]
    except (ValueError, RecursionError):
        pass
    try:
        documents = list(yaml.load_all(text, Loader=_Loader))
        return [_plain(document, "", count()) for document in documents if document is not None]
    except RecursionError as error:
        raise ManifestError("nested too deeply, or an alias that contains itself") from error
    except ManifestError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ManifestError(f"{where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, KeyError) as error:  # KeyError: `!!bool 1`
        raise ManifestError(str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _plain(value: Any, path: str, seen: Iterator[int]) -> Any:
    """seen: counts the values."""
    if next(seen) > MAX_VALUES:
        raise ManifestError(_HUGE)
    match value:
        case dict():
            return {key: _plain(item, f"{path}.{key}", seen) for key, item in value.items()}
        case list():
            return [_plain(item, f"{path}[{index}]", seen) for index, item in enumerate(value)]
        case float() if not math.isfinite(value):
            raise ManifestError(f"{path.lstrip('.')}: {value} is not a JSON number")
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise ManifestError(f"{path.lstrip('.')}: a {type(value).__name__} has no place in a manifest")
