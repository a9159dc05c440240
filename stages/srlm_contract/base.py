"""Base class and bounded types shared by every contract model.

Models are frozen, refuse unknown fields and spell their fields in camelCase on the wire. Types are
strict: the string "4" is not the number 4, as the Kubernetes API server sees it too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel

from .docs import field_docs

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

#: A Kubernetes object name (RFC 1123 subdomain).
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
#: A key inside a Secret or ConfigMap.
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Uri = Annotated[str, Field(min_length=1, max_length=1024)]
Text = Annotated[str, Field(max_length=4096)]
ShortText = Annotated[str, Field(max_length=253)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=10_000_000)]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Contract(BaseModel):
    """Frozen, strict, camelCase on the wire, no unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """With the docstrings of fields as their descriptions."""
        found = handler(schema)
        properties = handler.resolve_ref_schema(found)["properties"]
        for name, text in field_docs(cls).items():
            properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return found

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read plain JSON data (dicts, lists, numbers). Raises pydantic.ValidationError."""
        return cls.model_validate_json(json.dumps(_integral(value)))

    def wire(self, *, defaults: bool = True) -> dict[str, Any]:
        """Plain JSON data, camelCase, without nulls; `defaults=False` leaves out fields at their default."""
        data: dict[str, Any] = self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude_defaults=not defaults
        )
        return data


def _integral(value: Any) -> Any:
    """JSON has one kind of number: 1e3 is a valid count, as API servers see it too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    return value
