"""Text that others wrote, made safe to look at: escaping is Jinja's, this shows what would be invisible."""

from __future__ import annotations

import unicodedata
from typing import Any

from markupsafe import Markup

#: Format characters that writing systems and emoji need.
_NEEDED = frozenset("\u200c\u200d")
_KEPT = frozenset("\n\t") | _NEEDED


def visible(text: str) -> str:
    """Control, bidirectional and other invisible characters as `⟨U+202E⟩`: nothing can hide or turn text around."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(
        c if c in _KEPT or (unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn") and c not in "\u2028\u2029")
        else f"⟨U+{ord(c):04X}⟩"
        for c in text
    )  # fmt: skip


def finalize(value: Any) -> Any:
    """Applied to everything a template prints."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return value
