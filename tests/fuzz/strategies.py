"""What others write, and write wrongly: JSON of any form, documents of ours with one place changed, damaged bytes."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: `make fuzz` sets it: other examples each time, and twenty times as many.
FUZZ = bool(os.environ.get("SRLM_TEST_FUZZ"))

#: Texts that parsers trip over: numbers that are none, other digits, half a surrogate pair, control characters.
ODD_TEXTS = (
    "", "0", "-1", "1e999", "NaN", "٣", "²", "1_000", "\ud800", "\x00", "\ufeff", "../..", "a/b", "\u2028", "{{", "{%",
    "9" * 5000, "é" * 300, "s3://", "hf://", "sha256:", "1/data", "x/data", "/data", "99/judge", "true", "null",
)  # fmt: skip
ODD_NUMBERS = (0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, 1e999, float("nan"))

texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=40))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(ODD_NUMBERS), st.integers(), st.floats(), texts)
#: Any JSON document, also such as other writers than Python's would not write (NaN).
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
#: Bytes that are no document at all.
noise = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        (b"", b"null", b"[]", b"{}", b"[" * 2_000, b'{"a":' * 2_000, b"\xff\xfe{}", b'{"a":1}x', b'"\\ud800"')
    ),
)


def examples(number: int) -> Callable[..., Any]:
    """The settings of a property: `number` examples, the same each time, unless `make fuzz` asks for more."""
    return settings(
        max_examples=number * (20 if FUZZ else 1),
        derandomize=not FUZZ,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document, itself included."""
    yield path
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in entries:
        yield from places(value, (*path, key))


@st.composite
def changed(draw: st.DrawFn, originals: list[Any]) -> Any:
    """One of the documents with one to three of its values replaced, removed, doubled or renamed."""
    document = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(document))))
        if not path:
            continue
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        match draw(st.sampled_from(("replace", "replace", "remove", "double", "rename"))):
            case "remove":
                del holder[path[-1]]
            case "rename" if isinstance(holder, dict):
                holder[draw(texts)] = holder.pop(path[-1])
            case "double":
                holder[path[-1]] = [holder[path[-1]]] * 2
            case _:
                holder[path[-1]] = draw(documents)
    return document


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the texts, cut off, with bytes changed, or with some in its middle."""
    data = bytearray(draw(st.sampled_from(originals)))
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    match draw(st.sampled_from(("cut", "flip", "insert", "join"))):
        case "cut":
            del data[place:]
        case "flip" if data:
            data[place] ^= draw(st.integers(1, 255))
        case "insert":
            data[place:place] = draw(noise)
        case _:
            data += draw(st.sampled_from(originals))
    return bytes(data)


def written(documents: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """As JSON in bytes, in the spellings that there are."""
    return st.builds(
        lambda document, ascii: json.dumps(document, ensure_ascii=ascii).encode("utf-8", "surrogatepass"),
        documents,
        st.booleans(),
    )


def bytes_like(originals: list[Any]) -> st.SearchStrategy[bytes]:
    """Anything that may stand where one of `originals` is expected."""
    whole = [json.dumps(document).encode() for document in originals]
    return st.one_of(written(changed(originals)), damaged(whole), written(documents), noise)
