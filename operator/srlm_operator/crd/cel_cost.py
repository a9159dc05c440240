"""How much CEL rules may cost at worst, as the API server estimates it before it accepts a schema.

A port of the idea, not of every constant: the size of every value follows from maxItems, maxProperties and
maxLength (or from the largest request when they are missing), loops multiply, string functions cost a tenth
of what they read, and a rule counts as often as its place in the schema can occur.
Limits: https://kubernetes.io/docs/reference/using-api/cel/#resource-use-by-cel-functions
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from srlm_operator.crd.cel import RULES, RuleError, cel_type, compile_rule, escape
from srlm_operator.crd.schema import INT_OR_STRING, FieldError

Schema = dict[str, Any]
PER_RULE = 10_000_000
PER_SCHEMA = 100_000_000
MAX_REQUEST = 3 * 1024 * 1024
_ADVICE = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings "
    "are declared)"
)
_CONSTANTS = {2: "boolean", 3: "integer", 4: "integer", 5: "number", 6: "string"}
"""Field numbers of cel.expr.Constant."""
_READS_STRING = {
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "find",
    "findAll",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "trim",
    "substring",
    "indexOf",
    "lastIndexOf",
    "isURL",
    "url",
    "quantity",
    "isQuantity",
    "reverse",
    "string",
    "bytes",
    "duration",
    "timestamp",
}


@dataclass
class Node:
    """A value in an expression: what schema it has, and how large it can be."""

    schema: Schema = field(default_factory=dict)
    size: int = 1
    root: bool = False
    """Whether it is a whole object, which has a kind and metadata whatever its schema says."""


def check_budget(schema: Schema, path: str) -> list[FieldError]:
    """Rules over the limit, and the total over its limit, with the advice that the API server gives."""
    found: list[FieldError] = []
    heavy: list[str] = []
    total = 0.0
    for at, node, times in _places(schema, path, 1):
        for index, rule in enumerate(node.get(RULES) or []):
            for key, what in (("rule", "rule"), ("messageExpression", "messageExpression")):
                if not rule.get(key):
                    continue
                cost = estimate(rule[key].strip(), node, root=at == path) * times
                total += cost
                where = f"{at}.{RULES}[{index}].{key}"
                if cost > PER_RULE:
                    found.append(_over(where, f"estimated {what} cost exceeds budget", cost / PER_RULE))
                if cost > PER_SCHEMA / 100:
                    heavy.append(where)
    if total > PER_SCHEMA:
        found.append(
            _over(
                path,
                "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget",
                total / PER_SCHEMA,
            )
        )
        why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        found += [FieldError(where, f"Forbidden: {why}", "FieldValueForbidden") for where in heavy]
    return found


def _over(path: str, what: str, factor: float) -> FieldError:
    shown = "more than 100x" if factor > 100 else f"{factor:.1f}x"
    return FieldError(path, f"Forbidden: {what} by factor of {shown} {_ADVICE}", "FieldValueForbidden")


def _places(schema: Schema, path: str, times: int) -> Iterator[tuple[str, Schema, int]]:
    """(path, schema, how often at most) of every level."""
    yield path, schema, times
    for name, child in (schema.get("properties") or {}).items():
        yield from _places(child, f"{path}.properties[{name}]", times)
    if isinstance(items := schema.get("items"), dict):
        yield from _places(items, f"{path}.items", times * size_of(schema))
    if isinstance(extra := schema.get("additionalProperties"), dict):
        yield from _places(extra, f"{path}.additionalProperties", times * size_of(schema))


def least_bytes(schema: Schema) -> int:
    """The shortest JSON text of a value of this schema."""
    if schema.get(INT_OR_STRING):
        return 1
    match schema.get("type"):
        case "boolean":
            return 4
        case "string":
            return 2 + int(schema.get("minLength") or 0)
        case "array":
            return 2 + int(schema.get("minItems") or 0) * least_bytes(schema.get("items") or {})
        case "object":
            required = schema.get("required") or ()
            properties = schema.get("properties") or {}
            return 2 + sum(len(name) + 3 + least_bytes(properties.get(name, {})) for name in required)
    return 1


def size_of(schema: Schema) -> int:
    """The most items, entries or characters that a value can have."""
    match schema.get("type"):
        case "string":
            if "maxLength" in schema:
                # A character can take four bytes.
                return int(schema["maxLength"]) * 4
            if schema.get("format") in ("date-time", "date", "duration"):
                return 48
            if "enum" in schema:
                return max((len(str(choice)) for choice in schema["enum"]), default=0)
            return MAX_REQUEST - 2
        case "array":
            return int(schema.get("maxItems") or (MAX_REQUEST - 2) // (least_bytes(schema.get("items") or {}) + 1))
        case "object":
            if isinstance(extra := schema.get("additionalProperties"), dict):
                return int(schema.get("maxProperties") or (MAX_REQUEST - 2) // (least_bytes(extra) + 6))
            return len(schema.get("properties") or {})
    if schema.get(INT_OR_STRING):
        return MAX_REQUEST - 2
    return 1


# ---- the expression, read from the compiler's serialised form (cel.expr.CheckedExpr)


def estimate(expression: str, schema: Schema, *, root: bool = False) -> float:
    """The highest cost of evaluating an expression once with `self` of this schema; `root`: a whole object.

    Raises RuleError for what the compiler lets pass, as it takes objects for maps, and an API server does not:
    fields that the schema does not have, and comparisons of values of different types.
    """
    program = compile_rule(expression, cel_type(schema))
    checked = _message(program.expression.serialize())[2][0]  # the message inside a protobuf Any
    expr = _message(checked)[4][0]
    self_node = Node(schema, size_of(schema), root)
    return _cost(expr, {"self": self_node, "oldSelf": self_node})[0]


def _message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protobuf message: field number -> values (bytes for messages and strings)."""
    found: dict[int, list[Any]] = {}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, position = _varint(data, position)
        elif wire == 2:
            length, position = _varint(data, position)
            value, position = data[position : position + length], position + length
        elif wire == 1:
            value, position = data[position : position + 8], position + 8
        else:
            value, position = data[position : position + 4], position + 4
        found.setdefault(number, []).append(value)
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _cost(data: bytes, names: dict[str, Node]) -> tuple[float, Node]:
    """(cost, what the value is) of an Expr message."""
    expr = _message(data)
    if 3 in expr:
        constant = _message(expr[3][0])
        kind = next((name for number, name in _CONSTANTS.items() if number in constant), "")
        return 0.0, Node({"type": kind} if kind else {}, len(constant.get(6, [b""])[0]))
    if 4 in expr:
        name = _message(expr[4][0]).get(1, [b""])[0].decode()
        return 1.0, names.get(name, Node())
    if 5 in expr:
        return _select(_message(expr[5][0]), names)
    if 6 in expr:
        return _call(_message(expr[6][0]), names)
    if 7 in expr:
        elements = _message(expr[7][0]).get(1, [])
        parts = [_cost(element, names) for element in elements]
        items = parts[0][1].schema if parts else {}
        return 10.0 + sum(cost for cost, _ in parts), Node({"type": "array", "items": items}, len(parts))
    if 8 in expr:
        return 30.0, Node()
    if 9 in expr:
        return _loop(_message(expr[9][0]), names)
    return 1.0, Node()


