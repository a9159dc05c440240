"""What is wrong with a pod spec, and what may change in an existing pod."""

from __future__ import annotations

from typing import Any

from srlm_contract.schema import FieldError
from srlm_local import names
from srlm_local.jsontools import copy, go_json
from srlm_local.quantity import parse_quantity

Object = dict[str, Any]
_UPDATE_MESSAGE = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def required(path: str, why: str = "") -> FieldError:
    return FieldError(path, f"Required value: {why}" if why else "Required value", "FieldValueRequired")


def invalid(path: str, value: Any, why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {go_json(value)}: {why}", "FieldValueInvalid")


def unsupported(path: str, value: Any, supported: list[str]) -> FieldError:
    listed = ", ".join(f'"{word}"' for word in supported)
    return FieldError(
        path, f"Unsupported value: {go_json(value)}: supported values: {listed}", "FieldValueNotSupported"
    )


def forbidden(path: str, why: str) -> FieldError:
    return FieldError(path, f"Forbidden: {why}", "FieldValueForbidden")


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(path, f"Duplicate value: {go_json(value)}", "FieldValueDuplicate")


def not_found(path: str, value: Any) -> FieldError:
    return FieldError(path, f"Not found: {go_json(value)}", "FieldValueNotFound")


def validate_pod_spec(spec: Object, path: str) -> list[FieldError]:
    """Containers, volumes, mounts and the enumerations of a pod spec."""
    found: list[FieldError] = []
    volumes: set[str] = set()
    for i, volume in enumerate(spec.get("volumes") or []):
        found += _volume(volume, f"{path}.volumes[{i}]", volumes)
    containers = spec.get("containers") or []
    if not containers:
        found.append(required(f"{path}.containers"))
    seen: set[str] = set()
    for group in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(group) or []):
            found += _container(container, f"{path}.{group}[{i}]", volumes, seen)
    for key, supported in (
        ("restartPolicy", ["Always", "OnFailure", "Never"]),
        ("dnsPolicy", ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    ):
        if spec.get(key) not in supported:
            found.append(unsupported(f"{path}.{key}", spec.get(key, ""), supported))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2147483647:
        found.append(invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    for key in ("hostname", "subdomain"):
        if value := spec.get(key):
            found += [invalid(f"{path}.{key}", value, why) for why in names.dns_label(value)]
    for key in ("serviceAccountName", "nodeName", "priorityClassName"):
        if value := spec.get(key):
            found += [invalid(f"{path}.{key}", value, why) for why in names.subdomain(value)]
    for key, value in (spec.get("nodeSelector") or {}).items():
        found += [invalid(f"{path}.nodeSelector", key, why) for why in names.qualified_name(key)]
        found += [invalid(f"{path}.nodeSelector", value, why) for why in names.label_value(str(value))]
    return found


def _container(container: Object, path: str, volumes: set[str], seen: set[str]) -> list[FieldError]:
    found: list[FieldError] = []
    name = container.get("name", "")
    if not name:
        found.append(required(f"{path}.name"))
    else:
        found += [invalid(f"{path}.name", name, why) for why in names.dns_label(name)]
        if name in seen:
            found.append(duplicate(f"{path}.name", name))
        seen.add(name)
    if not container.get("image"):
        found.append(required(f"{path}.image"))
    mounts: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or []):
        at = f"{path}.volumeMounts[{i}]"
        if not mount.get("name"):
            found.append(required(f"{at}.name"))
        elif mount["name"] not in volumes:
            found.append(not_found(f"{at}.name", mount["name"]))
        if not mount.get("mountPath"):
            found.append(required(f"{at}.mountPath"))
        elif mount["mountPath"] in mounts:
            found.append(invalid(f"{at}.mountPath", mount["mountPath"], "must be unique"))
        mounts.add(mount.get("mountPath", ""))
    for i, env in enumerate(container.get("env") or []):
        at = f"{path}.env[{i}]"
        if not env.get("name"):
            found.append(required(f"{at}.name"))
        if env.get("value") and env.get("valueFrom"):
            found.append(invalid(f"{at}.valueFrom", "", "may not be specified when `value` is not empty"))
    found += _resources(container.get("resources") or {}, f"{path}.resources")
    if container.get("imagePullPolicy") not in ("Always", "IfNotPresent", "Never"):
        found.append(
            unsupported(
                f"{path}.imagePullPolicy", container.get("imagePullPolicy", ""), ["Always", "IfNotPresent", "Never"]
            )
        )
    return found


def _resources(resources: Object, path: str) -> list[FieldError]:
    found: list[FieldError] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for key, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if parse_quantity(amount) is not None and parse_quantity(amount) < 0:  # type: ignore[operator]
                found.append(invalid(f"{path}.{key}[{name}]", str(amount), "must be greater than or equal to 0"))
            elif "/" in name and (number := parse_quantity(amount)) is not None and number % 1:
                found.append(invalid(f"{path}.{key}[{name}]", f"{int(number * 1000)}m", "must be an integer"))
    for name, amount in requests.items():
        limit = limits.get(name)
        have, most = parse_quantity(amount), parse_quantity(limit) if limit is not None else None
        extended = "/" in name
        if most is not None and have is not None and (have > most or (extended and have != most)):
            why = (
                f"must be equal to {name} limit of {limit}"
                if extended
                else f"must be less than or equal to {name} limit of {limit}"
            )
            found.append(invalid(f"{path}.requests", str(amount), why))
        if extended and limit is None:
            found.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
    return found


def _volume(volume: Object, path: str, seen: set[str]) -> list[FieldError]:
    found: list[FieldError] = []
    name = volume.get("name", "")
    if not name:
        found.append(required(f"{path}.name"))
    else:
        found += [invalid(f"{path}.name", name, why) for why in names.dns_label(name)]
        if name in seen:
            found.append(duplicate(f"{path}.name", name))
        seen.add(name)
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    if not sources:
        found.append(required(path, "must specify a volume type"))
    for extra in sources[1:]:
        found.append(forbidden(f"{path}.{extra}", "may not specify more than 1 volume type"))
    for kind, key in (
        ("secret", "secretName"),
        ("persistentVolumeClaim", "claimName"),
        ("configMap", "name"),
        ("hostPath", "path"),
    ):
        source = volume.get(kind)
        if isinstance(source, dict) and not source.get(key):
            found.append(required(f"{path}.{kind}.{key}"))
    if isinstance(source := volume.get("ephemeral"), dict):
        found += _ephemeral(source, f"{path}.ephemeral.volumeClaimTemplate")
    return found


def _ephemeral(source: Object, path: str) -> list[FieldError]:
    """The claim that is made for a pod."""
    template = source.get("volumeClaimTemplate")
    if not isinstance(template, dict):
        return [required(path)]
    claim = template.get("spec") or {}
    found = []
    if not claim.get("accessModes"):
        found.append(required(f"{path}.spec.accessModes", "at least 1 access mode is required"))
    if not ((claim.get("resources") or {}).get("requests") or {}).get("storage"):
        found.append(required(f"{path}.spec.resources[storage]"))
    return found


def validate_pod_update(new: Object, old: Object) -> list[FieldError]:
    """Only images, the deadline and new tolerations may change."""
    munged = copy(new["spec"])
    have = old["spec"]
    for group in ("initContainers", "containers"):
        before, after = have.get(group) or [], munged.get(group) or []
        if len(before) == len(after):
            for old_container, container in zip(before, after, strict=True):
                container["image"] = old_container.get("image")
    found: list[FieldError] = []
    if "activeDeadlineSeconds" in munged:
        before, after = have.get("activeDeadlineSeconds"), munged["activeDeadlineSeconds"]
        if before is not None and after > before:
            found.append(invalid("spec.activeDeadlineSeconds", after, "must be less than or equal to previous value"))
        elif not 1 <= after <= 2147483647:
            found.append(invalid("spec.activeDeadlineSeconds", after, "must be between 1 and 2147483647, inclusive"))
    elif have.get("activeDeadlineSeconds") is not None:
        found.append(
            invalid("spec.activeDeadlineSeconds", None, "must not update from a positive integer to nil value")
        )
    for key in ("activeDeadlineSeconds", "tolerations"):
        if key == "tolerations" and not all(t in (munged.get(key) or []) for t in have.get(key) or []):
            found.append(
                forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
            )
        if key in have:
            munged[key] = have[key]
        else:
            munged.pop(key, None)
    if (have.get("terminationGracePeriodSeconds") or 0) < 0 and munged.get("terminationGracePeriodSeconds") == 1:
        munged["terminationGracePeriodSeconds"] = have["terminationGracePeriodSeconds"]
    if munged != have:
        changed = sorted(k for k in {*munged, *have} if munged.get(k) != have.get(k))
        found.append(FieldError("spec", f"{_UPDATE_MESSAGE}\nchanged: {', '.join(changed)}", "FieldValueForbidden"))
    return found
