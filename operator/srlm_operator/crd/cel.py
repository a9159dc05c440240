"""CEL rules (x-kubernetes-validations) of a structural schema.

Expressions are compiled and evaluated by cel-expr-python, the binding of CEL's C++ runtime: it has a type
checker, the regular expressions of the real server (RE2) and its messages. The library is imported only when
a schema has rules.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from srlm_operator.crd.schema import INT_OR_STRING, PRESERVE, FieldError, correlated, list_key

Schema = dict[str, Any]
Value = Any
RULES = "x-kubernetes-validations"
_RESERVED = {
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
}
_UNSET = object()


class RuleError(ValueError):
    """An expression that does not compile; the message is the compiler's."""


@dataclass(frozen=True)
class Program:
    """A compiled expression. `uses_old`: whether it is a transition rule."""

    expression: Any
    uses_old: bool
    type: str

    def run(self, variables: dict[str, Value]) -> Value:
        """The result. Raises RuleError if the evaluation fails, with CEL's message."""
        result = self.expression.eval(data=variables)
        if result.type().name() == "ERROR" or str(result.type()) == "ERROR":
            raise RuleError(_reworded(str(result.plain_value())))
        return result.plain_value()


def _reworded(message: str) -> str:
    """CEL's C++ messages in the words of the Go implementation that API servers use."""
    text = re.sub(r"^[A-Z_]+: ", "", message)
    if match := re.match(r'Key not found in map : "?(.*?)"?$', text):
        return f"no such key: {match[1]}"
    return text


# ---- types and values


