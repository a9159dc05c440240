"""Bodies that kubectl and Helm send as protobuf whatever the server offers: `kubectl create secret`, for one.

Only these kinds are read, by the field numbers of Kubernetes' generated.proto, which never change.
"""

from __future__ import annotations

import base64
from typing import Any

from srlm_local.store.errors import bad_request, unsupported_media_type

MAGIC = b"k8s\x00"
Fields = dict[int, tuple[str, Any]]
"""Number -> (JSON name, what it is): str, map (of strings), bytemap (shown in base64), or the fields of a message."""

_META: Fields = {1: ("name", "str"), 3: ("namespace", "str"), 11: ("labels", "map"), 12: ("annotations", "map")}
_POLICY = "propagationPolicy"
_KINDS: dict[str, Fields] = {
    "ConfigMap": {1: ("metadata", _META), 2: ("data", "map"), 3: ("binaryData", "bytemap")},
    "DeleteOptions": {2: ("preconditions", {1: ("uid", "str"), 2: ("resourceVersion", "str")}), 4: (_POLICY, "str")},
    "Namespace": {1: ("metadata", _META)},
    "Secret": {1: ("metadata", _META), 2: ("data", "bytemap"), 3: ("type", "str"), 4: ("stringData", "map")},
}
_ENVELOPE: Fields = {1: ("type", {1: ("apiVersion", "str"), 2: ("kind", "str")}), 2: ("raw", "raw")}


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises 400 for what is damaged, 415 for kinds that are not read."""
    try:
        envelope = _read(_ENVELOPE, body.removeprefix(MAGIC))
        kind = envelope["type"]["kind"]
        if kind not in _KINDS:
            raise unsupported_media_type(
                f"a {kind} as protobuf is not read here: send JSON, for instance by "
                "`kubectl create ... --dry-run=client -o yaml | kubectl apply -f -`"
            )
        return {**envelope["type"], **_read(_KINDS[kind], envelope.get("raw", b""))}
    except (LookupError, UnicodeDecodeError) as error:
        raise bad_request(f"the protobuf body is damaged: {error}") from None


def _read(known: Fields, data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, raw in _fields(data):
        name, kind = known.get(number, ("", None))
        if isinstance(kind, dict):
            found[name] = _read(kind, raw)
        elif kind in ("map", "bytemap"):
            entry = dict(_fields(raw))
            value = entry.get(2, b"")
            shown = value.decode() if kind == "map" else base64.b64encode(value).decode()
            found.setdefault(name, {})[entry[1].decode()] = shown
        elif kind is not None:
            found[name] = raw if kind == "raw" else raw.decode()
    return found


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """(number, content) of the fields that have a length; numbers, which these kinds do not need, are left out."""
    found, position = [], 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, position = _varint(data, position)
        if tag & 7 == 2:
            found.append((tag >> 3, data[position : position + number]))
            position += number
    if position > len(data):
        raise IndexError("it is cut short")
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if byte < 128:
            return value, position
