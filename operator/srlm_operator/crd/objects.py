"""Whether an API server would take an object: the schema first, then its CEL rules."""

from __future__ import annotations

from collections.abc import Sequence

from srlm_operator.crd.cel import evaluate_rules
from srlm_operator.crd.schema import BLOCKING, NOT_CHECKED, FieldError, Schema, Value, structural_problems


def validate(schema: Schema, obj: Value, old: Value = None, before: Sequence[FieldError] = ()) -> list[FieldError]:
    """Everything that is wrong with `obj`; on an update (`old` given) also transition rules.

    Fields that did not change are not held against an update, as in a real API server. `before` are problems
    found elsewhere (metadata); like those found here they can keep the CEL rules from being evaluated.
    """
    found = structural_problems(schema, obj, old)
    if any(error.reason in BLOCKING for error in (*before, *found)):
        return [*found, NOT_CHECKED]
    return [*found, *evaluate_rules(schema, obj, old)]
