"""Validates manifests against the schemas their makers publish: Kubernetes' own, and the Prometheus operator's."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

import yaml
from cloudcoil.models.prometheus_operator import v1 as monitoring
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import all_versions, schema_contents
from pydantic import ValidationError
from referencing import Registry, Resource

OLDEST = "1.30"
"""The oldest Kubernetes that we serve; the newest is the newest that the package brings."""

#: Every minor version from the oldest on.
VERSIONS = sorted(
    {".".join(v.split(".")[:2]) for v in all_versions() if int(v.split(".")[1]) >= int(OLDEST.split(".")[1])}
)
_MONITORING = {"PrometheusRule": monitoring.PrometheusRule, "ServiceMonitor": monitoring.ServiceMonitor}


class NoSchema(LookupError):
    """Not a kind of Kubernetes or of the Prometheus operator."""


def problems(manifest: Mapping[str, Any], version: str = OLDEST) -> list[str]:
    """What the API server of that version would refuse or drop, as `path: message`. Raises NoSchema."""
    if manifest["apiVersion"] == "monitoring.coreos.com/v1":
        return _monitoring_problems(manifest)
    errors = _validator(manifest["apiVersion"], manifest["kind"], version).iter_errors(dict(manifest))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]


@functools.cache
def _definitions(folder: str) -> Registry[Any]:
    resource = Resource.from_contents(schema_contents(f"{folder}/_definitions.json", ""))
    return cast("Registry[Any]", resource @ Registry())


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> Draft202012Validator:
    """As `kubernetes_validate.validate` makes it for every object anew, which takes a hundred times as long."""
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    group, _, rest = api_version.rpartition("/")
    name = f"{kind.lower()}-{group.split('.')[0]}-{rest}" if group else f"{kind.lower()}-{rest}"
    try:
        schema = schema_contents(f"{folder}/{name}.json", version)
    except FileNotFoundError:
        raise NoSchema(f"{api_version} {kind}") from None
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions(folder))


def _monitoring_problems(manifest: Mapping[str, Any]) -> list[str]:
    """Their models drop unknown fields as the API server does: what does not come back was dropped."""
    try:
        parsed = _MONITORING[manifest["kind"]].model_validate(dict(manifest))
    except KeyError:
        raise NoSchema(manifest["kind"]) from None
    except ValidationError as problem:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()]
    kept = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
    return _dropped(dict(manifest), kept, "")


def _dropped(given: Any, kept: Any, path: str) -> list[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        unknown = [f"{path}{name}: unknown" for name in given if name not in kept]
        known = (_dropped(given[name], kept[name], f"{path}{name}.") for name in given if name in kept)
        return unknown + [problem for found in known for problem in found]
    if isinstance(given, list) and isinstance(kept, list):
        pairs = enumerate(zip(given, kept, strict=True))
        return [problem for n, (a, b) in pairs for problem in _dropped(a, b, f"{path}{n}.")]
    return []


@functools.cache
def load(path: Any) -> list[dict[str, Any]]:
    """Documents of a YAML file."""
    text = path.read_text(encoding="utf-8")
    return [doc for doc in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if doc]
