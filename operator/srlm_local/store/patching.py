"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386)."""

from __future__ import annotations

from typing import Any

import jsonpatch

from srlm_local.store.values import copy
from srlm_operator.jobs.strategic import PatchFailed

Value = Any


def merge_patch(target: Value, patch: Value) -> Value:
    """RFC 7386. Neither argument is changed."""
    if not isinstance(patch, dict):
        return copy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Value, operations: list[dict[str, Value]]) -> Value:
    """RFC 6902. Raises PatchFailed if an operation does not apply or a test fails."""
    try:
        return jsonpatch.apply_patch(target, operations)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, KeyError) as error:
        raise PatchFailed(str(error)) from error
