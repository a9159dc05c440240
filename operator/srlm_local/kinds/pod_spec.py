"""Pod specs, in pods and in Job templates: their defaults, and what is wrong with one. Pure."""

from __future__ import annotations

from typing import Any

from srlm_local.store import names
from srlm_local.store.errors import barred, duplicate, required, wrong
from srlm_local.store.values import copy, parse_quantity
from srlm_operator.crd.schema import FieldError

Object = dict[str, Any]


def containers(spec: Object) -> list[Object]:
    """All containers, those that run first at the front."""
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def fill(target: Object, defaults: Object) -> None:
    for key, value in defaults.items():
        target.setdefault(key, copy(value))


def default_pod_spec(spec: Object) -> None:
    """What the server fills in. Changes `spec` in place."""
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
    }
    fill(spec, defaults)
    if account := spec.get("serviceAccountName"):
        spec["serviceAccount"] = account
    for container in containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or []:
        if not [key for key in volume if key != "name"]:
            volume["emptyDir"] = {}
        for kind in ("configMap", "secret", "projected", "downwardAPI"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)


def _default_container(container: Object) -> None:
    image = str(container.get("image", "")).rpartition("/")[2]
    latest = "@" not in image and image.partition(":")[2] in ("", "latest")
    defaults = {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always" if latest else "IfNotPresent",
    }
    fill(container, defaults)
    for key in ("limits", "requests"):
        if amounts := container["resources"].get(key):
            container["resources"][key] = {name: str(amount) for name, amount in amounts.items()}
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for env in container.get("env") or []:
        if field := (env.get("valueFrom") or {}).get("fieldRef"):
            field.setdefault("apiVersion", "v1")


def validate_pod_spec(spec: Object, path: str) -> list[FieldError]:
    """Containers, volumes, mounts, resources and names of a pod spec."""
    found: list[FieldError] = []
    volumes = _named(spec.get("volumes") or [], f"{path}.volumes", found)
    for i, volume in enumerate(spec.get("volumes") or []):
        found += _volume(volume, f"{path}.volumes[{i}]")
    if not spec.get("containers"):
        found.append(required(f"{path}.containers"))
    for group in ("initContainers", "containers"):
        _named(spec.get(group) or [], f"{path}.{group}", found)
        for i, container in enumerate(spec.get(group) or []):
            found += _container(container, f"{path}.{group}[{i}]", volumes)
    return found


def _named(items: list[Object], path: str, found: list[FieldError]) -> set[str]:
    """The names of containers or volumes: DNS labels, each once."""
    seen: set[str] = set()
    for i, item in enumerate(items):
        name, at = item.get("name", ""), f"{path}[{i}].name"
        if not name:
            found.append(required(at))
        else:
            found += [wrong(at, name, why) for why in names.dns_label(name)]
        if name in seen:
            found.append(duplicate(at, name))
        seen.add(name)
    return seen


def _container(container: Object, path: str, volumes: set[str]) -> list[FieldError]:
    found = [] if container.get("image") else [required(f"{path}.image")]
    mounts: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or []):
        at, where = f"{path}.volumeMounts[{i}]", mount.get("mountPath", "")
        if mount.get("name") not in volumes:
            found.append(FieldError(f"{at}.name", f'Not found: "{mount.get("name", "")}"', "FieldValueNotFound"))
        if not where:
            found.append(required(f"{at}.mountPath"))
        elif where in mounts:
            found.append(wrong(f"{at}.mountPath", where, "must be unique"))
        mounts.add(where)
    found += [
        required(f"{path}.env[{i}].name") for i, env in enumerate(container.get("env") or []) if not env.get("name")
    ]
    return found + _resources(container.get("resources") or {}, f"{path}.resources")


def _resources(resources: Object, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for key, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            number, at = parse_quantity(amount), f"{path}.{key}[{name}]"
            if number is None or number < 0:
                found.append(wrong(at, str(amount), "must be a quantity that is greater than or equal to 0"))
    for name, amount in requests.items():
        have, most = parse_quantity(amount), parse_quantity(limits[name]) if name in limits else None
        if have is not None and most is not None and have > most:
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            found.append(wrong(f"{path}.requests", str(amount), why))
    return found


def _volume(volume: Object, path: str) -> list[FieldError]:
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    found = [] if sources else [required(path, "must specify a volume type")]
    found += [barred(f"{path}.{extra}", "may not specify more than 1 volume type") for extra in sources[1:]]
    needed = {"secret": "secretName", "persistentVolumeClaim": "claimName", "configMap": "name", "hostPath": "path"}
    for kind, key in needed.items():
        if isinstance(volume.get(kind), dict) and not volume[kind].get(key):
            found.append(required(f"{path}.{kind}.{key}"))
    return found


def validate_pod_update(new: Object, old: Object) -> list[FieldError]:
    """Only images may change."""
    after, before = copy(new["spec"]), copy(old["spec"])
    for container in [*containers(after), *containers(before)]:
        container.pop("image", None)
    return [] if after == before else [barred("spec", "pod updates may not change fields other than images")]
