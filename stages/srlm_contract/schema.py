"""Structural schemas of CustomResourceDefinitions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One problem. path: `spec.steps[0].name`; reason: FieldValueInvalid, FieldValueRequired, ..."""

    path: str
    message: str
    reason: str