@functools.lru_cache(maxsize=4096)
def escape(name: str) -> str:
    """A property name as CEL sees it (`x-y` is `x__dash__y`)."""
    if name in _RESERVED:
        return f"__{name}__"
    for raw, escaped in (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")):
        name = name.replace(raw, escaped)
    return name


def cel_type(schema: Schema) -> str:
    """The CEL type of a schema in the notation of `signature`: int, list(string), map(string, dyn), ..."""
    if schema.get(INT_OR_STRING):
        return "dyn"
    match schema.get("type"):
        case "integer":
            return "int"
        case "number":
            return "double"
        case "boolean":
            return "bool"
        case "string":
            return {"date-time": "timestamp", "date": "timestamp", "duration": "duration", "byte": "bytes"}.get(
                schema.get("format", ""), "string"
            )
        case "array":
            return f"list({cel_type(schema.get('items') or {})})"
        case "object":
            extra = schema.get("additionalProperties")
            return f"map(string, {cel_type(extra) if isinstance(extra, dict) else 'dyn'})"
    return "dyn"


def to_cel(schema: Schema, value: Value, *, root: bool = False) -> Value:
    """A JSON value as CEL gets it: numbers by their schema, times as times, property names escaped."""
    if value is None:
        return None
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        result = {}
        for key, item in value.items():
            if root and key == "metadata" and isinstance(item, dict):
                result[key] = {k: item[k] for k in ("name", "generateName") if k in item}
            elif key in properties:
                result[escape(key)] = to_cel(properties[key], item)
            elif isinstance(extra, dict):
                result[key] = to_cel(extra, item)
            elif schema.get(PRESERVE) or (root and key in ("apiVersion", "kind")) or not schema.get("type"):
                result[key] = item
        return result
    if isinstance(value, list):
        return [to_cel(schema.get("items") or {}, item) for item in value]
    kind = schema.get("type")
    if kind == "number" and not isinstance(value, bool):
        return float(value)
    if kind == "integer" and isinstance(value, float):
        return int(value)
    if kind == "string" and isinstance(value, str):
        return _string(schema.get("format", ""), value)
    return value


def _string(form: str, value: str) -> Value:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    if form in ("date-time", "date"):
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        timestamp = Timestamp()  # the runtime takes a datetime as a variable, but not inside of one
        timestamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        return timestamp
    if form == "duration":
        units = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
        parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", value)
        seconds = sum(float(number) * units[unit] for number, unit in parts)
        duration = Duration()
        duration.FromTimedelta(timedelta(seconds=-seconds if value.startswith("-") else seconds))
        return duration
    return value


# ---- compiling


@functools.lru_cache(maxsize=4096)
def compile_rule(rule: str, type_name: str) -> Program:
    """Compiles against `self` and `oldSelf` of this type. Raises RuleError."""
    uses_old = bool(re.search(r"\boldSelf\b", rule))
    try:
        expression = _environment(type_name).compile(rule)
    except (RuntimeError, ValueError) as error:
        text = re.sub(r"^[A-Z_]+: ", "", str(error))
        raise RuleError(re.sub(r" \[[A-Z_]+\]$", "", text)) from None
    return Program(expression, uses_old, str(expression.return_type()))


def _type(text: str) -> Any:
    from cel_expr_python import cel

    if text.startswith("list("):
        return cel.Type.List(_type(text[5:-1]))
    if text.startswith("map(string, "):
        return cel.Type.Map(cel.Type.STRING, _type(text[12:-1]))
    return getattr(cel.Type, text.upper())


@functools.lru_cache(maxsize=256)
def _environment(type_name: str) -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_math, ext_optional, ext_strings

    kind = _type(type_name)
    extensions = [ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_math.ExtMath(), _kubernetes_library()]
    return cel.NewEnv(variables={"self": kind, "oldSelf": kind}, extensions=extensions)


@functools.cache
def _kubernetes_library() -> Any:
    """The functions that Kubernetes adds to CEL and that need no types of their own (so not `quantity` or `url`)."""
    from cel_expr_python import cel

    t = cel.Type
    dyn_list = t.List(t.DYN)

    def function(name: str, overload: str, result: Any, parameters: list[Any], member: bool, run: Any) -> Any:
        made = cel.Overload(id=overload, return_type=result, parameters=parameters, is_member=member, impl=run)
        return cel.FunctionDecl(name, [made])

    return cel.CelExtension(
        "kubernetes",
        [
            function("isURL", "is_url", t.BOOL, [t.STRING], False, _is_url),
            function("isIP", "is_ip", t.BOOL, [t.STRING], False, _is_ip),
            function("isCIDR", "is_cidr", t.BOOL, [t.STRING], False, _is_cidr),
            function("isQuantity", "is_quantity", t.BOOL, [t.STRING], False, _is_quantity),
            function("find", "string_find", t.STRING, [t.STRING, t.STRING], True, _find),
            function("findAll", "string_find_all", t.List(t.STRING), [t.STRING, t.STRING], True, _find_all),
            function("isSorted", "list_is_sorted", t.BOOL, [dyn_list], True, lambda v: list(v) == sorted(v)),
            function("sum", "list_sum", t.DYN, [dyn_list], True, lambda v: sum(v)),
            function("min", "list_min", t.DYN, [dyn_list], True, lambda v: min(v)),
            function("max", "list_max", t.DYN, [dyn_list], True, lambda v: max(v)),
        ],
    )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme and (parts.netloc or parts.path)) and " " not in text
    except ValueError:
        return False


