"""What happens to fields that a kind does not have: warned about, refused or ignored."""

from __future__ import annotations

from typing import Any

from srlm_local.builtin_decode import undecodable
from srlm_local.request import Request
from srlm_local.resources import ResourceType

Object = dict[str, Any]


def unknown_fields(
    rt: ResourceType, paths: list[str], request: Request, patched: Object | None, obj: Object, what: str = "unknown"
) -> None:
    """Warns about fields or refuses them, as the request's fieldValidation says."""
    if not paths or request.validation == "Ignore":
        return
    problems = [f'{what} field "{path}"' for path in paths]
    if request.validation == "Warn":
        for problem in problems:
            request.warn(problem)
        return
    raise undecodable(rt, f"strict decoding error: {', '.join(problems)}", obj, patched)
