"""What makes stage pods pass the `restricted` Pod Security level, and the check of what podTemplate patches open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from srlm_operator.errors import InvalidPodTemplate
from srlm_operator.settings import PodSecurity

POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: What a container may add at `baseline`.
_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip


def check_security(pod: Mapping[str, Any], level: PodSecurity) -> None:
    """Raises InvalidPodTemplate, naming the field, when a merged pod spec is less than `level` of the Pod Security
    Standards (https://kubernetes.io/docs/concepts/security/pod-security-standards/).

    A token for the API server is refused at every level. A hostPath volume is let through at every level: it is an
    explicit choice, and the namespace's own level decides.
    """
    if pod.get("automountServiceAccountToken") is not False:
        _refuse("spec.automountServiceAccountToken", "must stay false: stage pods get no API token")
    for volume in pod.get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            # With an audience it is for somebody else than the API server: workload identity is welcome.
            if "serviceAccountToken" in source and not (source["serviceAccountToken"] or {}).get("audience"):
                _refuse(f"spec.volumes[{volume.get('name')}]", "must not hold a token for the API server")
    try:
        if level != "Privileged":
            _check_baseline(pod)
        if level == "Restricted":
            _check_restricted(pod)
    except InvalidPodTemplate as problem:
        raise InvalidPodTemplate(
            f"{problem}: the operator's setting podSecurity (stagePods.podSecurity of its chart) is {level}"
        ) from None


def _check_baseline(pod: Mapping[str, Any]) -> None:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            _refuse(f"spec.{field}", "must stay unset")
    _check_seccomp("spec.securityContext", pod.get("securityContext") or {})
    for path, container in _containers(pod):
        security = container.get("securityContext") or {}
        _check_seccomp(f"{path}.securityContext", security)
        if security.get("privileged"):
            _refuse(f"{path}.securityContext.privileged", "must stay unset")
        more = set((security.get("capabilities") or {}).get("add") or ()) - _BASELINE_CAPABILITIES
        if more:
            _refuse(f"{path}.securityContext.capabilities.add", f"may not contain {', '.join(sorted(more))}")
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                _refuse(f"{path}.ports.hostPort", "must stay unset")


def _check_restricted(pod: Mapping[str, Any]) -> None:
    _check_user("spec.securityContext", pod.get("securityContext") or {})
    for path, container in _containers(pod):
        security = container.get("securityContext") or {}
        where = f"{path}.securityContext"
        _check_user(where, security)
        if security.get("allowPrivilegeEscalation") is not False:
            _refuse(f"{where}.allowPrivilegeEscalation", "must be false")
        capabilities = security.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            _refuse(f"{where}.capabilities.drop", "must contain ALL")
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            _refuse(f"{where}.capabilities.add", "may contain NET_BIND_SERVICE only")


def harden(container: dict[str, Any]) -> None:
    """Give a container that a podTemplate added the same security context, where it states none."""
    security = container.setdefault("securityContext", {})
    for field, value in CONTAINER_SECURITY.items():
        security.setdefault(field, value)
    if security.get("privileged"):
        del security["allowPrivilegeEscalation"]  # the API server refuses privileged containers that may not escalate


def _check_user(path: str, security: Mapping[str, Any]) -> None:
    if security.get("runAsNonRoot") is False:
        _refuse(f"{path}.runAsNonRoot", "must stay true")
    if security.get("runAsUser") == 0:
        _refuse(f"{path}.runAsUser", "must not be 0")


def _check_seccomp(path: str, security: Mapping[str, Any]) -> None:
    profile = (security.get("seccompProfile") or {}).get("type", "RuntimeDefault")
    if profile not in ("RuntimeDefault", "Localhost"):
        _refuse(f"{path}.seccompProfile.type", "must be RuntimeDefault or Localhost")


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for kind in ("initContainers", "containers"):
        for container in pod.get(kind) or ():
            yield f"spec.{kind}[{container.get('name', '')}]", container


def _refuse(path: str, what: str) -> None:
    raise InvalidPodTemplate(f"podTemplate: {path} {what}")