def _is_ip(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_cidr(text: str) -> bool:
    try:
        return "/" in text and bool(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return False


_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")


def _is_quantity(text: str) -> bool:
    return bool(_QUANTITY.fullmatch(text))


def _find(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[0] if match else ""


def _find_all(text: str, pattern: str) -> list[str]:
    return [match[0] for match in re.finditer(pattern, text)]


# ---- evaluating


def evaluate_rules(schema: Schema, obj: Value, old: Value = None) -> list[FieldError]:
    """The failures of all rules, at every depth. `old` is the object before an update."""
    found: list[FieldError] = []
    _walk(schema, obj, _UNSET if old is None else old, "", found)
    return found


def has_rules(schema: Value) -> bool:
    """Whether any rule is anywhere below; saves walking and converting what has none."""
    key = id(schema)
    known = _HAS_RULES.get(key)
    if known is None or known[0] is not schema:
        answer = isinstance(schema, dict) and (
            bool(schema.get(RULES))
            or any(has_rules(s) for s in (schema.get("properties") or {}).values())
            or has_rules(schema.get("items"))
            or has_rules(schema.get("additionalProperties"))
        )
        if len(_HAS_RULES) > 100_000:
            _HAS_RULES.clear()
        known = _HAS_RULES[key] = (schema, answer)
    return known[1]


_HAS_RULES: dict[int, tuple[Value, bool]] = {}


def _walk(schema: Schema, value: Value, old: Value, path: str, found: list[FieldError]) -> None:
    if not has_rules(schema) or value is None:
        return
    if rules := schema.get(RULES):
        unchanged = old is not _UNSET and path != "" and old == value
        now = to_cel(schema, value, root=not path)
        then = to_cel(schema, old, root=not path) if old is not _UNSET else None
        for rule in rules:
            error = _apply(rule, schema, value, now, then, old is not _UNSET, path)
            if error is not None and not (unchanged and not _transition(rule, schema)):
                found.append(error)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            if key in properties:
                _walk(properties[key], item, before.get(key, _UNSET), f"{path}.{key}" if path else key, found)
            elif isinstance(extra, dict):
                _walk(extra, item, before.get(key, _UNSET), f"{path}[{key}]", found)
    elif isinstance(value, list):
        earlier = correlated(schema, old if isinstance(old, list) else None)
        for index, item in enumerate(value):
            key = list_key(schema, item)
            _walk(
                schema.get("items") or {}, item, earlier.get(key, _UNSET) if key else _UNSET, f"{path}[{index}]", found
            )


def _transition(rule: Schema, schema: Schema) -> bool:
    return bool(re.search(r"\boldSelf\b", rule["rule"]))


def _apply(
    rule: Schema, schema: Schema, value: Value, now: Value, then: Value, has_old: bool, path: str
) -> FieldError | None:
    text = rule["rule"].strip()
    optional_old = bool(rule.get("optionalOldSelf"))
    if _transition(rule, schema) and not has_old and not optional_old:
        return None
    described = rule.get("message") or text
    at = (path + _field_path(rule.get("fieldPath", ""))).lstrip(".") or "<nil>"
    try:
        program = compile_rule(text, _type_name(schema, optional_old))
        variables = {"self": now, "oldSelf": then if has_old else now}
        holds = program.run(variables)
    except RuleError as error:
        shown = f'"{_kind(value)}"' if isinstance(value, dict | list) else json.dumps(value)
        return FieldError(
            path or "<nil>", f"Invalid value: {shown}: {error} evaluating rule: {described}", "FieldValueInvalid"
        )
    if holds is True:
        return None
    message = rule.get("message") or f"failed rule: {text}"
    if expression := rule.get("messageExpression"):
        try:
            made = compile_rule(expression.strip(), _type_name(schema, optional_old)).run(variables)
        except RuleError:
            made = None
        if isinstance(made, str) and made.strip() and "\n" not in made:
            message = made
    return _failure(rule.get("reason") or "FieldValueInvalid", at, value, message, bool(rule.get("fieldPath")))


def _type_name(schema: Schema, _optional: bool) -> str:
    return cel_type(schema)


def _kind(value: Value) -> str:
    return "object" if isinstance(value, dict) else "array"


def _field_path(text: str) -> str:
    """`.a['b.c'][0]` as it is shown in errors."""
    return re.sub(r"\['([^']*)'\]", r"[\1]", text)


def _failure(reason: str, path: str, value: Value, message: str, elsewhere: bool) -> FieldError:
    scalar = not isinstance(value, dict | list) and not elsewhere
    shown = f"{json.dumps(value, ensure_ascii=False)}: " if scalar else ""
    match reason:
        case "FieldValueForbidden":
            return FieldError(path, f"Forbidden: {message}", reason)
        case "FieldValueRequired":
            return FieldError(path, f"Required value: {message}", reason)
        case "FieldValueDuplicate":
            return FieldError(path, f"Duplicate value: {shown or message}".removesuffix(": "), reason)
    return FieldError(path, f"Invalid value: {shown}{message}", "FieldValueInvalid")
