"""Defaults of pods and pod templates, as the API server fills them in."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
_MODES = {"configMap": 420, "secret": 420, "projected": 420, "downwardAPI": 420}


def default_pod_spec(spec: Object) -> None:
    """What holds for pods and for templates alike. Changes `spec` in place."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or []:
            if isinstance(container, dict):
                _container(container)
    for volume in spec.get("volumes") or []:
        if isinstance(volume, dict):
            _volume(volume)


def default_pod(spec: Object) -> None:
    """What holds only for pods themselves: requests follow limits, service links are on."""
    default_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or []:
            resources = container.get("resources") or {}
            if limits := resources.get("limits"):
                requests = resources.setdefault("requests", {})
                for name, amount in limits.items():
                    requests.setdefault(name, amount)


def _container(container: Object) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        container["imagePullPolicy"] = "Always" if _latest(str(container.get("image", ""))) else "IfNotPresent"
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for env in container.get("env") or []:
        if field := (env.get("valueFrom") or {}).get("fieldRef"):
            field.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(name):
            for key, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                probe.setdefault(key, value)
            if http := probe.get("httpGet"):
                http.setdefault("path", "/")
                http.setdefault("scheme", "HTTP")


def _latest(image: str) -> bool:
    name = image.rpartition("/")[2]
    if "@" in name:
        return False
    tag = name.partition(":")[2]
    return tag in ("", "latest")


def _volume(volume: Object) -> None:
    sources = [key for key in volume if key != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for kind, mode in _MODES.items():
        if isinstance(source := volume.get(kind), dict):
            source.setdefault("defaultMode", mode)
    if isinstance(host := volume.get("hostPath"), dict):
        host.setdefault("type", "")
    for source in (volume.get("projected") or {}).get("sources") or []:
        if token := source.get("serviceAccountToken"):
            token.setdefault("expirationSeconds", 3600)
        _field_refs(source.get("downwardAPI"))
    _field_refs(volume.get("downwardAPI"))
    claim = ((volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}).get("spec")
    if isinstance(claim, dict):
        claim.setdefault("volumeMode", "Filesystem")


def _field_refs(source: Object | None) -> None:
    for item in (source or {}).get("items") or []:
        if field := item.get("fieldRef"):
            field.setdefault("apiVersion", "v1")
