"""Pod Security Admission: the levels `baseline` and `restricted`, by the labels of the namespace.

Checked: host namespaces, privileged, capabilities, hostPath and other volume types, host ports, privilege
escalation, runAsNonRoot, runAsUser, seccomp. Not checked, as nothing here could set them to any effect: AppArmor,
SELinux, /proc mounts, sysctls, Windows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from srlm_contract.schema import FieldError
from srlm_local.errors import forbidden
from srlm_local.request import Request
from srlm_local.resources import ResourceType

if TYPE_CHECKING:
    from srlm_local.cluster import Cluster

Object = dict[str, Any]
Problem = tuple[str, str]
"""(what, detail) of a violation."""
PREFIX = "pod-security.kubernetes.io/"
LEVELS = ("privileged", "baseline", "restricted")
_TEMPLATES = {"jobs.batch", "deployments.apps", "cronjobs.batch"}
_DEFAULT_CAPABILITIES = {
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
}
_ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def violations(spec: Object, level: str) -> list[Problem]:
    """What in a pod spec a level does not allow, in the real server's order."""
    if level == "privileged":
        return []
    checks = [_host_namespaces, _privileged]
    if level == "restricted":
        checks += [
            _escalation,
            _capabilities_dropped,
            _host_ports,
            _volume_types,
            _run_as_non_root,
            _run_as_user,
            _seccomp_set,
        ]
    else:
        checks += [_capabilities_added, _host_paths, _host_ports, _seccomp_unconfined]
    return [problem for check in checks if (problem := check(spec)) is not None]


def check(cluster: Cluster, rt: ResourceType, obj: Object, old: Object | None, request: Request) -> None:
    """Refuses pods (403) and warns about templates, as the namespace says."""
    if rt.name != "pods" and rt.name not in _TEMPLATES:
        return
    spec = obj["spec"] if rt.name == "pods" else _template(obj)
    if old is not None and spec == (old["spec"] if rt.name == "pods" else _template(old)):
        return
    namespace = cluster.storage.get("namespaces", "", obj["metadata"]["namespace"])
    labels = (namespace or {"metadata": {}})["metadata"].get("labels") or {}
    if rt.name == "pods":
        level = labels.get(f"{PREFIX}enforce", "privileged")
        if found := violations(spec, level):
            why = f'violates PodSecurity "{level}:{_version(labels, "enforce")}": {_listed(found)}'
            raise forbidden("pods", "", obj["metadata"].get("name", ""), why)
    level = labels.get(f"{PREFIX}warn", "privileged")
    if found := violations(spec, level):
        request.warn(f'would violate PodSecurity "{level}:{_version(labels, "warn")}": {_listed(found)}')


def check_namespace(obj: Object, old: Object | None) -> list[FieldError]:
    """Labels must name a level that exists."""
    labels = obj["metadata"].get("labels") or {}
    return [
        FieldError(
            f"metadata.labels[{PREFIX}{mode}]",
            f'Invalid value: "{labels[PREFIX + mode]}": must be one of {", ".join(LEVELS)}',
            "FieldValueInvalid",
        )
        for mode in ("enforce", "audit", "warn")
        if f"{PREFIX}{mode}" in labels and labels[f"{PREFIX}{mode}"] not in LEVELS
    ]


def warn_about_existing(cluster: Cluster, namespace: Object, old: Object | None, request: Request) -> None:
    """A stricter level does not end pods that are there, but it names them."""
    key = f"{PREFIX}enforce"
    labels = namespace["metadata"].get("labels") or {}
    before = ((old or {"metadata": {}})["metadata"].get("labels") or {}).get(key, "privileged")
    level = labels.get(key, "privileged")
    if old is None or LEVELS.index(level) <= LEVELS.index(before):
        return
    name = namespace["metadata"]["name"]
    groups: dict[str, list[str]] = {}
    for pod in cluster.storage.list("pods", name):
        if found := violations(pod["spec"], level):
            groups.setdefault(", ".join(what for what, _ in found), []).append(pod["metadata"]["name"])
    if groups:
        request.warn(
            f'existing pods in namespace "{name}" violate the new PodSecurity enforce level '
            f'"{level}:{_version(labels, "enforce")}"'
        )
    for what, pods in groups.items():
        more = f" (and {len(pods) - 1} other pod{'s' if len(pods) > 2 else ''})" if len(pods) > 1 else ""
        request.warn(f"{pods[0]}{more}: {what}")


def _template(obj: Object) -> Object:
    spec = obj["spec"]
    if "jobTemplate" in spec:
        spec = spec["jobTemplate"].get("spec") or {}
    found: Object = (spec.get("template") or {}).get("spec") or {}
    return found


def _version(labels: dict[str, str], mode: str) -> str:
    return labels.get(f"{PREFIX}{mode}-version", "latest")


def _listed(found: list[Problem]) -> str:
    return ", ".join(f"{what} ({detail})" if detail else what for what, detail in found)


def _containers(spec: Object) -> list[Object]:
    return [c for group in ("initContainers", "containers") for c in spec.get(group) or []]


def _bad(spec: Object, wrong: Callable[[Object], bool]) -> list[str]:
    return [c["name"] for c in _containers(spec) if wrong(c.get("securityContext") or {})]