def _select(select: dict[int, list[Any]], names: dict[str, Node]) -> tuple[float, Node]:
    cost, operand = _cost(select[1][0], names)
    name = select[2][0].decode()
    properties = {escape(key): value for key, value in (operand.schema.get("properties") or {}).items()}
    extra = operand.schema.get("additionalProperties")
    schema = properties.get(name) or (extra if isinstance(extra, dict) else {})
    if not schema and properties and not operand.root:
        raise RuleError(f"undefined field '{name}'")
    if not schema and name in ("metadata", "name", "generateName", "kind", "apiVersion"):
        schema = {"type": "object"} if name == "metadata" else {"type": "string", "maxLength": 253}
    return cost + 1.0, Node(schema, size_of(schema))


def _call(call: dict[int, list[Any]], names: dict[str, Node]) -> tuple[float, Node]:
    function = call.get(2, [b""])[0].decode()
    parts = [_cost(arg, names) for arg in [*call.get(1, []), *call.get(3, [])]]
    cost = sum(part for part, _ in parts)
    nodes = [node for _, node in parts]
    sizes = [node.size for node in nodes]
    if function in ("_&&_", "_||_", "!_", "@not_strictly_false"):
        return cost + (0.0 if function.startswith("@") else 1.0), Node({"type": "boolean"})
    if function == "_?_:_":
        larger = max(nodes[1:], key=lambda node: node.size)
        return parts[0][0] + max(part for part, _ in parts[1:]) + 1.0, larger
    if function in ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"):
        left, right = (_comparable(node) for node in nodes)
        if left and right and left != right:
            raise RuleError(f"found no matching overload for '{function}' applied to '({left}, {right})'")
        comparable = [n.size for n in nodes if n.schema.get("type") in ("string", "array", "object")]
        return cost + max(1.0, min(comparable, default=1) * 0.1), Node({"type": "boolean"})
    if function in ("_in_", "@in"):
        return cost + float(sizes[-1]), Node({"type": "boolean"})
    if function == "_[_]":
        items = nodes[0].schema.get("items") or nodes[0].schema.get("additionalProperties")
        schema = items if isinstance(items, dict) else {}
        return cost + 1.0, Node(schema, size_of(schema))
    if function == "_+_" and any(n.schema.get("type") in ("string", "array") for n in nodes):
        return cost + max(1.0, sum(sizes) * 0.1), Node(nodes[0].schema, sum(sizes))
    if function in ("contains", "matches"):
        return cost + max(1.0, sizes[0] * 0.1) * max(1.0, sizes[-1] * 0.25), Node({"type": "boolean"})
    if function == "string" and nodes[0].schema.get("type") not in ("string",):
        # The length of a number's text is not known to the estimator: it counts as unbounded.
        return cost + 1.0 + (MAX_REQUEST - 2) * 1e4, Node({"type": "string"}, MAX_REQUEST - 2)
    if function == "size":
        return cost + 1.0, Node({"type": "integer"})
    if function in _READS_STRING:
        return cost + max(1.0, max(sizes, default=1) * 0.1), Node({"type": "string"}, max(sizes, default=1))
    return cost + 1.0, Node()


