"""Keys, digests and seeds: pure hashing, the ground on which reuse and lineage stand.

A stage's key names what it computes: stage, revision, the parameters that change the result, the content
digests of its inputs and the seed. Two runs with the same key mean the same artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_LENGTH = 24


def canonical_json(value: Any) -> bytes:
    """One spelling per value: sorted keys, no blanks, UTF-8, integral floats as integers."""
    return json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def sha256(data: bytes) -> str:
    """`sha256:<64 hex digits>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def artifact_key(
    stage: str,
    revision: int,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
) -> str:
    """Key of an artifact: 24 hex digits.

    parameters: those that change the result, fields at their default left out.
    inputs: content digest (or pinned revision of an outside source) by input name.
    """
    body = {"stage": stage, "revision": revision, "parameters": parameters, "inputs": inputs, "seed": seed}
    return hashlib.sha256(canonical_json(body)).hexdigest()[:KEY_LENGTH]


def row_id(*parts: str) -> str:
    """Content identity of a row: 16 hex digits over its parts."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def row_seed(seed: int, stage: str, iteration: int, round: int, row: str, sample: int) -> int:
    """Seed of one sample of one row, 0 .. 2^31 - 1; independent of shards, batches and row order."""
    text = f"{seed}\x1f{stage}\x1f{iteration}\x1f{round}\x1f{row}\x1f{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % (2**31)


def shard_of(row: str, shards: int) -> int:
    """The shard a row belongs to: its content identity modulo the number of shards."""
    return int(row, 16) % shards
