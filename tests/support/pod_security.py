"""What in a pod spec the Pod Security level `restricted` does not allow.

Checked: host namespaces, privilege, escalation, capabilities, host ports, volume types, users and seccomp. Not checked,
as nothing here sets them: AppArmor, SELinux, /proc mounts, sysctls, Windows.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(spec: Object) -> list[str]:
    """One line for each problem, with the name of the container or volume."""
    pod = spec.get("securityContext") or {}
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    if pod.get("runAsUser") == 0:
        found.append("the pod runs as root")
    for volume in spec.get("volumes") or []:
        found += [f"volume {volume['name']} is of type {kind}" for kind in volume if kind not in {"name", *_VOLUMES}]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        context = container.get("securityContext") or {}
        found += [f"container {container['name']}: {problem}" for problem in _of_container(context, pod)]
        ports = [port["hostPort"] for port in container.get("ports") or [] if port.get("hostPort")]
        found += [f"container {container['name']} uses port {port} of the host" for port in ports]
    return found


def _of_container(context: Object, pod: Object) -> list[str]:
    capabilities = context.get("capabilities") or {}
    seccomp = (context.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
    wrong = {
        "privileged": context.get("privileged"),
        "allowPrivilegeEscalation is not false": context.get("allowPrivilegeEscalation") is not False,
        "capabilities are not all dropped": "ALL" not in (capabilities.get("drop") or []),
        "capabilities are added": set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"},
        "runAsNonRoot is not true": not context.get("runAsNonRoot", pod.get("runAsNonRoot")),
        "it runs as root": context.get("runAsUser") == 0,
        "it has no seccomp profile": seccomp not in ("RuntimeDefault", "Localhost"),
    }
    return [problem for problem, holds in wrong.items() if holds]