def _comparable(node: Node) -> str:
    """The kind of a value as far as comparisons go; numbers of all types compare, and so do unknown ones."""
    if node.schema.get("nullable") or node.schema.get("format") in ("date-time", "date", "duration", "byte"):
        return ""
    return {"string": "string", "integer": "number", "number": "number", "boolean": "bool"}.get(
        node.schema.get("type", ""), ""
    )


def _loop(loop: dict[int, list[Any]], names: dict[str, Node]) -> tuple[float, Node]:
    range_cost, over = _cost(loop[2][0], names)
    items = over.schema.get("items") or {}
    element = Node(items, size_of(items))
    if over.schema.get("type") == "object":
        element = Node({"type": "string", "maxLength": 64}, 64)
    inner = {**names, loop[1][0].decode(): element, loop[3][0].decode(): Node()}
    init_cost, start = _cost(loop[4][0], names)
    condition = _cost(loop[5][0], inner)[0] if 5 in loop else 0.0
    step = _cost(loop[6][0], inner)[0]
    result = _cost(loop[7][0], inner)[0] if 7 in loop else 1.0
    total = range_cost + init_cost + over.size * (condition + step) + result
    kind = {"type": "array", "items": items} if start.schema.get("type") == "array" else {"type": "boolean"}
    return total, Node(kind, over.size if kind["type"] == "array" else 1)
