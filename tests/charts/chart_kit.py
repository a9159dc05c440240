"""Renders the chart with Helm's own code, offline."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "self-rewarding-operator"
VALUES_FILES = tuple(sorted(path.stem.removesuffix("-values") for path in (CHART / "ci").glob("*-values.yaml")))
RELEASE, NAMESPACE = "release", "srlm-system"


def values_of(name: str) -> Object:
    """One of the values files of ci/."""
    return yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text(encoding="utf-8")) or {}


def defaults() -> Object:
    """values.yaml."""
    found: Object = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    return found


def render(values: Mapping[str, Any] | None = None, namespace: str = NAMESPACE) -> dict[str, str]:
    """Rendered text by file name of the template. Raises helm.HelmError as `helm template` fails."""
    return dict(_render(json.dumps(values or {}), namespace))


@functools.cache
def _render(values: str, namespace: str) -> dict[str, str]:
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(json.loads(values)))
        rendered = chart.render(json.loads(values), name=RELEASE, namespace=namespace)
    return {Path(path).name: text for path, text in rendered.items()}


def manifests(values: Mapping[str, Any] | None = None, namespace: str = NAMESPACE) -> list[Object]:
    """All objects of a rendering, in the order of the files."""
    texts = {name: text for name, text in render(values, namespace).items() if name != "NOTES.txt"}
    return [obj for name in sorted(texts) for obj in parse(texts[name]) if obj]


def parse(text: str) -> Iterator[Object]:
    """Documents of a YAML text, by libyaml where there is one: the definition of runs is long."""
    yield from yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [obj for obj in objects if obj["kind"] == kind]


def pod_of(objects: list[Object], program: str = "operator") -> Object:
    """Pod spec of the operator, or of the page of runs (`ui`)."""
    (deployment,) = (d for d in of_kind(objects, "Deployment") if containers(d) == [program])
    found: Object = deployment["spec"]["template"]["spec"]
    return found


def containers(deployment: Object) -> list[str]:
    return [container["name"] for container in deployment["spec"]["template"]["spec"]["containers"]]


def environment(objects: list[Object]) -> dict[str, str]:
    """Plain environment variables of the operator."""
    (container,) = pod_of(objects)["containers"]
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


def with_value(path: str, value: Any) -> Object:
    """Values with one set: `stagePods.proxy.httpProxy`."""
    found: Object = {}
    place = found
    *parents, last = path.split(".")
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = copy.deepcopy(value)
    return found


#: Values that the README shows in one row, although they are objects.
WHOLE = {"podSecurityContext", "securityContext", "requests", "limits", "labels", "livenessProbe", "readinessProbe"}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and default as JSON of every value."""
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict) and value and name not in WHOLE:
            yield from leaves(value, path)
        else:
            yield path, json.dumps(value)
