"""What is to be known of a field beside its type: marks in its annotation, which no schema shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PreflightIgnores:
    """The field changes neither what is computed nor what preflight looks at: changed, preflight is not asked again."""
