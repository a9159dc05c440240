"""References to other objects, and what the sections share: rules for the API server, sources, free-form fields."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, JsonValue

from srlm_contract.base import Contract, DataKey, ObjectName


def rules(*triples: tuple[str, str, str]) -> ConfigDict:
    """CEL rules of an object, as (field at fault or "", expression, message that says what to do)."""
    found: list[JsonValue] = []
    for field, rule, message in triples:
        entry: dict[str, JsonValue] = {"rule": rule, "message": message}
        found.append(entry | {"fieldPath": field} if field else entry)
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": found})


#: Where models and data may come from; file:// works on the one-machine cluster only.
SOURCE_PATTERN = "^(hf://[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?(@.+)?|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+|file:///.+)$"


SOURCE_HELP = (
    "must be hf://owner/name[@revision], s3://bucket/prefix or, on the one-machine cluster, file:///absolute/path"
)


def source_rule(field: str, path: str, when: str = "") -> tuple[str, str, str]:
    """The rule that `field` (its full path is `path`) names a model or data source."""
    return (f".{field}", f"{when}self.{field}.matches('{SOURCE_PATTERN}')", f"{path} {SOURCE_HELP}")


#: Marks a free-form object (the API server keeps its unknown fields).
FREE_FORM: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class SecretKeyRef(Contract):
    """One key of a Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey = "token"
    """Key inside the Secret."""


class SecretRef(Contract):
    """A Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""


class ConfigMapKeyRef(Contract):
    """One key of a ConfigMap in the run's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey
    """Key inside the ConfigMap."""
