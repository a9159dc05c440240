"""What a template prints: escaping is Jinja's, this shows what would be invisible."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from srlm_contract.text import visible


def finalize(value: Any) -> Any:
    """Applied to everything a template prints."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value
