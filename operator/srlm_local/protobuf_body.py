"""Bodies that kubectl sends as protobuf: a few commands encode built-in kinds so, whatever the server offers.

    kubectl create namespace|configmap|secret|serviceaccount|token, kubectl auth can-i|whoami, kubectl drain

Only the kinds of these commands are read; field numbers are those of the generated.proto files of Kubernetes,
which never change. Anything else gets 415 with the advice to send JSON (`kubectl apply -f` does).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from srlm_local.errors import ApiError

MAGIC = b"k8s\x00"


@dataclass(frozen=True)
class Message:
    """Fields of a message: number -> (JSON name, kind). Kinds: str, int, bool, bytes, time, map, bytemap, or a Message.

    A leading `*` marks repeated fields.
    """

    fields: dict[int, tuple[str, Any]] = field(default_factory=dict)


_META = Message(
    {
        1: ("name", "str"),
        2: ("generateName", "str"),
        3: ("namespace", "str"),
        5: ("uid", "str"),
        6: ("resourceVersion", "str"),
        11: ("labels", "map"),
        12: ("annotations", "map"),
        14: ("finalizers", "*str"),
    }
)
_RESOURCE = Message(
    dict(
        enumerate([(n, "str") for n in ("namespace", "verb", "group", "version", "resource", "subresource", "name")], 1)
    )
)
_PATH = Message({1: ("path", "str"), 2: ("verb", "str")})
_PRECONDITIONS = Message({1: ("uid", "str"), 2: ("resourceVersion", "str")})
_DELETE = Message(
    {
        1: ("gracePeriodSeconds", "int"),
        2: ("preconditions", _PRECONDITIONS),
        3: ("orphanDependents", "bool"),
        4: ("propagationPolicy", "str"),
        5: ("dryRun", "*str"),
    }
)
_BOUND = Message({1: ("kind", "str"), 2: ("apiVersion", "str"), 3: ("name", "str"), 4: ("uID", "str")})
_NAME = Message({1: ("name", "str")})


def _object(*more: tuple[int, str, Any]) -> Message:
    return Message({1: ("metadata", _META), **{number: (name, kind) for number, name, kind in more}})


_KINDS: dict[str, Message] = {
    "ConfigMap": _object((2, "data", "map"), (3, "binaryData", "bytemap"), (4, "immutable", "bool")),
    "DeleteOptions": _DELETE,
    "Eviction": _object((2, "deleteOptions", _DELETE)),
    "Namespace": _object(),
    "Secret": _object((2, "data", "bytemap"), (3, "type", "str"), (4, "stringData", "map"), (5, "immutable", "bool")),
    "SelfSubjectAccessReview": _object(
        (2, "spec", Message({1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}))
    ),
    "SelfSubjectReview": _object(),
    "SelfSubjectRulesReview": _object((2, "spec", Message({1: ("namespace", "str")}))),
    "ServiceAccount": _object((3, "imagePullSecrets", ("*", _NAME)), (4, "automountServiceAccountToken", "bool")),
    "TokenRequest": _object(
        (2, "spec", Message({1: ("audiences", "*str"), 3: ("boundObjectRef", _BOUND), 4: ("expirationSeconds", "int")}))
    ),
}
_TYPE_META = Message({1: ("apiVersion", "str"), 2: ("kind", "str")})
_UNKNOWN = Message({1: ("typeMeta", _TYPE_META), 2: ("raw", "raw")})


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """The object in a body as JSON. Raises 400 for what is damaged, 415 for kinds that are not read."""
    if not body.startswith(MAGIC):
        raise ApiError(400, "BadRequest", "the body is no Kubernetes protobuf: it does not begin with k8s\\x00")
    try:
        envelope = _read(_UNKNOWN, body[len(MAGIC) :])
        kind = envelope.get("typeMeta", {}).get("kind", "")
        known = _KINDS.get(kind)
        if known is None:
            raise ApiError(
                415,
                "UnsupportedMediaType",
                f"a {kind} as protobuf is not read by the one-machine cluster: send it as JSON, for instance by "
                "`kubectl create ... --dry-run=client -o yaml | kubectl apply -f -`",
            )
        return {**envelope["typeMeta"], **_read(known, envelope.get("raw", b""))}
    except (IndexError, UnicodeDecodeError) as error:
        raise ApiError(400, "BadRequest", f"the protobuf body is damaged: {error}") from None


def _read(message: Message, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        raw: Any
        if wire == 0:
            raw, position = _varint(data, position)
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise IndexError(f"field {number} is cut short")
            raw, position = data[position : position + length], position + length
        else:
            raise IndexError(f"field {number} has wire type {wire}")
        if number in message.fields:
            _put(found, *message.fields[number], raw)
    return found


def _put(found: dict[str, Any], name: str, kind: Any, raw: Any) -> None:
    if isinstance(kind, Message):
        found[name] = _read(kind, raw)
    elif isinstance(kind, tuple):
        found.setdefault(name, []).append(_read(kind[1], raw))
    elif kind in ("map", "bytemap"):
        entry = _read(Message({1: ("key", "str"), 2: ("value", "str" if kind == "map" else "bytes")}), raw)
        found.setdefault(name, {})[entry.get("key", "")] = entry.get("value", "")
    elif kind == "*str":
        found.setdefault(name, []).append(raw.decode())
    else:
        value = _scalar(kind, raw)
        # Strings are always on the wire, set or not.
        if value != "":
            found[name] = value


def _scalar(kind: str, raw: Any) -> Any:
    match kind:
        case "str":
            return raw.decode()
        case "bytes":
            return base64.b64encode(raw).decode()
        case "bool":
            return bool(raw)
        case "int":
            return raw - (1 << 64) if raw >> 63 else raw
    return raw


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
