"""Text that others wrote, made safe to look at on a terminal and on a page."""

from __future__ import annotations

import unicodedata

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
