"""Volumes of a pod as folders. Secrets and ConfigMaps are copied in when the pod starts, as files.

<pod folder>/volumes/<volume name>/...
<cluster folder>/claims/<namespace>/<claim name>/...      persistent volume claims: outlive the pod
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from srlm_local.podrunner.environment import ConfigError, Lookup, read_data

Object = dict[str, Any]


class MountError(Exception):
    """A volume cannot be set up yet: kubelet's message of a FailedMount event."""


def prepare(pod: Object, pod_folder: Path, claims: Path, lookup: Lookup) -> dict[str, Path]:
    """Makes all volumes; returns the folder (or file, for a hostPath) by volume name. Raises MountError."""
    folders = {}
    for volume in pod["spec"].get("volumes") or []:
        folder = pod_folder / "volumes" / volume["name"]
        try:
            folders[volume["name"]] = _make(pod, volume, folder, claims, lookup)
        except ConfigError as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from None
    return folders


def _make(pod: Object, volume: Object, folder: Path, claims: Path, lookup: Lookup) -> Path:
    if (claim := volume.get("persistentVolumeClaim")) is not None:
        path = claims / str(pod["metadata"]["namespace"]) / str(claim["claimName"])
        path.mkdir(parents=True, exist_ok=True)
        return path
    if (host := volume.get("hostPath")) is not None:
        path = Path(host["path"])
        if host.get("type", "") in ("DirectoryOrCreate", ""):
            path.mkdir(parents=True, exist_ok=True)
        return path
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if volume.get("emptyDir") is not None or volume.get("ephemeral") is not None:  # both go with the pod
        return folder
    sources = [volume]
    if (projected := volume.get("projected")) is not None:
        sources = projected.get("sources") or []
    for source in sources:
        for name, content in _files(source, lookup).items():
            _write(folder, name, content)
    return folder


def _files(source: Object, lookup: Lookup) -> dict[str, bytes]:
    if (secret := source.get("secret")) is not None:
        return _data("secrets", secret.get("secretName") or secret.get("name"), secret, lookup)
    if (config := source.get("configMap")) is not None:
        return _data("configmaps", config["name"], config, lookup)
    raise ConfigError("only emptyDir, secret, configMap, projected, hostPath and claims are supported here")


def _data(resource: str, name: str, source: Object, lookup: Lookup) -> dict[str, bytes]:
    optional = source.get("optional", False)
    data = read_data(resource, name, optional, lookup)
    if not source.get("items"):
        return data
    chosen = {}
    for item in source["items"]:
        if item["key"] in data:
            chosen[item["path"]] = data[item["key"]]
        elif not optional:
            kind = {"configmaps": "config", "secrets": "secret"}[resource]
            raise ConfigError(f"{resource.removesuffix('s')} references non-existent {kind} key: {item['key']}")
    return chosen


def _write(folder: Path, path: str, content: bytes) -> None:
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise ConfigError(f"path {path!r} leads out of the volume")
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def mounts(container: Object, folders: dict[str, Path]) -> dict[str, Path]:
    """Real path by mount path of one container."""
    found = {}
    for mount in container.get("volumeMounts") or []:
        path = folders[mount["name"]]
        if mount.get("subPath"):
            path = path / mount["subPath"]
            if not path.exists():
                path.mkdir(parents=True)
        found[mount["mountPath"]] = path
    return found


def remove(pod_folder: Path) -> None:
    """Removes a pod's folder, logs included."""
    shutil.rmtree(pod_folder, ignore_errors=True)