def _plural(word: str, names: list[str]) -> str:
    return f"{word}{'s' if len(names) > 1 else ''} " + ", ".join(f'"{name}"' for name in names)


def _host_namespaces(spec: Object) -> Problem | None:
    found = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return ("host namespaces", ", ".join(found)) if found else None


def _privileged(spec: Object) -> Problem | None:
    names = _bad(spec, lambda c: bool(c.get("privileged")))
    return (
        ("privileged", f"{_plural('container', names)} must not set securityContext.privileged=true") if names else None
    )


def _escalation(spec: Object) -> Problem | None:
    names = _bad(spec, lambda c: c.get("allowPrivilegeEscalation") is not False)
    if not names:
        return None
    return (
        "allowPrivilegeEscalation != false",
        f"{_plural('container', names)} must set securityContext.allowPrivilegeEscalation=false",
    )


def _capabilities_dropped(spec: Object) -> Problem | None:
    names = _bad(spec, lambda c: "ALL" not in ((c.get("capabilities") or {}).get("drop") or []))
    added = _bad(spec, lambda c: bool(set((c.get("capabilities") or {}).get("add") or []) - {"NET_BIND_SERVICE"}))
    parts = []
    if names:
        parts.append(f'{_plural("container", names)} must set securityContext.capabilities.drop=["ALL"]')
    if added:
        extra = sorted(
            {
                cap
                for c in _containers(spec)
                for cap in ((c.get("securityContext") or {}).get("capabilities") or {}).get("add") or []
            }
            - {"NET_BIND_SERVICE"}
        )
        listed = ", ".join(f'"{cap}"' for cap in extra)
        parts.append(f"{_plural('container', added)} must not include {listed} in securityContext.capabilities.add")
    return ("unrestricted capabilities", "; ".join(parts)) if parts else None


def _capabilities_added(spec: Object) -> Problem | None:
    names = _bad(spec, lambda c: bool(set((c.get("capabilities") or {}).get("add") or []) - _DEFAULT_CAPABILITIES))
    if not names:
        return None
    return (
        "non-default capabilities",
        f"{_plural('container', names)} must not add them in securityContext.capabilities.add",
    )


def _host_paths(spec: Object) -> Problem | None:
    names = [v["name"] for v in spec.get("volumes") or [] if v.get("hostPath") is not None]
    return ("hostPath volumes", _plural("volume", names)) if names else None


def _volume_types(spec: Object) -> Problem | None:
    bad = [
        (v["name"], kind)
        for v in spec.get("volumes") or []
        for kind in v
        if kind != "name" and kind not in _ALLOWED_VOLUMES
    ]
    if not bad:
        return None
    kinds = sorted({kind for _, kind in bad})
    uses = "uses restricted volume type" if len(bad) == 1 else "use restricted volume types"
    listed = ", ".join(f'"{kind}"' for kind in kinds)
    return "restricted volume types", f"{_plural('volume', [name for name, _ in bad])} {uses} {listed}"


def _host_ports(spec: Object) -> Problem | None:
    bad = [(c["name"], p["hostPort"]) for c in _containers(spec) for p in c.get("ports") or [] if p.get("hostPort")]
    if not bad:
        return None
    ports = ", ".join(str(port) for port in sorted({port for _, port in bad}))
    uses = "uses hostPort" if len(bad) == 1 else "use hostPorts"
    return "hostPort", f"{_plural('container', list(dict.fromkeys(name for name, _ in bad)))} {uses} {ports}"


def _run_as_non_root(spec: Object) -> Problem | None:
    pod = (spec.get("securityContext") or {}).get("runAsNonRoot")
    names = _bad(spec, lambda c: not c.get("runAsNonRoot", pod))
    if not names:
        return None
    return "runAsNonRoot != true", f"pod or {_plural('container', names)} must set securityContext.runAsNonRoot=true"


def _run_as_user(spec: Object) -> Problem | None:
    names = _bad(spec, lambda c: c.get("runAsUser") == 0)
    subjects = ["pod"] if (spec.get("securityContext") or {}).get("runAsUser") == 0 else []
    if names:
        subjects.append(_plural("container", names))
    return ("runAsUser=0", f"{' and '.join(subjects)} must not set runAsUser=0") if subjects else None


def _seccomp(context: Object) -> Any:
    return (context.get("seccompProfile") or {}).get("type")


def _seccomp_set(spec: Object) -> Problem | None:
    pod = _seccomp(spec.get("securityContext") or {})
    names = _bad(spec, lambda c: (_seccomp(c) or pod) not in ("RuntimeDefault", "Localhost"))
    if not names:
        return None
    return "seccompProfile", (
        f"pod or {_plural('container', names)} must set securityContext.seccompProfile.type to "
        '"RuntimeDefault" or "Localhost"'
    )


def _seccomp_unconfined(spec: Object) -> Problem | None:
    subjects = ["pod"] if _seccomp(spec.get("securityContext") or {}) == "Unconfined" else []
    if names := _bad(spec, lambda c: _seccomp(c) == "Unconfined"):
        subjects.append(_plural("container", names))
    if not subjects:
        return None
    return (
        "seccompProfile",
        f'{" and ".join(subjects)} must not set securityContext.seccompProfile.type to "Unconfined"',
    )
